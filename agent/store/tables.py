"""The history's tables, each described once: what its columns are called, hold, and are stored of.

A new column is one line here and a numbered script in `migrations/`, which own the schema itself; a
test holds the two together. The attributes are what `agent.store.queries` gives to readers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agent.model import removal
from agent.store.description import (
    Columns,
    Row,
    Stored,
    columns,
    fields,
    model_of,
    table_name,
    values_of,
)
from agent.store.policy_tables import HostSample, PassRow, SampleOf, StateRow
from agent.store.values import clean, known, mb, mb_or_none, percent, percent_or_none, process_name

if TYPE_CHECKING:
    from agent.model.attribution import AttributionCounts
    from agent.model.container import ContainerTotals, ShortLivedCommand
    from agent.model.ended import EndedProcess
    from agent.model.oom import Neighbour, OomKill
    from agent.model.record import ContainerProcessUsage, ProcessUsage, TickRecord
    from agent.model.removal import Removal, RemovalPass

__all__ = [
    "ALL_TABLES",
    "HISTORY_TABLES",
    "RAW_TABLES",
    "AttributionCheck",
    "Checks",
    "CommandOf",
    "ContainerProcess",
    "ContainerRow",
    "ContainerStateRow",
    "ContainerStats",
    "ContainerTotal",
    "Deletion",
    "DeletionRow",
    "Ended",
    "EndedRow",
    "HostProcess",
    "HostSampleRow",
    "Metrics",
    "OomKillRow",
    "OomKilled",
    "PassContainerRow",
    "PassedRemoval",
    "ProcessStats",
    "Row",
    "SampleOf",
    "ShortLived",
    "ShortLivedRow",
    "TickRow",
    "columns",
    "fields",
    "table_name",
    "values_of",
]


class PassedRemoval(NamedTuple):
    """One removal, and the pass that it was part of."""

    removal: Removal
    of: RemovalPass


class CommandOf(NamedTuple):
    """One command, and the container that it ran in."""

    command: ShortLivedCommand
    of: ContainerTotals


_host: Columns[TickRecord] = Columns()
_inside: Columns[ContainerProcessUsage] = Columns()
_process: Columns[ProcessUsage] = Columns()
_total: Columns[ContainerTotals] = Columns()
_command: Columns[CommandOf] = Columns()
_removal: Columns[PassedRemoval] = Columns()
_checks: Columns[AttributionCounts] = Columns()
_oom: Columns[OomKill] = Columns()
_ended: Columns[EndedProcess] = Columns()


@dataclass(frozen=True, slots=True)
class TickRow(Stored):
    """One row a tick: the host. Memory in KB."""

    total_kb: int = _host(lambda one: one.memory.total_kb, "total_ram")
    free_kb: int = _host(lambda one: one.memory.free_kb, "free_ram")
    used_kb: int = _host(lambda one: one.memory.used_kb, "used_ram")
    container_count: int | None = _host(lambda one: one.container_count)
    """None while Docker did not answer."""
    process_count: int = _host(lambda one: len(one.processes))
    deleted_count: int = _host(lambda one: one.deleted_count)
    available_kb: int = _host(lambda one: one.memory.available_kb, "available_ram")
    cpu_percent: float = _host(lambda one: round(one.host.cpu_usage_percent, 3), "cpu_usage")
    """Of all CPUs."""
    cpu_count: int = _host(lambda one: one.host.cpu_count)
    load1: float = _host(lambda one: one.host.load1)
    psi_memory: float | None = _host(lambda one: one.host.psi_memory_some_avg10)
    psi_cpu: float | None = _host(lambda one: one.host.psi_cpu_some_avg10)
    source: str = _host(lambda one: str(one.source))
    tick_ms: int = _host(lambda one: one.tick_ms)


@dataclass(frozen=True, slots=True)
class ContainerProcess(Stored):
    """One row for each process of a container and tick."""

    container_id: str = _inside(lambda one: one.container.short_id)
    """Its engine's short id."""
    container_name: str = _inside(lambda one: clean(one.container_name))
    pid: int = _inside(lambda one: one.pid)
    name: str = _inside(lambda one: process_name(one.name), "process_name")
    ram_mb: float = _inside(lambda one: one.rss_kb / 1024, "ram_usage")
    """Resident."""
    cpu_percent: float = _inside(lambda one: percent(one.cpu_percent), "cpu_usage")
    """Of one CPU."""
    verified: str = _inside(lambda one: str(one.verified))
    basis: str = _inside(lambda one: str(one.basis))
    engine: str = _inside(lambda one: one.container.engine)
    """Whose id it is; for a container that no engine lists, its runtime by the cgroup's name."""


