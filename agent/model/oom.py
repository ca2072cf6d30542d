"""OOM kills: what the kernel's witnesses say of each, and what follows from all of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from agent.model.container import DOCKER
from agent.model.process import ProcessKey


class OomCause(StrEnum):
    """Why the kernel had to choose a victim."""

    LIMIT = "limit"
    """A memory cgroup was at its limit."""
    HOST = "host"
    """The host had no memory left."""
    SYSRQ = "sysrq"
    """Somebody asked for it (`sysrq-f`)."""
    UNKNOWN = "unknown"


class OomWitness(StrEnum):
    """Who told of a kill."""

    BPF = "bpf"
    KERNEL_LOG = "kernel-log"
    COUNTER = "memory.events"
    """The container's own counter of kills rose (v1: `memory.oom_control`)."""


class MemoryLevel(NamedTuple):
    """One memory cgroup above a victim at the moment of the kill."""

    cgroup_id: int
    name: str
    """Of its directory."""
    used_kb: int
    limit_kb: int | None
    swap_used_kb: int
    """With `swap_limit_kb`: on v1 of memory and swap together, on v2 of swap."""
    swap_limit_kb: int | None
    ooms: int
    """How often it was out of memory itself, since it is there."""


class VictimMemory(NamedTuple):
    """As the kernel's log has it: counters that may lack a batch of pages of each CPU."""

    anon_kb: int
    file_kb: int
    shmem_kb: int
    swap_kb: int | None
    """The log does not tell."""

    @property
    def rss_kb(self) -> int:
        return self.anon_kb + self.file_kb + self.shmem_kb


@dataclass(frozen=True, slots=True)
class OomMark:
    """One victim as BPF saw it when it was chosen."""

    key: ProcessKey
    """Its start is 0 where the kernel told its number alone and no history has the rest."""
    marked_ns: int
    """Boot clock."""
    comm: str
    cgroup_id: int
    trigger: ProcessKey
    trigger_comm: str
    trigger_cgroup_id: int
    trigger_cgroup: str
    """Its directory's name."""
    cause: OomCause
    levels: tuple[MemoryLevel, ...] = ()
    """From the victim's own up, without the root."""
    memory: VictimMemory | None = None
    oom_score_adj: int | None = None


class LoggedKill(NamedTuple):
    """One kill as the kernel's log has it."""

    pid: int
    comm: str
    memory: VictimMemory
    oom_score_adj: int
    is_limit: bool
    """Whether it was a memory cgroup's limit, and not the host's memory."""
    limit_path: str
    """The cgroup at its limit, "" where the kernel did not log the details: they are rate-limited,
    the kill itself is not."""
    victim_path: str
    """The victim's memory cgroup, "" as above."""
    trigger_pid: int
    """0 as above."""
    trigger_comm: str
    logged_ns: int
    """Boot clock, as far as the kernel's log has it."""


class Neighbour(NamedTuple):
    """One process that lived beside a victim."""

    pid: int
    name: str
    container_name: str
    rss_kb: int
    grown_kb: int
    """Since `OomKill.grown_s` before, or its birth."""
    state: str
    """`lived`, `ended` or `killed`."""


@dataclass(frozen=True, slots=True)
class OomKill:
    """One kill with everything that is known of it. Memory in KB, None where nobody told."""

    wall_ns: int
    pid: int
    name: str
    container_id: str
    """Full id, "" for a process of the host."""
    container_name: str
    image: str
    cgroup: str
    """The victim's memory cgroup."""
    memory: VictimMemory | None
    oom_score_adj: int | None
    trigger_pid: int | None
    trigger_name: str
    trigger_container_id: str
    trigger_container_name: str
    cause: OomCause
    limit_cgroup: str
    """Whose limit it was, "" where it was the host's memory or nobody told."""
    limit_container_name: str
    """Of the container whose limit, or that of a cgroup inside it, this was."""
    limit_kb: int | None
    used_kb: int | None
    grower: Neighbour | None
    """The process that grew most, among those that the limit is for; the victim may be it."""
    grown_s: float | None
    """How far back growth was looked at."""
    beside: tuple[Neighbour, ...]
    """The largest that lived then, the victim among them."""
    witnesses: tuple[OomWitness, ...]
    engine: str = DOCKER
    """Whose id `container_id` is; `docker` for a process of the host too."""
