"""Whether a container rested between two looks: no CPU, no process, no I/O, nothing sent. Pure.

A health check is no work of the container's: where it has one, processes of `docker exec` that are
younger than Docker's usual time-out for a check are not counted, nor what lived less than a tick.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.model.activity import Activity
from agent.model.container import ContainerKey, ContainerState, ContainerTotals
from agent.model.process import Process, ProcessKey
from agent.model.tick import Tick
from agent.policy.rules import RuleOrder, RuleSet

MAX_CPU_PERCENT = 0.1
"""Of one CPU."""
CHECK_TIMEOUT_NS = 30 * 10**9
NOT_YET = "it was not measured long enough"


@dataclass(frozen=True, slots=True)
class Idleness:
    """How one container stands at a look."""

    holds: bool | None
    """None where it is unknown."""
    value: str = ""
    missing: str = ""
    is_proven: bool = False
    """Whether the counters prove the whole time since the look before."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one look leaves for the next."""

    activity: Activity
    processes: frozenset[ProcessKey] | None = None
    """None in what comes from the history."""


@dataclass(frozen=True, slots=True)
class Looked:
    """All containers at one look."""

    traces: Mapping[ContainerKey, Footprint] = field(default_factory=dict)
    found: Mapping[ContainerKey, Idleness] = field(default_factory=dict)

    @property
    def proven(self) -> frozenset[ContainerKey]:
        return frozenset(key for key, one in self.found.items() if one.is_proven)


def is_asked_for(rules: RuleSet) -> bool:
    """Whether a rule rests on how long containers have been idle."""
    return any(
        one.order is RuleOrder.IDLE or (one.when is not None and one.when.idle is not None)
        for one in rules.rules
    )


def after(before: Mapping[ContainerKey, Footprint], tick: Tick) -> Looked:
    """This look held against the one before."""
    now_ns = tick.sample.snapshot.snapshot_ns
    members: dict[ContainerKey, list[tuple[ProcessKey, int]]] = defaultdict(list)
    for row in tick.attribution.rows:
        parent = row.process.ppid if isinstance(row.process, Process) else 0
        members[row.container].append((row.process.key, parent))
    traces: dict[ContainerKey, Footprint] = {}
    found: dict[ContainerKey, Idleness] = {}
    for one in tick.totals:
        key = one.container.key
        activity = tick.sample.activity.get(key)
        if activity is None:
            continue
        processes = _counted(one, members[key], now_ns)
        traces[key] = Footprint(activity, processes)
        found[key] = idleness(one, before.get(key), traces[key])
    return Looked(traces, found)


def idleness(one: ContainerTotals, before: Footprint | None, now: Footprint) -> Idleness:
    """Whether nothing happened in it between the two."""
    if one.container.state is ContainerState.PAUSED:
        return Idleness(False, "paused")
    if missing := now.activity.missing:
        return Idleness(None, missing=missing)
    if before is None or before.activity.missing:
        return Idleness(None, missing=NOT_YET)
    if happened := _happened(one, before, now):
        return Idleness(False, happened)
    return Idleness(True, "idle", is_proven=True)


def _happened(one: ContainerTotals, before: Footprint, now: Footprint) -> str:
    """The first thing that was no rest, "" where there was none."""
    old, new = before.activity, now.activity
    if old.life_id != new.life_id:
        return "started again"
    cpu = 100 * (new.cpu_ns - old.cpu_ns) / max(1, new.read_ns - old.read_ns)
    if one.container.health and isinstance(one.cpu_short_lived_percent, float):
        cpu -= one.cpu_short_lived_percent
    if cpu > MAX_CPU_PERCENT:
        return f"{cpu:.1f} % CPU"
    if new.io_operations != old.io_operations:
        return f"{new.io_operations - old.io_operations} reads and writes"
    if new.sent_bytes != old.sent_bytes:
        return f"{new.sent_bytes - old.sent_bytes} bytes sent"
    if before.processes is not None and before.processes != now.processes:
        return "a process began or ended"
    if not one.container.health and any(
        isinstance(count, int) and count > 0 for count in (one.starts, one.exits)
    ):
        return "a short-lived process"
    return ""


def _counted(
    one: ContainerTotals, members: Sequence[tuple[ProcessKey, int]], now_ns: int
) -> frozenset[ProcessKey]:
    """Its processes, without those that may be of a health check."""
    if not one.container.health:
        return frozenset(key for key, _ in members)
    from_first = _descendants(one.container.first_pid, members)
    return frozenset(
        key
        for key, _ in members
        if key.pid in from_first or now_ns - key.start_ns >= CHECK_TIMEOUT_NS
    )


def _descendants(first_pid: int, members: Iterable[tuple[ProcessKey, int]]) -> set[int]:
    """The first process and all that it has begun."""
    children: dict[int, list[int]] = defaultdict(list)
    for key, parent in members:
        children[parent].append(key.pid)
    found: set[int] = set()
    waiting = [first_pid]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children[pid]
    return found
