"""One tick as values: what the sources said, what follows from it, and what the next one needs.

A `Sample` is gathered by `daemon.collector`; `analysis.derive`, which is pure, makes a `Tick` from
it. Each part of a sample has the moment at which it was read, or the reason why it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from agent.model.accounts import ContainerShare, CpuAccounts, Reading
from agent.model.activity import Activity
from agent.model.attribution import Attribution
from agent.model.bpf import BpfView
from agent.model.container import CgroupView, Container, ContainerKey, ContainerTotals
from agent.model.host import HostCounters, HostFigures
from agent.model.process import Snapshot
from agent.model.record import ContainerProcessUsage, ProcessUsage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """What one source said at one moment, or why it said nothing."""

    value: T | None
    read_ns: int
    """Boot clock when it was asked for."""
    missing: str = ""
    """Why there is no value, "" where there is one."""
    pending: bool = False
    """Whether a later sample may have it without anybody's help."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What all sources said, read in one order so that what is compared lies close together."""

    containers: Part[tuple[Container, ...]]
    """The lists of all engines that answer, in one; missing while none does."""
    snapshot: Snapshot
    """Processes and candidates, with the moment of each."""
    bpf: Part[BpfView]
    """Missing without probes, and while they are being started."""
    cgroups: Part[CgroupView]
    """Missing without any engine's list: nothing else says which cgroups are a container's."""
    host: Part[HostCounters]
    """Missing in a look between two ticks, which stores no row of the host."""
    engine_ooms: Mapping[ContainerKey, int] = field(default_factory=dict)
    """By container: how often its engine said that it ran out of memory, since its events are
    followed."""
    cgroup_owners: Mapping[int, ContainerKey] = field(default_factory=dict)
    """The container of each cgroup that was there when its engine told of a start."""
    activity: Mapping[ContainerKey, Activity] = field(default_factory=dict)
    """By running container, in a tick's sample; empty unless a rule asks who is idle."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Why each engine that does not answer is missing, by its name."""
    interruptions: Mapping[str, int] = field(default_factory=dict)
    """By engine, how often it had been away when the reading began; none says never."""
    interruptions_after: Mapping[str, int] = field(default_factory=dict)
    """How often each had been away when the reading ended."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What one tick hands to the next: the one memory that attribution and usage have."""

    reading: Reading = field(default_factory=Reading)
    accounts: CpuAccounts = field(default_factory=CpuAccounts)
    host: HostCounters | None = None
    unknown_cgroups: frozenset[int] = frozenset()
    """Cgroups that no container claimed: each is a reason to ask the engine once, not each time."""
    engines_seen: Mapping[str, int] = field(default_factory=dict)
    """By engine, its interruptions that a whole tick with its answer has followed."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What is known at one moment, before anything is decided."""

    sample: Sample
    attribution: Attribution
    totals: tuple[ContainerTotals, ...]
    """One for each container of the engines' lists; none of an engine that is away."""
    cpu_shares: Mapping[ContainerKey, ContainerShare]
    """By container: whose its CPU was, where BPF saw its processes."""
    processes: tuple[ProcessUsage, ...]
    container_processes: tuple[ContainerProcessUsage, ...]
    host: HostFigures | None
    """None in a look between two ticks."""
    may_act: frozenset[str]
    """The engines that answered, and had answered one whole tick since they were last away."""
    new_unknown_cgroups: frozenset[int]
    """Those that the engine was not asked about yet."""
    carried: Carried
    """For the next tick, where this one is stored. A look between two ticks leaves none: the next
    tick's interval begins at the last stored one."""

    @property
    def containers(self) -> tuple[Container, ...]:
        """The lists of the engines that answer."""
        return self.sample.containers.value or ()

    @property
    def engine_answers(self) -> bool:
        """Whether any does."""
        return self.sample.containers.value is not None
