"""Containers as an engine tells them, their cgroups, and what they cost in one tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter

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
    engine: str = "docker"

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
