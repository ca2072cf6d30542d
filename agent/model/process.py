"""Processes as a source tells them, and the snapshot that holds all of one moment.

Memory is in KiB (`_kb`) until the edge of the database, where 1 MB is 1024 KB; times are integer
nanoseconds on the clock that the field names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, NamedTuple

import msgspec

from agent.model.host import Memory

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What SQLite's integers and a float's range can take, whatever a file says."""


Pid = Annotated[int, msgspec.Meta(ge=0, le=1 << 22)]
"""`PID_MAX_LIMIT` of include/linux/threads.h."""


class ProcessKey(NamedTuple):
    """A process for as long as the host is up: a pid alone is used again."""

    pid: int
    start_ns: int
    """Start on the boot clock, nanoseconds (`task_struct.start_boottime`)."""


CLOCK_TICK_NS = 10_000_000
"""The kernel's `USER_HZ` of 100, in which `/proc/PID/stat` has starts."""


def in_clock_ticks(key: ProcessKey) -> ProcessKey:
    """The key as a source that reads `/proc/PID/stat` has it."""
    return _new_tuple(ProcessKey, (key.pid, key.start_ns - key.start_ns % CLOCK_TICK_NS))


def process_keys(pairs: Iterable[tuple[int, int]]) -> tuple[ProcessKey, ...]:
    """The keys of (pid, start_ns) pairs, in the same order."""
    # A list is made faster than a generator is drained.
    return tuple([_new_tuple(ProcessKey, pair) for pair in pairs])


_new_tuple = tuple.__new__


_pid_and_start = attrgetter("pid", "start_ns")


class Process(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One thread group, as an entry of `processes` in `/proc/sysinfo_so1_202300539`.

    The fields are in the order of the text, in which msgspec finds each at the first look.
    """

    pid: Pid
    name: str
    state: Natural
    """`(__state | exit_state) & 0x7f`: 0 running, 1 sleeping, 2 uninterruptible, 32 zombie …"""
    rss_kb: Natural = msgspec.field(name="rss")
    mem_percent: Natural = 0
    vsz_kb: Natural = msgspec.field(name="vsz")
    life_cpu_percent: Natural = msgspec.field(name="cpu")
    """Percent of one CPU over the process's life."""
    start_ns: Natural
    cpu_ns: Natural
    """Scheduler time of the whole group, dead threads included."""
    rss_anon_kb: Natural = msgspec.field(name="rss_anon")
    rss_shmem_kb: Natural = msgspec.field(name="rss_shmem")
    mm_id: Natural
    """Equal for processes that share an address space, 0 for none."""
    cgroup_id: Natural
    """Cgroup of the default hierarchy."""
    cgroup1_id: Natural
    """Cgroup of the memory controller's v1 hierarchy, 0 where there is none."""
    ppid: Natural
    threads: Natural

    @property
    def key(self) -> ProcessKey:
        return _new_tuple(ProcessKey, (self.pid, self.start_ns))


class Candidate(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One process outside init's UTS or PID namespace: an entry of `/proc/continfo_so1_…`."""

    pid: Pid
    name: str
    rss_kb: Natural = msgspec.field(name="rss")
    mem_percent: Natural = 0
    vsz_kb: Natural = msgspec.field(name="vsz")
    life_cpu_percent: Natural = msgspec.field(name="cpu")
    start_ns: Natural
    cpu_ns: Natural
    rss_anon_kb: Natural = msgspec.field(name="rss_anon")
    rss_shmem_kb: Natural = msgspec.field(name="rss_shmem")
    mm_id: Natural
    cgroup_id: Natural
    cgroup1_id: Natural
    ns_pid: Natural
    """The pid inside its own PID namespace."""
    pid_ns: Natural
    """PID namespace number, as in `/proc/PID/ns/pid`."""
    uts_ns: Natural

    @property
    def key(self) -> ProcessKey:
        return _new_tuple(ProcessKey, (self.pid, self.start_ns))


class Source(StrEnum):
    MODULES = "modules"
    PSUTIL = "psutil"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one source says of all processes at one moment."""

    source: Source
    snapshot_ns: int
    """Boot clock."""
    memory: Memory
    processes: tuple[Process, ...]
    candidates: tuple[Candidate, ...]
    candidates_ns: int = 0
    """Boot clock when the candidates were read: they are a file of their own, read second."""
    odd: int = 0
    """Entries that were not as the source describes them: taken without a figure, or left out."""
    keys: tuple[ProcessKey, ...] = field(init=False, repr=False, compare=False)
    """The keys of `processes`, in their order; made once, several readers a tick want them."""

    def __post_init__(self) -> None:
        keys = process_keys(map(_pid_and_start, self.processes))
        object.__setattr__(self, "keys", keys)
