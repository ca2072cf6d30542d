"""Builds what attribution is given, from a description of a host in a few words.

A scene keeps its own books: which cgroup, which namespaces, who is whose parent. What it says of a
process is written down when it is made, and never asked of the agent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.model.container import (
    CgroupView,
    Container,
    ContainerCgroup,
    ContainerKey,
    ContainerState,
    ForeignCgroup,
    Hierarchy,
)
from agent.model.host import Memory
from agent.model.process import Candidate, Process, ProcessKey, Snapshot, Source
from tests.unit.builders import container_key

HOST_PID_NS = 4026531836
HOST_UTS_NS = 4026531838
HOST_CGROUP = 1
ZOMBIE = 32


def full_id(letter: str) -> str:
    return letter * 64


@dataclass(slots=True)
class Proc:
    """One process as the host has it."""

    pid: int
    start_ns: int
    cgroup: int
    pid_ns: int
    uts_ns: int
    ppid: int
    ns_pid: int
    state: int = 1
    vsz_kb: int = 1000

    @property
    def key(self) -> ProcessKey:
        return ProcessKey(self.pid, self.start_ns)

    @property
    def is_candidate(self) -> bool:
        """As the module has it: a zombie has no UTS namespace any more."""
        return self.pid_ns != HOST_PID_NS or (
            self.uts_ns != HOST_UTS_NS and not (self.state & ZOMBIE and self.vsz_kb == 0)
        )


@dataclass(slots=True)
class Scene:
    """A host with containers `a`, `b` …; each has cgroup, PID and UTS namespace by its letter."""

    hierarchy: Hierarchy = Hierarchy.DEFAULT
    procs: list[Proc] = field(default_factory=list)
    containers: dict[str, Container] = field(default_factory=dict)
    cgroups: dict[str, ContainerCgroup] = field(default_factory=dict)
    foreign: dict[ContainerKey, ForeignCgroup] = field(default_factory=dict)
    host_ids: frozenset[int] = frozenset()
    host_pid_ns: int = HOST_PID_NS
    _next: int = 100

    def __post_init__(self) -> None:
        self.proc(pid=1, ppid=0)
        self.proc(pid=2, ppid=0, vsz_kb=0)

    def container(
        self,
        letter: str,
        *,
        pid_ns: int | None = None,
        uts_ns: int | None = None,
        below: tuple[int, ...] = (),
        created_ns: int | None = None,
    ) -> Proc:
        """A running container with its first process, which is returned."""
        number = ord(letter)
        own_pid_ns = number * 10 if pid_ns is None else pid_ns
        own_uts_ns = number * 10 + 1 if uts_ns is None else uts_ns
        first = self.proc(
            cgroup=number,
            pid_ns=own_pid_ns,
            uts_ns=own_uts_ns,
            ns_pid=1 if pid_ns is None else None,
        )
        key = full_id(letter)
        self.containers[letter] = Container(
            id=key,
            name=f"name-{letter}",
            image="image",
            created_ns=number if created_ns is None else created_ns,
            state=ContainerState.RUNNING,
            first_pid=first.pid,
        )
        self.cgroups[letter] = ContainerCgroup(
            container=container_key(letter),
            path=f"/docker/{key}",
            ids=frozenset({number, *below}),
            pid_ns=own_pid_ns,
            uts_ns=own_uts_ns,
        )
        return first

    def proc(
        self,
        *,
        pid: int | None = None,
        start_ns: int | None = None,
        cgroup: int = HOST_CGROUP,
        pid_ns: int = HOST_PID_NS,
        uts_ns: int = HOST_UTS_NS,
        ppid: int = 1,
        ns_pid: int | None = None,
        state: int = 1,
        vsz_kb: int = 1000,
    ) -> Proc:
        self._next += 1
        number = self._next if pid is None else pid
        made = Proc(
            pid=number,
            start_ns=self._next * 1_000_000 if start_ns is None else start_ns,
            cgroup=cgroup,
            pid_ns=pid_ns,
            uts_ns=uts_ns,
            ppid=ppid,
            ns_pid=number if ns_pid is None else ns_pid,
            state=state,
            vsz_kb=vsz_kb,
        )
        self.procs.append(made)
        return made

    def child(self, parent: Proc, **changed: int) -> Proc:
        """A fork of `parent`, with the differences named."""
        values = {
            "cgroup": parent.cgroup,
            "pid_ns": parent.pid_ns,
            "uts_ns": parent.uts_ns,
            "ppid": parent.pid,
        }
        values.update(changed)
        return self.proc(**values)

    def snapshot(
        self,
        *,
        source: Source = Source.MODULES,
        candidates_ns: int | None = None,
        snapshot_ns: int = 10**12,
        unseen: tuple[Proc, ...] = (),
    ) -> Snapshot:
        """What the sources read; `unseen` are missing among the candidates."""
        return Snapshot(
            source=source,
            snapshot_ns=snapshot_ns,
            memory=Memory(1, 1, 0, 1),
            processes=tuple(self.process(one) for one in self.procs),
            candidates=tuple(
                self.candidate(one) for one in self.procs if one.is_candidate and one not in unseen
            ),
            candidates_ns=snapshot_ns if candidates_ns is None else candidates_ns,
        )

    def view(self) -> CgroupView:
        return CgroupView(
            hierarchy=self.hierarchy,
            containers={one.container: one for one in self.cgroups.values()},
            foreign=self.foreign,
            host_pid_ns=self.host_pid_ns,
            host_uts_ns=HOST_UTS_NS,
            host_ids=self.host_ids,
        )

    def process(self, one: Proc) -> Process:
        default, memory = self._ids(one)
        return Process(
            pid=one.pid,
            name="p",
            state=one.state,
            rss_kb=1,
            vsz_kb=one.vsz_kb,
            life_cpu_percent=0,
            ppid=one.ppid,
            threads=1,
            start_ns=one.start_ns,
            cpu_ns=0,
            rss_anon_kb=0,
            rss_shmem_kb=0,
            mm_id=one.pid,
            cgroup_id=default,
            cgroup1_id=memory,
        )

    def candidate(self, one: Proc) -> Candidate:
        default, memory = self._ids(one)
        return Candidate(
            pid=one.pid,
            name="p",
            rss_kb=1,
            vsz_kb=one.vsz_kb,
            life_cpu_percent=0,
            start_ns=one.start_ns,
            cpu_ns=0,
            rss_anon_kb=0,
            rss_shmem_kb=0,
            mm_id=one.pid,
            cgroup_id=default,
            cgroup1_id=memory,
            ns_pid=one.ns_pid,
            pid_ns=one.pid_ns,
            uts_ns=one.uts_ns,
        )

    def _ids(self, one: Proc) -> tuple[int, int]:
        """On v1 the other hierarchy's id is somebody else's there: comparing across must show."""
        if self.hierarchy is Hierarchy.DEFAULT:
            return one.cgroup, 0
        return one.cgroup + 1, one.cgroup
