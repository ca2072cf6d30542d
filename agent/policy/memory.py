"""What the rules remember: timers and what was done, together and as rows of the history. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from agent.model.activity import Activity
from agent.model.container import ContainerKey
from agent.model.policy_state import PolicyState, StateKind
from agent.model.removal import Removal
from agent.model.tick import Tick
from agent.policy import idle
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
        self._idle = idle.Looked(
            {
                one.container: idle.Footprint(activity)
                for one in rows
                if one.kind is StateKind.ACTIVITY and (activity := _activity(one)) is not None
            }
        )
        self._had_rows = bool(rows)

    def moment(self, tick: Tick, rules: RuleSet) -> HostMoment:
        """What is known at a tick, its levels noted. A look between two ticks notes none: it knows
        less of the host."""
        now = moment(tick)
        if tick.host is not None:
            asked = idle.is_asked_for(rules)
            self._idle = idle.after(self._idle.traces, tick) if asked else idle.Looked()
            now = replace(now, idle=self._idle.found)
            # Nobody observed what a silent engine's containers did meanwhile.
            unknown = {key: None for key in self.timers.kept if key[0].engine in tick.sample.silent}
            held = {**unknown, **holding(tick.totals, rules, now)}
            self.timers.seen(held, now.now_ns, self._idle.proven)
            self._seen_ns = now.now_ns
        return replace(now, since=self.timers.since, idle=self._idle.found)

    def done(self, removals: Iterable[Removal], now_ns: int) -> None:
        self.arming.done(removals, now_ns)

    def rows(self) -> tuple[PolicyState, ...] | None:
        """All of it, None where there is nothing and the history has nothing.

        A dry run spends nothing: what it would have done is due in the run after it.
        """
        rows = (
            *(
                PolicyState(StateKind.TIMER, name, key, timer.since_ns, timer.seen_ns)
                for (key, name), timer in self.timers.kept.items()
            ),
            *(
                PolicyState(StateKind.FIRED, rule, key, fired.first_ns, self._seen_ns, stages)
                for (rule, key), fired in self.arming.kept.items()
                if (stages := fired.stages - fired.rehearsed)
            ),
            *(_row(key, trace.activity) for key, trace in self._idle.traces.items()),
        )
        return rows if rows or self._had_rows else None

    def stored(self, rows: tuple[PolicyState, ...] | None) -> None:
        """The history has these now."""
        if rows is not None:
            self._had_rows = bool(rows)


def _row(key: ContainerKey, activity: Activity) -> PolicyState:
    counters = [
        activity.life_id,
        activity.cpu_ns,
        activity.io_operations,
        activity.sent_bytes,
        activity.missing,
    ]
    value = msgspec.json.encode(counters).decode()
    return PolicyState(
        StateKind.ACTIVITY, "counters", key, activity.read_ns, activity.read_ns, value=value
    )


def _activity(row: PolicyState) -> Activity | None:
    """None for a row that is none of ours."""
    try:
        counters = msgspec.json.decode(row.value, type=tuple[int, int, int, int, str])
    except msgspec.MsgspecError:
        return None
    return Activity(row.seen_ns, *counters)