@dataclass(frozen=True, slots=True)
class HostProcess(Stored):
    """One row for each process of the host and tick."""

    # Thousands a tick, so nothing is called that an expression can say.
    pid: int = _process(lambda one: one.pid)
    name: str = _process(lambda one: process_name(one.name))
    ram_mb: float = _process(lambda one: one.rss_kb / 1024, "ram_usage")
    cpu_percent: float = _process(
        lambda one: round(one.cpu_percent, 3) if one.cpu_percent else 0.0, "cpu_usage"
    )


@dataclass(frozen=True, slots=True)
class ContainerRow(Stored):
    """One row for each container and tick."""

    container_id: str = _total(lambda one: clean(one.container.short_id))
    container_name: str = _total(lambda one: clean(one.container.name))
    image: str = _total(lambda one: clean(one.container.image))
    tier: str = _total(lambda one: str(one.tier))
    governed: bool = _total(lambda one: one.governed)
    processes: int = _total(lambda one: one.processes)
    held_mb: float = _total(lambda one: mb(one.held_kb))
    held_basis: str = _total(lambda one: str(one.held_basis))
    """What `held_mb` was taken from: `cgroup2`, `cgroup1` (with reclaimable slab) or `rss`."""
    rss_mb: float = _total(lambda one: mb(one.rss_kb))
    cache_mb: float | None = _total(lambda one: mb_or_none(one.cache_kb))
    cpu_percent: float = _total(lambda one: percent(one.cpu_percent), "cpu_usage")
    cpu_short_lived_percent: float | None = _total(
        lambda one: percent_or_none(known(one.cpu_short_lived_percent)), "cpu_short_lived"
    )
    cpu_unexplained_percent: float | None = _total(
        lambda one: percent_or_none(known(one.cpu_unexplained_percent)), "cpu_unexplained"
    )
    starts: int | None = _total(lambda one: known(one.starts))
    exits: int | None = _total(lambda one: known(one.exits))
    oom_kills: int | None = _total(lambda one: known(one.oom_kills))
    swap_mb: float | None = _total(lambda one: mb_or_none(one.swap_kb))
    """Swapped out, uncompressed."""
    held_estimated_mb: float | None = _total(lambda one: mb(one.held_estimated_kb))
    """The part of `held_mb` that is an estimate."""
    rule: str | None = _total(lambda one: one.rule or None)
    """The rule that claims it, None where none does."""
    engine: str = _total(lambda one: one.container.engine)
    """Whose id it is."""
    pod: str = _total(lambda one: clean(one.container.pod))
    """The pod that it is in, "" for none."""


