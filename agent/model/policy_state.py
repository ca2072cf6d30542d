"""What the rules remember from tick to tick, as rows that survive a restart of the agent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.model.container import ContainerKey


class StateKind(StrEnum):
    TIMER = "timer"
    """Since when something has been so, as `cpu>90`."""
    ACTIVITY = "activity"
    """What its counters were; `PolicyState.value` has them."""
    FIRED = "fired"
    """What a rule has done since it last was false."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    """One thing remembered of one container. Times are of the boot clock and hold for its boot."""

    kind: StateKind
    name: str
    """The level's key or the rule's name."""
    container: ContainerKey
    since_ns: int
    seen_ns: int
    """When it was last seen to be so."""
    stages: int = 0
    """How many of a rule's actions are done."""
    value: str = ""
