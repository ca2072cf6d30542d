"""What one tick says to whoever scrapes: plain values in base units, chosen and bounded.

Made from a tick's record and the counters that are stored with it; turned into text by
`agent.export.openmetrics`. Bytes, seconds and ratios (1 is one CPU, or all of it), as Prometheus
names want them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from agent.analysis.counters import ContainerCounters, LastingCounters
from agent.model.attribution import AttributionCounts
from agent.model.container import ContainerTotals
from agent.model.host import HostFigures, Memory
from agent.model.record import ProcessUsage, TickRecord
from agent.util.terminal import fit, printable

OTHERS = "(others)"
"""The command under which all are summed up that have no series of their own."""

_LABEL_LIMIT = 255


@dataclass(frozen=True, slots=True)
class ContainerMetrics:
    """One running container."""

    id: str
    """Its cgroup's path, as cAdvisor has it."""
    engine: str
    """Whose container it is: another engine may have one of the same name."""
    name: str
    image: str
    tier: str
    governed: bool
    processes: int
    held_bytes: int
    held_basis: str
    rss_bytes: int
    cache_bytes: int | None
    anon_bytes: int | None
    file_bytes: int | None
    limit_bytes: int | None
    cpu_ns: int | None
    oom_kills: int | None
    """Since its cgroup was made, at its start."""
    started_s: float | None
    counters: ContainerCounters | None
    """None where BPF has no account of it."""


@dataclass(frozen=True, slots=True)
class CommandMetrics:
    """All processes of the host of one name."""

    command: str
    processes: int
    rss_bytes: int
    cpu_ratio: float


@dataclass(frozen=True, slots=True)
class Budget:
    """One of the budgets of trust: a spent one turns removals into notifications."""

    name: str
    used_ratio: float
    spent: bool


@dataclass(frozen=True, slots=True)
class ExportedFigures:
    """Everything that is shown of one tick."""

    version: str
    tick_s: float
    """Wall clock of the tick, seconds."""
    interval_s: float
    tick_duration_s: float
    source: str
    memory: Memory
    host: HostFigures
    processes: int
    checks: AttributionCounts
    containers_by_state: Mapping[tuple[str, str], int] | None
    """By engine and state; None while none answers."""
    containers: tuple[ContainerMetrics, ...]
    left_out: int
    """Running containers beyond the bound, the smallest."""
    left_out_held_bytes: int
    commands: tuple[CommandMetrics, ...]
    host_counters: Mapping[tuple[str, ...], int]
    exemplars: Mapping[tuple[str, ...], str]
    """By the key of a counter: the decision that raised it last."""
    armed: bool
    """Removals are carried out, not only recorded."""
    stored: bool
    """The database took this tick."""
    budgets: tuple[Budget, ...] = field(default=())


def figures_of(
    record: TickRecord,
    counters: LastingCounters,
    *,
    version: str,
    interval_s: float,
    max_containers: int,
    max_commands: int,
    exemplars: Mapping[tuple[str, ...], str],
    armed: bool,
    stored: bool,
    budgets: tuple[Budget, ...] = (),
) -> ExportedFigures:
    """What is shown of `record`, with the counters as they are in the database."""
    running = [one for one in record.totals if one.container.state.is_running]
    shown = nlargest(
        max_containers, running, key=lambda one: (one.held_kb, one.container.key[::-1])
    )
    chosen = {one.container.key for one in shown}
    by_state = None
    if record.container_count is not None:
        by_state = dict(
            Counter((one.container.engine, str(one.container.state)) for one in record.totals)
        )
    return ExportedFigures(
        version=version,
        tick_s=record.wall_ns / 10**9,
        interval_s=interval_s,
        tick_duration_s=record.tick_ms / 1000,
        source=str(record.source),
        memory=record.memory,
        host=record.host,
        processes=len(record.processes),
        checks=record.checks,
        containers_by_state=by_state,
        containers=_containers(shown, record, counters),
        left_out=len(running) - len(shown),
        left_out_held_bytes=sum(
            one.held_kb * 1024 for one in running if one.container.key not in chosen
        ),
        commands=_commands(record.processes, max_commands),
        host_counters=counters.host,
        exemplars=exemplars,
        armed=armed,
        stored=stored,
        budgets=budgets,
    )


def label(text: str) -> str:
    """`text` as a label's value: valid UTF-8 without controls, of bounded length, both ends kept.

    One lone surrogate would lose the whole scrape.
    """
    return printable(fit(text, _LABEL_LIMIT))


def _containers(
    shown: Sequence[ContainerTotals], record: TickRecord, counters: LastingCounters
) -> tuple[ContainerMetrics, ...]:
    taken: set[str] = set()
    made = []
    for totals in sorted(shown, key=lambda one: one.container.key[::-1]):
        container = totals.container
        cgroup = record.cgroups.get(container.key)
        identity = label(cgroup.path) if cgroup else ""
        if not identity or identity in taken:
            # Two series with the same labels would lose the whole scrape.
            identity = container.id if container.id not in taken else "/".join(container.key)
        taken.add(identity)
        made.append(
            ContainerMetrics(
                id=identity,
                engine=label(container.engine),
                name=label(container.name),
                image=label(container.image),
                tier=str(totals.tier),
                governed=totals.governed,
                processes=totals.processes,
                held_bytes=totals.held_kb * 1024,
                held_basis=str(totals.held_basis),
                rss_bytes=totals.rss_kb * 1024,
                cache_bytes=_bytes(totals.cache_kb),
                anon_bytes=_bytes(cgroup.anon_kb) if cgroup else None,
                file_bytes=_bytes(cgroup.file_kb) if cgroup else None,
                limit_bytes=_bytes(cgroup.limit_kb) if cgroup else None,
                cpu_ns=cgroup.cpu_ns if cgroup else None,
                oom_kills=cgroup.oom_kills if cgroup else None,
                started_s=container.started_ns / 10**9 if container.started_ns else None,
                counters=counters.containers.get(container.key),
            )
        )
    return tuple(made)


def _commands(processes: Sequence[ProcessUsage], most: int) -> tuple[CommandMetrics, ...]:
    """The largest by memory and by CPU, in order of their names, and the sum of all others."""
    sums: dict[str, tuple[int, int, float]] = {}
    for one in processes:
        count, rss_kb, cpu = sums.get(one.name, (0, 0, 0.0))
        sums[one.name] = (count + 1, rss_kb + one.rss_kb, cpu + one.cpu_percent)
    largest = set(nlargest(most, sums, key=lambda name: (sums[name][1], name)))
    largest.update(nlargest(most, sums, key=lambda name: (sums[name][2], name)))
    shown: dict[str, tuple[int, int, float]] = {}
    for name, (count, rss_kb, cpu) in sums.items():
        # Two names may become one when they are made fit to be shown.
        key = label(name) if name in largest else OTHERS
        before = shown.get(key, (0, 0, 0.0))
        shown[key] = (before[0] + count, before[1] + rss_kb, before[2] + cpu)
    return tuple(
        CommandMetrics(name, count, rss_kb * 1024, cpu / 100)
        for name, (count, rss_kb, cpu) in sorted(shown.items())
    )


def _bytes(kb: int | None) -> int | None:
    return None if kb is None else kb * 1024
