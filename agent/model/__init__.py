"""The values that flow through one tick: sources, attribution, policy, actions, store.

Everything here is immutable and free of I/O, so that the decisions taken on these values can be
tested by the thousand. Memory is in KiB (`_kb`) until the edge of the database, where 1 MB is
1024 KB; times are integer nanoseconds on the clock that the field names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, NamedTuple

import msgspec

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What SQLite's integers and a float's range can take, whatever a file says."""
Pid = Annotated[int, msgspec.Meta(ge=0, le=1 << 22)]
"""`PID_MAX_LIMIT` of include/linux/threads.h."""


class ProcessKey(NamedTuple):
    """A process for as long as the host is up: a pid alone is used again."""

    pid: int
    start_ns: int
    """Start on the boot clock, nanoseconds (`task_struct.start_boottime`)."""


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
class Memory:
    """The host's memory, KB. `used_kb` is total minus free, as the original had it."""

    total_kb: int
    free_kb: int
    used_kb: int
    available_kb: int


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
    keys: tuple[ProcessKey, ...] = field(init=False, repr=False, compare=False)
    """The keys of `processes`, in their order; made once, several readers a tick want them."""

    def __post_init__(self) -> None:
        keys = process_keys(map(_pid_and_start, self.processes))
        object.__setattr__(self, "keys", keys)


@dataclass(frozen=True, slots=True)
class HostFigures:
    """Figures of the host beside memory; `None` where the kernel does not tell."""

    cpu_usage_percent: float
    """Percent of all CPUs over the last interval."""
    cpu_count: int
    load1: float
    psi_memory_some_avg10: float | None
    psi_cpu_some_avg10: float | None


class ContainerState(StrEnum):
    """`State.Status` of the Docker API; anything else is UNKNOWN."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"
    UNKNOWN = "unknown"

    @property
    def is_running(self) -> bool:
        """Whether processes of it can exist (`docker ps` lists it)."""
        return self in (ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING)


@dataclass(frozen=True, slots=True)
class Container:
    """One container as Docker tells it. Names, images and labels are the workload's words."""

    id: str
    """Full id, 64 hexadecimal digits."""
    name: str
    image: str
    """As created (`Config.Image`)."""
    created_ns: int
    """Wall clock."""
    state: ContainerState
    first_pid: int = 0
    """Host pid of its first process, 0 where it has none."""
    labels: Mapping[str, str] = field(default_factory=dict)
    own_installation: str = ""
    """`so1.installation` where the container itself carries it, "" where its image does."""

    @property
    def short_id(self) -> str:
        return self.id[:12]


class Hierarchy(StrEnum):
    """The hierarchy whose cgroup ids identify containers on this host; never compared across."""

    DEFAULT = "default"
    MEMORY_V1 = "memory"

    def of(self, process: Process | Candidate) -> int:
        """The process's cgroup id in this hierarchy."""
        return self.getter(process)

    @property
    def getter(self) -> Callable[[Process | Candidate], int]:
        """`of`, for a loop over many."""
        return _CGROUP_IDS[self]


_CGROUP_IDS: Mapping[Hierarchy, Callable[[Process | Candidate], int]] = {
    Hierarchy.DEFAULT: attrgetter("cgroup_id"),
    Hierarchy.MEMORY_V1: attrgetter("cgroup1_id"),
}


class HeldBasis(StrEnum):
    """What `held_kb` was taken from."""

    CGROUP2 = "cgroup2"
    CGROUP1 = "cgroup1"
    """Holds reclaimable slab too."""
    RSS = "rss"
    """No memory controller: anonymous and shared pages of its distinct address spaces."""


