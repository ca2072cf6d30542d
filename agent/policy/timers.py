"""Since when something has been so of a container: what `for`, `exited` and `unhealthy` count.

Time that nobody observed does not count: the agent was down, the engine was away, a figure was
unknown. Pure but for what it remembers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from agent.model.container import ContainerKey, ContainerTotals
from agent.policy.conditions import IDLE, HostMoment, idle_level, levels
from agent.policy.decide import claim_of
from agent.policy.rules import RuleOrder, RuleSet, When

Key = tuple[ContainerKey, str]
"""A container and the key of a level."""


@dataclass(frozen=True, slots=True)
class Timer:
    since_ns: int
    """Boot clock; later than it really began by all that was not observed."""
    seen_ns: int


class Timers:
    """The timers of all levels that a rule waits for."""

    def __init__(self, longest_gap_ns: int) -> None:
        """Two looks further apart than `longest_gap_ns` do not prove what was between them."""
        self._longest_gap_ns = longest_gap_ns
        self._timers: dict[Key, Timer] = {}
        self._resumed: set[Key] = set()

    def resume(self, kept: Mapping[Key, Timer]) -> None:
        """Goes on from an earlier run of the same boot; the time since then was not observed."""
        self._timers = dict(kept)
        self._resumed = set(kept)

    @property
    def kept(self) -> Mapping[Key, Timer]:
        return dict(self._timers)

    @property
    def since(self) -> Mapping[Key, int]:
        return {key: timer.since_ns for key, timer in self._timers.items()}

    @property
    def any(self) -> bool:
        """Whether anything is timed."""
        return bool(self._timers)

    def is_ripe(self, level: str, lasting_ns: int, now_ns: int) -> bool:
        """Whether a level has held for so long on any container."""
        return not lasting_ns or any(
            key[1] == level and now_ns - timer.since_ns >= lasting_ns
            for key, timer in self._timers.items()
        )

    def still(self, holding: Mapping[Key, bool | None], now_ns: int) -> None:
        """The same holds as at the look before, and did at every one in between, none of which came
        late."""
        for key, holds in holding.items():
            if holds and (timer := self._timers.get(key)) is not None:
                self._timers[key] = Timer(timer.since_ns, now_ns)

    def seen(
        self,
        holding: Mapping[Key, bool | None],
        now_ns: int,
        proven: Collection[ContainerKey] = (),
    ) -> None:
        """Notes what holds at this moment; None is unknown. What is not named is over.

        `proven` are those whose counters say that they were idle since the look before, however
        long ago that was.
        """
        kept: dict[Key, Timer] = {}
        for key, holds in holding.items():
            before = self._timers.get(key)
            if holds is None:
                if before is not None:
                    kept[key] = before
            elif holds:
                kept[key] = self._next(key, before, now_ns, proven)
        self._timers = kept
        self._resumed &= {key for key, holds in holding.items() if holds is None}

    def _next(
        self, key: Key, before: Timer | None, now_ns: int, proven: Collection[ContainerKey]
    ) -> Timer:
        if before is None:
            return Timer(now_ns, now_ns)
        gap_ns = max(0, now_ns - before.seen_ns)
        is_proven = gap_ns <= self._longest_gap_ns and key not in self._resumed
        is_proven = is_proven or (key[1] == IDLE and key[0] in proven)
        return Timer(before.since_ns if is_proven else before.since_ns + gap_ns, now_ns)


def holding(
    totals: Sequence[ContainerTotals], rules: RuleSet, now: HostMoment
) -> dict[Key, bool | None]:
    """Every level that a rule waits for on a container that it claims, as it is at this moment."""
    found: dict[Key, bool | None] = {}
    for one in totals:
        rule = rules.named(claim_of(one))
        if rule is None:
            continue
        if rule.order is RuleOrder.IDLE:
            found[(one.container.key, IDLE)] = idle_level("0s", one, now).holds
        for level in levels(rule.when or When(), one, now):
            if level.lasting_ns:
                found[(one.container.key, level.key)] = level.holds
    return found