@dataclass(frozen=True, slots=True)
class Deletion(Stored):
    """One row for each decision, whatever came of it; `action` says what was to be done."""

    decision: str = _removal(lambda one: clean(one.removal.decision.id))
    container_id: str = _removal(lambda one: clean(one.removal.decision.container_id[:12]))
    container_name: str = _removal(lambda one: clean(one.removal.decision.container_name))
    image: str = _removal(lambda one: clean(one.removal.decision.image))
    tier: str = _removal(lambda one: str(one.removal.decision.tier))
    rank: int = _removal(lambda one: one.removal.decision.rank)
    reason: str = _removal(lambda one: str(one.removal.decision.reason))
    held_mb: float = _removal(lambda one: one.removal.decision.held_mb)
    cpu_percent: float = _removal(
        lambda one: percent(one.removal.decision.cpu_percent), "cpu_usage"
    )
    outcome: str = _removal(lambda one: str(one.removal.outcome))
    duration_ms: int = _removal(lambda one: one.removal.duration_ms)
    error: str = _removal(lambda one: clean(one.removal.error))
    available_before_mb: float = _removal(lambda one: mb(one.of.available_before_kb))
    available_after_mb: float = _removal(lambda one: mb(one.of.available_after_kb))
    action: str = _removal(lambda one: str(one.removal.decision.action))
    """What was to be done: `remove`, `stop`, `restart`, `pause` or `notify`."""
    rule: str = _removal(lambda one: clean(one.removal.decision.rule))
    """The rule that decided it; "" in rows of 1.0 and of a stop."""
    engine: str = _removal(lambda one: clean(one.removal.decision.engine))

    @property
    def is_away(self) -> bool:
        """Whether no such container is left."""
        return removal.is_away(self.outcome, self.error)

    @property
    def ending(self) -> str:
        """The outcome for a person."""
        return removal.in_words(self.outcome, self.error)


@dataclass(frozen=True, slots=True)
class ShortLived(Stored):
    """One row for each command of a container that no snapshot saw, and one for the others."""

    container_id: str = _command(lambda one: clean(one.of.container.short_id))
    container_name: str = _command(lambda one: clean(one.of.container.name))
    parent: str = _command(lambda one: clean(one.command.parent), "parent_name")
    name: str = _command(lambda one: clean(one.command.name), "process_name")
    processes: int = _command(lambda one: one.command.processes, "count")
    cpu_ms: float = _command(lambda one: round(one.command.cpu_ns / 10**6, 3))
    peak_rss_mb: float | None = _command(lambda one: mb_or_none(one.command.peak_rss_kb))
    engine: str = _command(lambda one: one.of.container.engine)
    """Whose id it is."""


@dataclass(frozen=True, slots=True)
class Checks(Stored):
    """One row a tick: how the witnesses agreed."""

    agree: int = _checks(lambda one: one.agree)
    conflict: int = _checks(lambda one: one.conflict)
    unverified: int = _checks(lambda one: one.unverified)
    added: int = _checks(lambda one: one.added)
    strayed: int = _checks(lambda one: one.strayed)
    moved: int = _checks(lambda one: one.moved)
    dropped: int = _checks(lambda one: one.dropped)
    events_lost: int = _checks(lambda one: one.events_lost)
    """Records and events that are gone."""
    events_corrected: int = _checks(lambda one: one.events_corrected)
    events_late: int = _checks(lambda one: one.events_late)
    events_missed: int = _checks(lambda one: one.events_missed)


@dataclass(frozen=True, slots=True)
class OomKilled(Stored):
    """One row for each process that the kernel killed for lack of memory, at its own moment."""

    pid: int = _oom(lambda one: one.pid)
    name: str = _oom(lambda one: process_name(one.name), "process_name")
    container_id: str = _oom(lambda one: one.container_id[:12])
    container_name: str = _oom(lambda one: clean(one.container_name))
    image: str = _oom(lambda one: clean(one.image))
    cgroup: str = _oom(lambda one: clean(one.cgroup))
    cause: str = _oom(lambda one: str(one.cause))
    limit_cgroup: str = _oom(lambda one: clean(one.limit_cgroup))
    limit_container: str = _oom(lambda one: clean(one.limit_container_name))
    limit_mb: float | None = _oom(lambda one: mb_or_none(one.limit_kb))
    used_mb: float | None = _oom(lambda one: mb_or_none(one.used_kb))
    anon_mb: float | None = _oom(lambda one: mb_or_none(one.memory and one.memory.anon_kb))
    file_mb: float | None = _oom(lambda one: mb_or_none(one.memory and one.memory.file_kb))
    shmem_mb: float | None = _oom(lambda one: mb_or_none(one.memory and one.memory.shmem_kb))
    swap_mb: float | None = _oom(lambda one: mb_or_none(one.memory and one.memory.swap_kb))
    oom_score_adj: int | None = _oom(lambda one: one.oom_score_adj)
    trigger_pid: int | None = _oom(lambda one: one.trigger_pid)
    trigger_name: str = _oom(lambda one: process_name(one.trigger_name))
    trigger_container: str = _oom(
        lambda one: clean(one.trigger_container_name or one.trigger_container_id[:12])
    )
    grower_pid: int | None = _oom(lambda one: one.grower.pid if one.grower else None)
    grower_name: str = _oom(lambda one: process_name(one.grower.name) if one.grower else "")
    grower_container: str = _oom(lambda one: clean(one.grower.container_name) if one.grower else "")
    grown_mb: float | None = _oom(lambda one: mb(one.grower.grown_kb) if one.grower else None)
    grown_s: float | None = _oom(lambda one: one.grown_s)
    beside: str = _oom(lambda one: _neighbours_json(one.beside))
    """A JSON list of `pid`, `name`, `container`, `rss_mb`, `grown_mb`, `state`."""
    witnesses: str = _oom(lambda one: ",".join(one.witnesses))
    engine: str = _oom(lambda one: clean(one.engine))
    """Whose id it is; `docker` for a process of the host too."""