@dataclass(frozen=True, slots=True)
class ContainerCgroup:
    """A container's cgroup directory with all below it, read once in a tick."""

    container_id: str
    path: str
    ids: frozenset[int]
    """Inodes of the directory and every directory below."""
    pid_ns: int = 0
    """PID namespace of the first process, 0 where it could not be read."""
    uts_ns: int = 0
    held_kb: int | None = None
    """What the container's end gives back, from `memory.stat`; None without memory controller."""
    held_basis: HeldBasis = HeldBasis.RSS
    cache_kb: int | None = None
    cpu_ns: int | None = None
    """`usage_usec` (v2) or `cpuacct.usage` (v1) in nanoseconds."""
    oom_kills: int | None = None
    """`oom_kill` of `memory.events` (v2) or `memory.oom_control` (v1), since its creation."""
    read_ns: int = 0
    """Boot clock at which `cpu_ns` was read."""


@dataclass(frozen=True, slots=True)
class ForeignCgroup:
    """A container that Docker does not list (podman, containerd): stored, never governed."""

    id: str
    """The 64-digit id in its name."""
    name: str
    path: str
    ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class CgroupView:
    """Which cgroup ids are whose, in the one hierarchy that identifies containers here."""

    hierarchy: Hierarchy
    containers: Mapping[str, ContainerCgroup]
    """By full container id."""
    foreign: Mapping[str, ForeignCgroup] = field(default_factory=dict)
    host_pid_ns: int = 0
    host_uts_ns: int = 0
    host_ids: frozenset[int] = frozenset()
    """Cgroups that were seen and are the host's own: Docker need not be asked for their ids."""


class Verified(StrEnum):
    """Whether BPF, the second witness, named the same container."""

    AGREE = "agree"
    CONFLICT = "conflict"
    UNVERIFIED = "unverified"


class Basis(StrEnum):
    """On what the answer rests."""

    CGROUP = "cgroup"
    ADDED = "added"
    """In the container's cgroup though its namespaces are the host's."""
    STRAYED = "strayed"
    """In the container's private PID namespace but in no container's cgroup."""
    MOVED = "moved"
    """Cgroup of one container, namespaces of another: the kernel charges the cgroup's."""


class AttributedProcess(msgspec.Struct, frozen=True, gc=False):
    """One process that is a container's."""

    process: Process | Candidate
    container_id: str
    """Full id; that of the cgroup's own name for a container Docker does not list."""
    container_name: str
    basis: Basis
    verified: Verified
    bpf_container_id: str | None = None
    """What BPF named where it disagreed ("" for: no container)."""


@dataclass(frozen=True, slots=True)
class AttributionCounts:
    agree: int = 0
    conflict: int = 0
    unverified: int = 0
    added: int = 0
    strayed: int = 0
    moved: int = 0
    dropped: int = 0
    """Candidates that are no container's: units with private namespaces."""
    events_lost: int = 0


@dataclass(frozen=True, slots=True)
class Attribution:
    """The answer for one snapshot."""

    rows: tuple[AttributedProcess, ...]
    """Conflicting rows are in it: they are stored, but kept out of totals."""
    counts: AttributionCounts
    doubtful: frozenset[str] = frozenset()
    """Containers that a conflict names on either side: not to be removed in this pass."""
    unknown_cgroups: frozenset[int] = frozenset()
    """Cgroup ids of candidates that no container claims: a reason to ask Docker once more."""


class Tier(StrEnum):
    LOW = "low"
    """The image as created contains `alpine`."""
    HIGH = "high"
    NONE = "none"
    """Not governed."""


@dataclass(frozen=True, slots=True)
class ContainerTotals:
    """What one container costs in one tick. CPU in percent of one CPU over the last interval."""

    container: Container
    tier: Tier
    governed: bool
    processes: int
    held_kb: int
    held_basis: HeldBasis
    rss_kb: int
    """Resident pages of its distinct address spaces."""
    cache_kb: int | None
    """Page cache; None where the cgroup does not tell."""
    cpu_percent: float
    cpu_short_lived_percent: float | None = None
    """Part of `cpu_percent` by processes that lived less than a tick; None without BPF."""
    cpu_unexplained_percent: float | None = None
    starts: int | None = None
    """Processes born in it since the last tick; its first, and `docker exec`'s, only enter."""
    exits: int | None = None
    """Since the last tick, of those that entered too."""
    oom_kills: int | None = None
    """Since the last tick."""
