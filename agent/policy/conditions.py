"""Whether the conditions of a rule hold for a container: each with its figure and its threshold.

Pure. A figure that is unknown on this host leaves its condition unmet, and the verdict says what is
missing. How long something has been so is told by `HostMoment.since`, which `policy.timers` keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.model.container import ContainerKey, ContainerState, ContainerTotals
from agent.model.tick import Tick
from agent.policy.idle import NOT_YET, Idleness
from agent.policy.rules import ENDED, SECOND_NS, Rule, When, duration_ns

KB_PER_MB = 1024
IDLE = "idle"
NO_PRESSURE = "this kernel tells no memory pressure (psi=1; agent doctor says why)"


@dataclass(frozen=True, slots=True)
class HostMoment:
    """What is known of the host at one moment, beside its containers' totals."""

    now_ns: int = 0
    """Boot clock."""
    available_kb: int | None = None
    pressure: float | None = None
    """`some avg10` of memory."""
    started_ns: Mapping[ContainerKey, int] = field(default_factory=dict)
    """By container: when its first process started (boot clock), which is its last start."""
    since: Mapping[tuple[ContainerKey, str], int] = field(default_factory=dict)
    """By container and level (`level_key`): since when it has been so without a break."""
    idle: Mapping[ContainerKey, Idleness] = field(default_factory=dict)
    host_since: Mapping[str, int] = field(default_factory=dict)
    """By level, of the whole host: the same, from samples between ticks."""
    host_missing: str = ""
    """Why nothing is known of the host's memory, "" where it is as said above."""
    pressure_missing: str = NO_PRESSURE
    """Why there is no pressure where there is none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition of a rule held against one container."""

    condition: str
    value: str
    threshold: str
    met: bool | None
    """None where the figure is unknown: then the condition is not met."""
    missing: str = ""
    """Why it is unknown."""


@dataclass(frozen=True, slots=True)
class TimedCondition:
    """Something that is so or not at this moment, and counts once it has been for a time."""

    condition: str
    key: str
    lasting_ns: int
    holds: bool | None
    value: str
    threshold: str
    missing: str = ""


def moment(tick: Tick, since: Mapping[tuple[ContainerKey, str], int] | None = None) -> HostMoment:
    """What a tick tells of the host."""
    snapshot = tick.sample.snapshot
    return HostMoment(
        now_ns=snapshot.snapshot_ns,
        available_kb=snapshot.memory.available_kb,
        pressure=tick.host.psi_memory_some_avg10 if tick.host else None,
        started_ns=started_ns(tick),
        since=since or {},
    )


def started_ns(tick: Tick) -> dict[ContainerKey, int]:
    """By container: when its first process started (boot clock), which is its last start."""
    first = {one.first_pid: one.key for one in tick.containers if one.first_pid}
    return {
        first[process.pid]: process.start_ns
        for process in tick.sample.snapshot.processes
        if process.pid in first
    }


def verdicts(rule: Rule, one: ContainerTotals, now: HostMoment) -> tuple[Verdict, ...]:
    """Each condition of the rule; none for a rule without `when`, which then always holds."""
    return tuple(_verdicts(rule.when or When(), one, now))


def _verdicts(when: When, one: ContainerTotals, now: HostMoment) -> Iterator[Verdict]:
    if when.age is not None:
        yield _age(when.age, one, now)
    if when.held_mb is not None:
        held = one.held_kb / KB_PER_MB
        met = held >= when.held_mb
        yield Verdict("held_mb", f"{held:.1f}", f"at least {when.held_mb:g}", met)
    for level in levels(when, one, now):
        yield _lasted(level, one, now)
    if when.available_mb is not None:
        yield _available(when.available_mb, now)


def levels(when: When, one: ContainerTotals, now: HostMoment) -> Iterator[TimedCondition]:
    """Those conditions that must have held for a time, as they are at this moment."""
    state = one.container.state
    if when.idle is not None:
        yield idle_level(when.idle, one, now)
    if when.exited is not None:
        yield _level("exited", "exited", when.exited, state in ENDED, str(state))
    if when.unhealthy is not None:
        health = one.container.health
        yield _level(
            "unhealthy",
            "unhealthy",
            when.unhealthy,
            health == "unhealthy" if health and state.is_running else None,
            health,
            "" if health else "it has no health check",
        )
    if when.cpu is not None:
        above = when.cpu.above
        cpu = one.cpu_percent
        known = math.isfinite(cpu) and state.is_running
        yield _level(
            "cpu",
            f"cpu>{above:g}",
            when.cpu.lasting,
            cpu > above if known else None,
            f"{cpu:.1f} %",
            "" if known else "its CPU is not known",
            f"more than {above:g} % ",
        )
    if when.pressure is not None:
        bound, memory = when.pressure.memory, now.pressure
        yield _level(
            "pressure",
            pressure_key(f"{bound:g}"),
            when.pressure.lasting,
            None if memory is None else memory > bound,
            "" if memory is None else f"{memory:.2f} %",
            "" if memory is not None else now.host_missing or now.pressure_missing,
            f"more than {bound:g} % ",
        )


def idle_level(lasting: str, one: ContainerTotals, now: HostMoment) -> TimedCondition:
    """Whether it rests; an order by it asks too."""
    if not one.container.state.is_running or one.container.state is ContainerState.PAUSED:
        return _level(IDLE, IDLE, lasting, False, str(one.container.state))
    found = now.idle.get(one.container.key, Idleness(None, missing=NOT_YET))
    return _level(IDLE, IDLE, lasting, found.holds, found.value, found.missing)


def pressure_key(bound: str) -> str:
    """The key of the level `pressure` with this bound."""
    return f"pressure>{bound}"


def _level(
    condition: str,
    key: str,
    lasting: str,
    holds: bool | None,
    value: str,
    missing: str = "",
    threshold: str = "",
) -> TimedCondition:
    if not missing and holds is None:
        missing = "it does not run"
    return TimedCondition(
        condition, key, duration_ns(lasting), holds, value, f"{threshold}for {lasting}", missing
    )


def _lasted(level: TimedCondition, one: ContainerTotals, now: HostMoment) -> Verdict:
    value, met = level.value, level.holds
    if level.holds:
        since_ns = min(
            now.since.get((one.container.key, level.key), now.now_ns),
            now.host_since.get(level.key, now.now_ns),
        )
        lasted_ns = max(0, now.now_ns - since_ns)
        value += f" for {_shown(lasted_ns)}"
        met = lasted_ns >= level.lasting_ns
    return Verdict(level.condition, value, level.threshold, met, level.missing)


def _age(threshold: str, one: ContainerTotals, now: HostMoment) -> Verdict:
    started_ns = now.started_ns.get(one.container.key)
    at_least = f"at least {threshold}"
    if started_ns is None:
        why = "its first process was not seen" if one.container.first_pid else "it does not run"
        return Verdict("age", "", at_least, None, why)
    age_ns = max(0, now.now_ns - started_ns)
    return Verdict("age", _shown(age_ns), at_least, age_ns >= duration_ns(threshold))


def _available(bound: float, now: HostMoment) -> Verdict:
    below = f"less than {bound:g}"
    if now.available_kb is None:
        missing = now.host_missing or "the host's memory was not read"
        return Verdict("available_mb", "", below, None, missing)
    available = now.available_kb / KB_PER_MB
    return Verdict("available_mb", f"{available:.0f}", below, available < bound)


def _shown(time_ns: int) -> str:
    return f"{time_ns / SECOND_NS:.0f}s"
