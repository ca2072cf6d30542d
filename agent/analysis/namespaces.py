"""Whose namespaces a process is in: the witness that finds what left its container's cgroup.

A PID namespace cannot be left by a living process, so it tells where a process came from even after
it was moved by hand. One made inside a container belongs to that container, at any depth. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.container import CgroupView, Container, ContainerKey
from agent.model.process import Candidate, Snapshot

_NOBODY: frozenset[ContainerKey] = frozenset()


class Namespaces:
    """The namespaces of one snapshot's candidates, against those of containers' first processes."""

    def __init__(
        self, snapshot: Snapshot, view: CgroupView, containers: Sequence[Container]
    ) -> None:
        self._view = view
        self._containers = {one.key: one for one in containers}
        self._pid: dict[int, frozenset[ContainerKey]] = {}
        self._uts: dict[int, frozenset[ContainerKey]] = {}
        # Without the host's numbers a namespace cannot be told from the host's: nobody owns any.
        if view.host_pid_ns and view.host_uts_ns:
            for cgroup in view.containers.values():
                _claim(self._pid, cgroup.pid_ns, view.host_pid_ns, cgroup.container)
                _claim(self._uts, cgroup.uts_ns, view.host_uts_ns, cgroup.container)
        self._candidates = {candidate.key: candidate for candidate in snapshot.candidates}
        self._processes = {process.pid: process for process in snapshot.processes}
        self._init = {
            candidate.pid_ns: candidate
            for candidate in snapshot.candidates
            if candidate.ns_pid == 1
        }
        self._nested: dict[int, frozenset[ContainerKey]] = {}

    def are_hosts(self, key: ContainerKey) -> bool:
        """Whether the container's first process is in the host's PID and UTS namespaces."""
        cgroup = self._view.containers.get(key)
        return (
            cgroup is not None
            and self._view.host_pid_ns != 0
            and (cgroup.pid_ns, cgroup.uts_ns) == (self._view.host_pid_ns, self._view.host_uts_ns)
        )

    def named_by(self, candidate: Candidate) -> frozenset[ContainerKey]:
        """The containers that own the candidate's PID or UTS namespace; a shared one names all."""
        return self._pid_owners(candidate.pid_ns) | self._uts.get(candidate.uts_ns, _NOBODY)

    def stray_of(self, candidate: Candidate) -> ContainerKey | None:
        """The container in whose PID namespace a candidate is, None for none.

        Where containers share it (`--pid=container:X`) the UTS namespace decides, then which of
        them made it: with that one's first process all in it end.
        """
        owners = self._pid_owners(candidate.pid_ns)
        if len(owners) > 1:
            owners = (owners & self._uts.get(candidate.uts_ns, _NOBODY)) or owners
        return min(owners, key=lambda owner: self._made_later(owner, candidate), default=None)

    def outer_of(self, candidate: Candidate) -> ContainerKey | None:
        """The container inside which the candidate's PID namespace was made, None for none."""
        return None if candidate.pid_ns in self._pid else self.stray_of(candidate)

    def _made_later(
        self, key: ContainerKey, candidate: Candidate
    ) -> tuple[bool, int, ContainerKey]:
        container = self._containers.get(key)
        init = self._init.get(candidate.pid_ns)
        if container is None:
            return True, 0, key
        made_it = init is not None and init.pid == container.first_pid
        return not made_it, container.created_ns, key

    def _pid_owners(self, pid_ns: int) -> frozenset[ContainerKey]:
        """The owners of a PID namespace, or of the nearest one around it that has an owner.

        The parent of a namespace's init is in the namespace around it: the kernel hands orphans to
        an init, and never to one outside.
        """
        passed: list[int] = []
        owners = _NOBODY
        while pid_ns not in passed and pid_ns not in (0, self._view.host_pid_ns):
            known = self._pid.get(pid_ns) or self._nested.get(pid_ns)
            if known is not None:
                owners = known
                break
            passed.append(pid_ns)
            parent = self._parent_of_init(pid_ns)
            if parent is None:
                break
            pid_ns = parent.pid_ns
        self._nested.update(dict.fromkeys(passed, owners))
        return owners

    def _parent_of_init(self, pid_ns: int) -> Candidate | None:
        """The pids of the two readings are matched by start too: one may have been used again."""
        init = self._init.get(pid_ns)
        process = self._processes.get(init.pid) if init else None
        if init is None or process is None or process.key != init.key:
            return None
        parent = self._processes.get(process.ppid)
        return self._candidates.get(parent.key) if parent else None


def _claim(
    owners: dict[int, frozenset[ContainerKey]], namespace: int, hosts: int, who: ContainerKey
) -> None:
    if namespace not in (0, hosts):
        owners[namespace] = owners.get(namespace, _NOBODY) | {who}