def _neighbours_json(neighbours: Sequence[Neighbour]) -> str:
    return json.dumps(
        [
            {
                "pid": one.pid,
                "name": process_name(one.name),
                "container": clean(one.container_name),
                "rss_mb": round(mb(one.rss_kb), 3),
                "grown_mb": round(mb(one.grown_kb), 3),
                "state": one.state,
            }
            for one in neighbours
        ],
        ensure_ascii=False,
    )


@dataclass(frozen=True, slots=True)
class Ended(Stored):
    """One row for each of a tick's ended processes that are worth remembering, at its end."""

    started_ms: int = _ended(lambda one: one.started_wall_ns // 10**6, "started")
    pid: int = _ended(lambda one: one.pid)
    name: str = _ended(lambda one: process_name(one.name), "process_name")
    parent_pid: int = _ended(lambda one: one.parent_pid)
    parent_name: str = _ended(lambda one: process_name(one.parent_name))
    container_id: str = _ended(lambda one: one.container_id[:12])
    container_name: str = _ended(lambda one: clean(one.container_name))
    status: int = _ended(lambda one: one.status)
    """As a shell has it: 128 and the signal's number for one that was killed."""
    oom: bool = _ended(lambda one: one.oom)
    cpu_ms: float = _ended(lambda one: round(one.cpu_ns / 10**6, 3))
    peak_rss_mb: float = _ended(lambda one: mb(one.peak_rss_kb))


Metrics = model_of(TickRow, "metrics")
ContainerStats = model_of(ContainerProcess, "container_stats")
ProcessStats = model_of(HostProcess, "process_stats")
ContainerTotal = model_of(ContainerRow, "container_totals")
DeletionRow = model_of(Deletion, "deletions")
ShortLivedRow = model_of(ShortLived, "short_lived")
AttributionCheck = model_of(Checks, "attribution_checks")
OomKillRow = model_of(OomKilled, "oom_kills")
EndedRow = model_of(Ended, "ended_processes")
HostSampleRow = model_of(HostSample, "host_samples")
PassContainerRow = model_of(PassRow, "pass_containers")
ContainerStateRow = model_of(StateRow, "container_states")

RAW_TABLES: tuple[type[Row], ...] = (ProcessStats, ContainerStats, ShortLivedRow, EndedRow)
"""Rows a process: many, and kept for hours."""

HISTORY_TABLES: tuple[type[Row], ...] = (
    ContainerTotal,
    AttributionCheck,
    Metrics,
    DeletionRow,
    OomKillRow,
    HostSampleRow,
    PassContainerRow,
    ContainerStateRow,
)
"""Rows a tick, a container or a removal: few, and kept for weeks."""

ALL_TABLES: tuple[type[Row], ...] = RAW_TABLES + HISTORY_TABLES
