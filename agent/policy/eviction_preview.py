"""Which containers would go next, and why: the policy asked over the rows of one stored tick.

Pure. The rows know less than the agent did: not when a container was created, so that ties between
equals may fall the other way, and not its state, so that one without a process may have ended or
may not have begun.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from agent.config import PolicySettings
from agent.model.container import (
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    HeldBasis,
    Tier,
)
from agent.model.removal import Decision
from agent.policy import decide
from agent.policy.conditions import KB_PER_MB

_NO_PROCESS = "has no process: goes if it has ended"


class TotalsRow(Protocol):
    """What is needed of a row of `container_totals`."""

    @property
    def container_id(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def container_name(self) -> str: ...
    @property
    def image(self) -> str: ...
    @property
    def tier(self) -> str: ...
    @property
    def governed(self) -> bool: ...
    @property
    def processes(self) -> int: ...
    @property
    def held_mb(self) -> float: ...
    @property
    def rss_mb(self) -> float: ...
    @property
    def cpu_percent(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Contender:
    """One governed container in the order in which the policy would take it."""

    container_id: str
    container_name: str
    tier: str
    place: int
    """1 is the next of its tier to go, 0 where its state would have to be known."""
    goes: bool
    """Whether the next pass takes it as things are."""
    why: str


def contenders(
    rows: Sequence[TotalsRow],
    disputed: Collection[ContainerKey],
    gone: Collection[ContainerKey],
    settings: PolicySettings,
) -> tuple[Contender, ...]:
    """Every container of the built-in set that is still there, those that go first.

    `disputed` are those that a conflict between the witnesses names, `gone` those removed since the
    rows were written, all by the ids of the rows. Each engine keeps its own.
    """
    # What a rule of one's own claims has no tier: a row does not hold what its conditions ask for.
    rows = [row for row in rows if row.tier != Tier.NONE]
    totals = [
        _totals(row) for row in rows if row.governed and row.processes and _key(row) not in gone
    ]
    unsure = frozenset(disputed)
    going = {one.container for one in _decide(totals, unsure, settings)}
    found: list[Contender] = []
    places: dict[str, int] = {}
    for one in _order(totals):
        places[one.tier] = places.get(one.tier, 0) + 1
        goes = one.container in going
        found.append(
            Contender(
                one.container_id,
                one.container_name,
                str(one.tier),
                places[one.tier],
                goes,
                _why(one, goes, one.container in unsure, settings),
            )
        )
    found += [
        Contender(row.container_id, row.container_name, row.tier, 0, False, _NO_PROCESS)
        for row in rows
        if row.governed and _key(row) not in gone and not row.processes
    ]
    return tuple(sorted(found, key=lambda one: not one.goes))


def _key(row: TotalsRow) -> ContainerKey:
    return ContainerKey(row.engine, row.container_id)


def _order(totals: Sequence[ContainerTotals]) -> tuple[Decision, ...]:
    """Everybody as if nobody were kept: the policy's own order."""
    nobody = PolicySettings(keep_low=0, keep_high=0)
    return _decide(totals, frozenset(), nobody)


def _decide(
    totals: Sequence[ContainerTotals], disputed: frozenset[ContainerKey], settings: PolicySettings
) -> tuple[Decision, ...]:
    numbers = count(1)
    return decide.decide(totals, disputed, settings, lambda: str(next(numbers)))


def _why(one: Decision, goes: bool, disputed: bool, settings: PolicySettings) -> str:
    if disputed:
        return "spared: the two witnesses disagree on it"
    keep = settings.keep_low if one.tier is Tier.LOW else settings.keep_high
    if goes:
        return f"beyond the {keep} {one.tier} that stay, and holds more than they do"
    return f"within the {keep} {one.tier} that stay"


def _totals(row: TotalsRow) -> ContainerTotals:
    return ContainerTotals(
        container=Container(
            id=row.container_id,
            name=row.container_name,
            image=row.image,
            created_ns=0,
            state=ContainerState.RUNNING,
            engine=row.engine,
        ),
        tier=Tier(row.tier),
        governed=row.governed,
        processes=row.processes,
        held_kb=round(row.held_mb * KB_PER_MB),
        held_basis=HeldBasis.CGROUP2,
        rss_kb=round(row.rss_mb * KB_PER_MB),
        cache_kb=None,
        cpu_percent=row.cpu_percent,
    )
