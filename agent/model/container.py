"""Containers as an engine tells them, their cgroups, and what they cost in one tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from operator import attrgetter
from typing import NamedTuple

from agent.model.process import Candidate, Process


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


DOCKER = "docker"
"""The engine of `docker_host`: the one that there always was."""


class ContainerKey(NamedTuple):
    """A container among those of all engines: an id is one engine's word alone."""

    engine: str
    """Its name in the settings; for a container that no engine lists, its runtime by the cgroup's
    name, or ""."""
    id: str
    """Full id, 64 hexadecimal digits."""

    @property
    def short_id(self) -> str:
        return self.id[:12]


class Need(NamedTuple):
    """What a container uses of another one, which ends with it."""

    container: str
    """Its name or its id, as the engine has it."""
    what: str
    """As in "uses its volumes"."""


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
    own_labels: Mapping[str, str] = field(default_factory=dict)
    """Those of `labels` that its image is known not to have; asked for only while a rule needs it.
    """
    health: str = ""
    """Docker's word on its health check (`healthy`, `unhealthy`, `starting`), "" without one."""
    needs: tuple[Need, ...] = ()
    restart_policy: str = ""
    """`always`, `unless-stopped` or `on-failure`; "" or `no` without one."""
    started_ns: int = 0
    """Wall clock of its last start, 0 where it is not known."""
    engine: str = DOCKER
    pod: str = ""
    """The pod that it is in, by the engine's word; "" for none."""
    observed_only: str = ""
    """Why no policy may ever touch it, by its engine: that is not governed, or it holds a pod."""
    key: ContainerKey = field(init=False, repr=False, compare=False)
    """Made once: a tick goes by it some ten times for each container."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ContainerKey(self.engine, self.id))

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

    container: ContainerKey
    path: str
    ids: frozenset[int]
    """Inodes of the directory and every directory below."""
    life_id: int = 0
    """Inode of its own directory, to which the counters belong: a container that is started again
    has a new one, and they begin at 0. 0 where it has none."""
    pid_ns: int = 0
    """PID namespace of the first process, 0 where it could not be read."""
    uts_ns: int = 0
    held_kb: int | None = None
    """What the container's end gives back, from `memory.stat`; None without memory controller."""
    held_basis: HeldBasis = HeldBasis.RSS
    held_estimated_kb: int = 0
    """The part of `held_kb` that is a share of what only the host's sums tell
    (`agent.analysis.held_memory`)."""
    swap_kb: int | None = None
    """What is swapped out, uncompressed; None where the kernel does not count it."""
    zswapped_kb: int | None = None
    """The part of it that is in zswap; None on cgroup v1, which does not report it."""
    zswap_kb: int = 0
    """What it is charged for that: the compressed size, without what the allocator wastes."""
    hugetlb_kb: Mapping[int, int] = field(default_factory=dict)
    """Huge pages in use, by size of page in KB; only sizes of which the host has surplus ones."""
    cache_kb: int | None = None
    cpu_ns: int | None = None
    """`usage_usec` (v2) or `cpuacct.usage` (v1) in nanoseconds."""
    oom_kills: int | None = None
    """`oom_kill` of `memory.events` (v2) or `memory.oom_control` (v1), since its creation."""
    anon_kb: int | None = None
    """Anonymous memory alone, swap cache in it."""
    file_kb: int | None = None
    """Page cache with shared memory and tmpfs in it."""
    limit_kb: int | None = None
    """Its own `memory.max` (v2) or `memory.limit_in_bytes` (v1), None where it has none."""
    read_ns: int = 0
    """Boot clock at which `cpu_ns` was read."""


@dataclass(frozen=True, slots=True)
class ForeignCgroup:
    """A container that Docker does not list (podman, containerd): stored, never governed."""

    container: ContainerKey
    """The runtime and the id in its name."""
    name: str
    path: str
    ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class CgroupView:
    """Which cgroup ids are whose, in the one hierarchy that identifies containers here."""

    hierarchy: Hierarchy
    containers: Mapping[ContainerKey, ContainerCgroup]
    foreign: Mapping[ContainerKey, ForeignCgroup] = field(default_factory=dict)
    host_pid_ns: int = 0
    host_uts_ns: int = 0
    host_ids: frozenset[int] = frozenset()
    """Cgroups that were seen and are the host's own: Docker need not be asked for their ids."""


class Tier(StrEnum):
    LOW = "low"
    """The image as created contains `alpine`."""
    HIGH = "high"
    NONE = "none"
    """Not governed."""


class Unknown(Enum):
    """Why there is no figure. Both are NULL in the history."""

    NOT_YET = "not known yet"
    """It takes a second tick, or probes that are still being started."""
    CANNOT = "cannot be known"
    """Nothing on this host tells it."""


OTHERS = "(others)"
"""Stands for the commands of a container that have no row of their own."""


class ShortLivedCommand(NamedTuple):
    """Processes of one container that lived less than a tick, by what started them and their name.

    Names are the workload's word: the kernel keeps 15 bytes, and any process may set its own.
    """

    parent: str
    name: str
    processes: int
    cpu_ns: int
    peak_rss_kb: int | None
    """The largest resident memory any of them had; None for OTHERS."""


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
    cpu_short_lived_percent: float | Unknown = Unknown.CANNOT
    """Part of `cpu_percent` by processes that lived less than a tick; it takes BPF."""
    cpu_unexplained_percent: float | Unknown = Unknown.CANNOT
    starts: int | Unknown = Unknown.CANNOT
    """Processes born in it since the last tick; its first, and `docker exec`'s, only enter."""
    exits: int | Unknown = Unknown.CANNOT
    """Since the last tick, of those that entered too."""
    oom_kills: int | Unknown = Unknown.CANNOT
    """Since the last tick."""
    swap_kb: int | None = None
    """Swapped out, uncompressed; None where the kernel does not count it."""
    held_estimated_kb: int = 0
    """The part of `held_kb` that is an estimate."""
    short_lived: tuple[ShortLivedCommand, ...] = ()
    """Whose `cpu_short_lived_percent` was; sums up to it."""
    rule: str = ""
    """The rule that claims it, "" where none does."""


@dataclass(frozen=True, slots=True)
class Governance:
    """Whether the policy may remove a container, and in which tier it competes."""

    tier: Tier
    """NONE for every container that is not governed."""
    governed: bool
    protected: str | None
    """Why it is never touched, None where nothing protects it."""
    rule: str = ""
    """The rule that claims it, "" where none does."""
