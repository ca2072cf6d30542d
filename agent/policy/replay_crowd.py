"""Who was there in a tick of the past, which is seldom another crowd than in the tick before. Pure.

A month has 130,000 ticks of the same containers. Who they are, what claims them and what is known
of their state is made once and kept until a row, a state or a claim is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.model.container import (
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    HeldBasis,
    Tier,
)
from agent.model.past import (
    CPU_PERCENT,
    HELD_MB,
    PROCESSES,
    STATIC,
    PastContainer,
    PastRow,
    PastState,
)
from agent.policy import original
from agent.policy.conditions import KB_PER_MB
from agent.policy.replay_quiet import Together
from agent.policy.rules import Rule, RuleSet, duration_ns

MS_NS = 10**6
_STATES = {str(one): one for one in ContainerState}


@dataclass(slots=True)
class Life:
    """One container as long as the ticks have it."""

    first_ns: int
    """When a tick first saw it run."""
    ran: bool
    known: PastState | None = None
    """What is stored of its state, None in a history of before that was."""

    @property
    def started_ns(self) -> int:
        """Its last start, 0 where it has not run."""
        if self.known is not None and self.known.started_ms:
            return self.known.started_ms * MS_NS
        return self.first_ns if self.ran else 0


@dataclass(slots=True)
class Seat:
    """One claimed container of a crowd."""

    key: ContainerKey
    place: int
    """Of its row."""
    container: Container
    tier: Tier
    life: Life

    def totals(self, row: PastRow, rule: str) -> ContainerTotals:
        return ContainerTotals(
            container=self.container,
            tier=self.tier,
            governed=True,
            processes=row[PROCESSES],
            held_kb=round(row[HELD_MB] * KB_PER_MB),
            held_basis=HeldBasis.CGROUP2,
            rss_kb=0,
            cache_kb=None,
            cpu_percent=row[CPU_PERCENT],
            rule=rule,
        )


@dataclass(slots=True)
class ClaimedGroup:
    """What one rule claims on one engine."""

    rule: Rule
    seats: list[Seat]
    together: Together
    asks_held: bool
    asks_cpu: bool

    def look(self, rows: Sequence[PastRow]) -> None:
        """Takes the figures that the rule asks for."""
        if self.asks_held:
            self.together.held_mb = max(rows[one.place][HELD_MB] for one in self.seats)
        if self.asks_cpu:
            self.together.cpu_percent = max(rows[one.place][CPU_PERCENT] for one in self.seats)


class Crowd:
    """The containers of one tick; `is_of` says whether another tick has the same."""

    def __init__(
        self,
        rows: Sequence[PastRow],
        lives: Mapping[ContainerKey, Life],
        gone: Iterable[ContainerKey],
        rules: RuleSet,
        claim: Callable[[PastContainer, ContainerState], tuple[str, Tier]],
    ) -> None:
        """`lives` has everyone but the `gone`; what `claim` names and `rules` has is claimed."""
        self._statics = [row[STATIC] for row in rows]
        self._by_figures = any(one.known is None for one in lives.values())
        self._running = [_runs(row) for row in rows] if self._by_figures else []
        self.gone_at: list[int] = []
        """Places of those that would have gone before."""
        self.lives = lives
        by_name = {one.name: one for one in rules.rules}
        away = frozenset(gone)
        groups: dict[tuple[str, str], ClaimedGroup] = {}
        for place, one in enumerate(rows):
            row = PastContainer._make(one)
            key = ContainerKey(row.engine, row.container_id)
            if key in away:
                self.gone_at.append(place)
                continue
            life = lives[key]
            state = state_of(row, life)
            name, tier = claim(row, state)
            rule = by_name.get(name)
            if rule is None:
                continue
            group = groups.get((name, row.engine))
            if group is None:
                group = groups[(name, row.engine)] = _group(rule)
            seat = Seat(key, place, container_of(row, state, life), tier, life)
            group.seats.append(seat)
            group.together.count(state.is_running)
        self.groups = list(groups.values())

    def is_of(self, rows: Sequence[PastRow]) -> bool:
        """Whether these are the same, in the same state."""
        return [row[STATIC] for row in rows] == self._statics and (
            not self._by_figures or [_runs(row) for row in rows] == self._running
        )

    def totals(self, rows: Sequence[PastRow]) -> list[ContainerTotals]:
        """Of each that a rule claims."""
        return [
            seat.totals(rows[seat.place], group.rule.name)
            for group in self.groups
            for seat in group.seats
        ]

    def given_back_mb(self, rows: Sequence[PastRow]) -> float:
        """What those hold that would have gone before."""
        return sum(rows[place][HELD_MB] for place in self.gone_at) if self.gone_at else 0.0

    def what_holds(self, rows: Sequence[PastRow]) -> list[list[bool]]:
        """By rule and container, each condition on a figure: equal ones decide alike."""
        found = []
        for group in self.groups:
            when = group.rule.when
            if when is not None and when.held_mb is not None:
                bound = when.held_mb
                found.append([rows[one.place][HELD_MB] >= bound for one in group.seats])
            if when is not None and when.cpu is not None:
                bound = when.cpu.above
                found.append([rows[one.place][CPU_PERCENT] > bound for one in group.seats])
        return found

    def busy(self, rows: Sequence[PastRow]) -> dict[tuple[ContainerKey, str], bool | None]:
        """By container and level, whether it is as busy as a rule asks for a time; None where its
        CPU says nothing."""
        found: dict[tuple[ContainerKey, str], bool | None] = {}
        for group in self.groups:
            cpu = group.rule.when and group.rule.when.cpu
            if cpu and duration_ns(cpu.lasting):
                level, above = f"cpu>{cpu.above:g}", cpu.above
                for one in group.seats:
                    runs = one.container.state.is_running
                    found[(one.key, level)] = rows[one.place][CPU_PERCENT] > above if runs else None
        return found


def state_of(row: PastContainer, life: Life) -> ContainerState:
    """As it is stored; in older histories as far as its processes tell: one that never had any may
    not have begun."""
    if life.known is not None:
        return _STATES.get(life.known.state, ContainerState.UNKNOWN)
    if row.runs:
        return ContainerState.RUNNING
    ended = life.ran or row.rule == original.EXITED
    return ContainerState.EXITED if ended else ContainerState.UNKNOWN


def container_of(row: PastContainer, state: ContainerState, life: Life) -> Container:
    """Where its creation is not stored, whoever was seen later is the younger one."""
    known = life.known
    return Container(
        id=row.container_id,
        name=row.name,
        image=row.image,
        created_ns=life.first_ns if known is None else known.created_ms * MS_NS,
        state=state,
        health="" if known is None else known.health,
        engine=row.engine,
    )


def _runs(row: PastRow) -> bool:
    return row[PROCESSES] > 0 or row[HELD_MB] > 0


def _group(rule: Rule) -> ClaimedGroup:
    when = rule.when
    return ClaimedGroup(
        rule,
        [],
        Together(),
        asks_held=when is not None and when.held_mb is not None,
        asks_cpu=when is not None and when.cpu is not None,
    )
