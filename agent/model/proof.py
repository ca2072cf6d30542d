"""How far the figures that decide can be trusted, as values: budgets, and armed or disarmed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

WallMs = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Unix milliseconds, up to the end of the year 9999: what everybody can store and show."""


class BudgetName(StrEnum):
    AGREEMENT = "agreement"
    """Processes on which the two witnesses disagree."""
    LOSS = "loss"
    """BPF's records that are gone, `missed` among them."""
    UNEXPLAINED = "unexplained"
    """CPU of containers that no process of theirs had."""
    CANARY = "canary"
    """How far off the last canary was."""


class BudgetUse(msgspec.Struct, frozen=True):
    """How much of one budget a tick used; 1 is all of it."""

    name: BudgetName
    used: float
    finding: str
    """What was measured, for people."""

    @property
    def is_over(self) -> bool:
        return self.used > 1


class CanaryResult(msgspec.Struct, frozen=True):
    """What the last canary proved."""

    wall_ms: int
    error: float
    """The largest relative error of a line that is off, 0 where none is."""
    line: str = ""
    """Which one."""


class ProofState(msgspec.Struct, frozen=True):
    """What is remembered from tick to tick, and over a restart."""

    disarmed: bool = False
    since_ms: int = 0
    """Wall clock of the last change, 0 where there was none."""
    why: str = ""
    """What was found when it was disarmed, "" while armed."""
    spent: tuple[BudgetName, ...] = ()
    """Budgets that were over since then."""
    recent: tuple[bool, ...] = ()
    """Of the last ticks, newest last: whether a budget was over."""
    canary: CanaryResult | None = None
    hand: str = ""
    """The last word by hand that was taken up, by its id."""


class ByHand(msgspec.Struct, frozen=True):
    """What somebody wants of the policy."""

    armed: bool
    at_ms: WallMs
    """Wall clock."""
    why: str = ""
    id: str = ""
    """Random, so that each word is taken up once, however clocks go; "" in files of before."""


class ArmingWord(msgspec.Struct, frozen=True):
    """Whether the policy acts at this moment, and if not, since when and why not."""

    armed: bool
    since_ms: int = 0
    why: str = ""


ARMED = ArmingWord(armed=True)
