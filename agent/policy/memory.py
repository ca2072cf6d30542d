"""What the rules remember: timers and what was done, together and as rows of the history. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.model.policy_state import PolicyState, StateKind
from agent.model.removal import Removal
from agent.model.tick import Tick
from agent.policy.arming import Arming, Fired
from agent.policy.conditions import HostMoment, moment
from agent.policy.rules import RuleSet
from agent.policy.timers import Timer, Timers, holding


class RuleMemory:
    """One run's memory; `resume` takes it up from an earlier run of the same boot."""

    def __init__(self, longest_gap_ns: int, kept: Iterable[PolicyState] = (), now_ns: int = 0):
        self.timers = Timers(longest_gap_ns)
        self.arming = Arming()
        self._seen_ns = now_ns
        rows = tuple(kept)
        self.timers.resume(
            {
                (one.container, one.name): Timer(one.since_ns, one.seen_ns)
                for one in rows
                if one.kind is StateKind.TIMER
            }
        )
        # A step counts from the first action; the time that nobody observed does not.
        self.arming.resume(
            {
                (one.name, one.container): Fired(
                    one.since_ns + max(0, now_ns - one.seen_ns), one.stages
                )
                for one in rows
                if one.kind is StateKind.FIRED
            }
        )
        self._had_rows = bool(rows)

    def moment(self, tick: Tick, rules: RuleSet) -> HostMoment:
        """What is known at a tick, its levels noted. A look between two ticks notes none: it knows
        less of the host."""
        now = moment(tick)
        if tick.host is not None:
            self.timers.seen(holding(tick.totals, rules, now), now.now_ns)
            self._seen_ns = now.now_ns
        return replace(now, since=self.timers.since)

    def done(self, removals: Iterable[Removal], now_ns: int) -> None:
        self.arming.done(removals, now_ns)

    def rows(self) -> tuple[PolicyState, ...] | None:
        """All of it, None where there is nothing and the history has nothing."""
        rows = (
            *(
                PolicyState(StateKind.TIMER, name, key, timer.since_ns, timer.seen_ns)
                for (key, name), timer in self.timers.kept.items()
            ),
            *(
                PolicyState(StateKind.FIRED, rule, key, fired.first_ns, self._seen_ns, fired.stages)
                for (rule, key), fired in self.arming.kept.items()
            ),
        )
        return rows if rows or self._had_rows else None

    def stored(self, rows: tuple[PolicyState, ...] | None) -> None:
        """The history has these now."""
        if rows is not None:
            self._had_rows = bool(rows)
