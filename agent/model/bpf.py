"""What BPF recorded at one moment: whose each process is, and what happened in each cgroup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agent.model.process import ProcessKey


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
    """CPU of all other stays that are over. A stay is a process's time in one cgroup."""

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


@dataclass(frozen=True, slots=True)
class BpfView:
    """What the maps hold at one moment. Cgroup ids are of the hierarchy that was asked for."""

    read_ns: int
    """Boot clock."""
    cgroup_ids: Mapping[ProcessKey, int]
    """Every process from its birth until the kernel frees it, zombies too."""
    exiting: Mapping[ProcessKey, int]
    """Of these the ones whose last thread has ended, with their CPU by then, as far as it was
    charged; it is in `totals` once the kernel has freed them (zombies: when they are reaped)."""
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
    """Records and events that could not be kept, since the probes started."""
    seam: Seam
