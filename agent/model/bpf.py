"""What BPF recorded at one moment: whose each process is, and what happened in each cgroup."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.model.process import ProcessKey


class Losses(NamedTuple):
    """What BPF's records lack, and what only looks like it; since a start, or in an interval."""

    lost: int = 0
    """Records and events that are gone, skipped runs included."""
    corrected: int = 0
    """A process's own pointer named another cgroup than its history."""
    late: int = 0
    """Ended processes that were settled, or cleared, without the event that should have done it."""
    missed: int = 0
    """Runs of programs that the kernel skipped."""

    def since(self, earlier: Losses) -> Losses:
        return Losses(*(now - then for now, then in zip(self, earlier, strict=True)))


NO_LOSSES = Losses()


class CgroupEvents(NamedTuple):
    """What happened in one cgroup (not below it) since its record was made, or in an interval."""

    forks: int = 0
    """Processes born in it; threads are none."""
    execs: int = 0
    exits: int = 0
    """Processes whose last thread ended in it."""
    oom_kills: int = 0
    moved_in: int = 0
    moved_out: int = 0
    cpu_short_ns: int = 0
    """CPU of processes that began and ended between two snapshots, so were in none."""
    cpu_ended_ns: int = 0
    """CPU of all other residencies that are over. A stay is a process's time in one cgroup."""
    short_exits: int = 0
    """Of `exits` the ones that began and ended between two snapshots."""

    @property
    def starts(self) -> int:
        return self.forks

    @property
    def cpu_exited_ns(self) -> int:
        return self.cpu_short_ns + self.cpu_ended_ns

    def since(self, earlier: CgroupEvents) -> CgroupEvents:
        return CgroupEvents(*(now - then for now, then in zip(self, earlier, strict=True)))

    def plus(self, other: CgroupEvents) -> CgroupEvents:
        return CgroupEvents(*(mine + its for mine, its in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Seam:
    """How the iterator's snapshot and the events met when the probes started.

    An event that came before the iterator met the process makes it `both`; the two others are what
    each alone would have had.
    """

    both: int = 0
    snapshot_only: int = 0
    event_only: int = 0


class ProcessExit(NamedTuple):
    """One process that ended."""

    key: ProcessKey
    parent: ProcessKey
    """Whose child it was when it ended."""
    comm: str
    parent_comm: str
    cgroup_id: int
    ended_ns: int
    """Boot clock."""
    exit_code: int
    """As wait(2) has it: status << 8 | signal."""
    cpu_ns: int
    """Of all its life."""
    charged_ns: int
    """What its last cgroup's account got of it: without what it spent before it moved there."""
    max_rss_kb: int
    oom: bool
    short_lived: bool
    """Whether it began and ended between two snapshots."""


class CommandKey(NamedTuple):
    """Where processes of one name ended, and what started them."""

    cgroup_id: int
    parent: str
    name: str


class CommandFigures(NamedTuple):
    """What is known of them since the probes started."""

    processes: int
    cpu_ns: int
    peaks: tuple[tuple[int, int], ...]
    """(boot clock, KB): each ended with more memory than any that ended after it."""

    def since(self, earlier: CommandFigures | None) -> CommandFigures:
        """Figures that fell belong to a record that was made fresh meanwhile."""
        if earlier is None or self.processes < earlier.processes or self.cpu_ns < earlier.cpu_ns:
            return self
        return self._replace(
            processes=self.processes - earlier.processes, cpu_ns=self.cpu_ns - earlier.cpu_ns
        )


class CgroupName(NamedTuple):
    """What a cgroup was called when it was made, and by whom."""

    name: str
    """Of its directory, without what is above it."""
    maker_id: int
    """The cgroup that its maker was in."""
    uid: int
    """Its maker's, as the host has it."""


@dataclass(frozen=True, slots=True)
class BpfView:
    """What the maps hold at one moment. Cgroup ids are of the hierarchy that was asked for."""

    read_ns: int
    """Boot clock."""
    cgroup_ids: Mapping[ProcessKey, int]
    """Every process from its birth until the kernel frees it, zombies too."""
    exiting: Mapping[ProcessKey, int]
    """Of these the ones whose last thread has ended, with all of their CPU; not yet freed."""
    moved_cpu_ns: Mapping[ProcessKey, int]
    """CPU spent before the last move between cgroups; only those that moved."""
    totals: Mapping[int, CgroupEvents]
    """By cgroup id, cumulative."""
    parents: Mapping[int, int]
    """Parent's id of each cgroup in `totals`, 0 where it is unknown or the root."""
    born: frozenset[int]
    """Cgroups in `totals` whose making was seen: nothing in them was missed."""
    gone: frozenset[int]
    """Cgroups in `totals` whose directory was removed; they leave at a later reading."""
    lost: int
    """Records and events that are gone, since the probes started: what could not be kept, and runs
    of programs that the kernel skipped (`missed`)."""
    seam: Seam
    settled: Collection[ProcessKey] = ()
    """Of `cgroup_ids` the ones whose CPU is in `totals` already: they have ended."""
    pointer_ids: Mapping[ProcessKey, int] = field(default_factory=dict)
    """What the task's own pointer said, where that is not what `cgroup_ids` has by its history."""
    corrected: int = 0
    """How often a pointer was found to differ from the history, since the probes started."""
    late: int = 0
    """Ended processes that were settled, or cleared, without the event that should have done it."""
    missed: int = 0
    """Runs of programs that the kernel skipped; they are in `lost` too."""
    exits: Sequence[ProcessExit] = ()
    """The latest processes that ended since the last reading, at most some thousands."""
    short_lived: Mapping[CommandKey, CommandFigures] = field(default_factory=dict)
    """Those of them that began and ended between two snapshots, by name; cumulative as `totals`."""

    names: Mapping[int, CgroupName] = field(default_factory=dict)
    """By cgroup id, in the order of their making: those that may be a container's. A cgroup that is
    gone has its name for as long as it is in `totals`."""
    long_names: int = 0
    """Cgroups that were made with a longer name than any engine gives, since the probes started."""

    @property
    def losses(self) -> Losses:
        return Losses(self.lost, self.corrected, self.late, self.missed)
