"""Which process belongs to which container, and how sure that is. Pure: values in, values out.

Three witnesses are asked: the cgroup id that the process source read, the one that BPF recorded,
and the namespaces. The cgroup decides, since the kernel charges by it; namespaces find what left
its cgroup; BPF confirms or contradicts. Names and command lines are the workload's and prove
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from agent.analysis.namespaces import Namespaces
from agent.model.attribution import (
    AttributedProcess,
    Attribution,
    AttributionCounts,
    Basis,
    Verified,
)
from agent.model.bpf import NO_LOSSES, Losses
from agent.model.container import CgroupView, Container, ContainerKey
from agent.model.process import Candidate, Process, ProcessKey, Snapshot, Source, in_clock_ticks

_ZOMBIE_OR_DEAD = 0x20 | 0x10
_KTHREADD = 2


def attribute(
    snapshot: Snapshot,
    view: CgroupView,
    containers: Sequence[Container],
    bpf_cgroup_ids: Mapping[ProcessKey, int] | None = None,
    losses: Losses = NO_LOSSES,
    silent: Collection[str] = (),
) -> Attribution:
    """The answer for every process of `snapshot` that is a container's, in the snapshot's order.

    `bpf_cgroup_ids` is by process, in the view's hierarchy; None where there is no BPF. `silent`
    are engines that do not answer: what the view knows of their containers makes no row.
    Zombies are rows too, with the memory that they have left (none): they hold a pid of their
    container until somebody reaps them. Kernel threads and pids 0 and 1 are never rows.
    """
    return _Attributor(snapshot, view, containers, bpf_cgroup_ids, silent).answer(losses)


def is_kernel_thread(process: Process) -> bool:
    """Whether it is kthreadd or its child. Some (`vhost-…`) are put into their user's cgroup.

    Kernel threads have no address space, reap themselves, and are never zombies that anybody sees.
    """
    return (
        _KTHREADD in (process.pid, process.ppid)
        and process.vsz_kb == 0
        and not process.state & _ZOMBIE_OR_DEAD
    )


def has_ended(process: Process) -> bool:
    """All of it: one of which only the main thread has ended has the same state, and memory."""
    return process.state & _ZOMBIE_OR_DEAD != 0 and process.vsz_kb == 0


class _Attributor:
    def __init__(
        self,
        snapshot: Snapshot,
        view: CgroupView,
        containers: Sequence[Container],
        bpf_cgroup_ids: Mapping[ProcessKey, int] | None,
        silent: Collection[str],
    ) -> None:
        self._snapshot = snapshot
        self._silent = frozenset(silent)
        self._view = view
        self._bpf_cgroup_ids = _by_source(bpf_cgroup_ids, snapshot.source)
        self._names = {one.key: one.name for one in containers}
        self._names.update({one.container: one.name for one in view.foreign.values()})
        self._owner: dict[int, ContainerKey] = {}
        for foreign in view.foreign.values():
            self._owner.update(dict.fromkeys(foreign.ids, foreign.container))
        for cgroup in view.containers.values():
            self._owner.update(dict.fromkeys(cgroup.ids, cgroup.container))
        self._owner.pop(0, None)
        self._host_ids = view.host_ids.difference(self._owner)
        self._candidates = {candidate.key: candidate for candidate in snapshot.candidates}
        self._namespaces = Namespaces(snapshot, view, containers)
        self._rows: list[AttributedProcess] = []
        self._disputed: set[ContainerKey] = set()
        self._unknown: set[int] = set()
        self._dropped = 0
        self._unresolved = 0

    def answer(self, losses: Losses) -> Attribution:
        for process in self._not_plainly_hosts():
            if process.pid > 1 and not is_kernel_thread(process):
                self._add(process)
        rows = self._rows
        return Attribution(
            rows=tuple(rows),
            counts=AttributionCounts(
                agree=sum(row.verified is Verified.AGREE for row in rows),
                conflict=sum(row.verified is Verified.CONFLICT for row in rows),
                unverified=sum(row.verified is Verified.UNVERIFIED for row in rows)
                + self._unresolved,
                added=sum(row.basis is Basis.ADDED for row in rows),
                strayed=sum(row.basis is Basis.STRAYED for row in rows),
                moved=sum(row.basis is Basis.MOVED for row in rows),
                dropped=self._dropped,
                events_lost=losses.lost,
                events_corrected=losses.corrected,
                events_late=losses.late,
                events_missed=losses.missed,
            ),
            disputed=frozenset(self._disputed),
            unknown_cgroups=frozenset(self._unknown),
        )

    def _not_plainly_hosts(self) -> Iterator[Process]:
        """All but those of which all witnesses name one and the same cgroup of the host's.

        Those are nearly all processes of most hosts: no row, no doubt. What is left out here,
        `_add` would find out too.
        """
        snapshot, host_ids, candidates = self._snapshot, self._host_ids, self._candidates
        by_bpf = self._bpf_cgroup_ids or {}
        of = self._view.hierarchy.getter
        for process, key in zip(snapshot.processes, snapshot.keys, strict=True):
            cgroup_id = of(process)
            if (
                cgroup_id not in host_ids
                or key in candidates
                or by_bpf.get(key, cgroup_id) != cgroup_id
            ):
                yield process

    def _add(self, process: Process) -> None:
        cgroup_id = self._view.hierarchy.of(process)
        by_cgroup = self._owner.get(cgroup_id)
        candidate = self._candidates.get(process.key)
        if not by_cgroup:
            self._note_unknown(cgroup_id, candidate)
        container, basis = self._decide(process, candidate, by_cgroup)
        if not (cgroup_id or container):
            self._add_unresolved(process, candidate)
            return
        # 0: the source was not told (a zombie on pure cgroup v1); then its namespaces speak.
        said = by_cgroup if cgroup_id else container
        verified, by_bpf = self._verify(process, cgroup_id, said)
        if verified is Verified.CONFLICT:
            self._disputed.update(one for one in (by_cgroup, by_bpf, container) if one)
            if not container:
                # One that only BPF puts into a container is shown there, as the conflict it is.
                container, basis = by_bpf, Basis.CGROUP
        if not container:
            self._dropped += candidate is not None
            return
        self._append(process, container, basis, verified, by_bpf)

    def _add_unresolved(self, process: Process, candidate: Candidate | None) -> None:
        """One whose cgroup is unknown to the source and whose namespaces name nobody.

        BPF's word alone is believed, unverified. Without it a living process is counted: a
        container that could make its processes unreadable would hide them.
        """
        bpf_cgroup_id = (self._bpf_cgroup_ids or {}).get(process.key, 0)
        if container := self._owner.get(bpf_cgroup_id):
            self._append(process, container, Basis.CGROUP, Verified.UNVERIFIED)
        elif not bpf_cgroup_id and not has_ended(process):
            self._unresolved += 1
        else:
            self._dropped += candidate is not None

    def _append(
        self,
        process: Process,
        container: ContainerKey,
        basis: Basis,
        verified: Verified,
        by_bpf: ContainerKey | None = None,
    ) -> None:
        if container.engine in self._silent:
            return
        self._rows.append(
            AttributedProcess(
                process=process,
                container=container,
                container_name=self._names.get(container, container.short_id),
                basis=basis,
                verified=verified,
                bpf_container_id=_named(by_bpf) if verified is Verified.CONFLICT else None,
            )
        )

    def _decide(
        self, process: Process, candidate: Candidate | None, by_cgroup: ContainerKey | None
    ) -> tuple[ContainerKey | None, Basis]:
        """The container, None for none, and on what that rests."""
        if candidate is None:
            if by_cgroup and self._is_added(process, by_cgroup):
                return by_cgroup, Basis.ADDED
            return by_cgroup, Basis.CGROUP
        if not by_cgroup:
            # Nothing shows that a living process of unknown cgroup has left its container's: as
            # an escaped one its memory would be added to what that cgroup holds.
            is_known = self._view.hierarchy.of(process) != 0 or has_ended(process)
            basis = Basis.STRAYED if is_known else Basis.CGROUP
            return self._namespaces.stray_of(candidate), basis
        if by_cgroup in self._view.foreign and (outer := self._namespaces.outer_of(candidate)):
            # Docker inside Docker whose cgroups lie outside the outer container's.
            return outer, Basis.STRAYED
        named = self._namespaces.named_by(candidate)
        if named and by_cgroup not in named:
            return by_cgroup, Basis.MOVED
        return by_cgroup, Basis.CGROUP

    def _is_added(self, process: Process, container: ContainerKey) -> bool:
        """Whether a process that is not among the candidates has the host's namespaces.

        Processes and candidates are two readings. Where the candidates were read after the
        processes, one may be missing because it ended in between; where they were read before, it
        may have been born in between, which its start tells. A zombie has lost its UTS namespace,
        one of which only the main thread has ended has not.
        """
        if self._namespaces.are_hosts(container):
            return True
        if has_ended(process):
            return False
        candidates_ns = self._snapshot.candidates_ns
        if candidates_ns == self._snapshot.snapshot_ns:
            return True
        return process.start_ns < candidates_ns < self._snapshot.snapshot_ns

    def _verify(
        self, process: Process, cgroup_id: int, said: ContainerKey | None
    ) -> tuple[Verified, ContainerKey | None]:
        """What BPF says of the container that was `said`, and which one it names itself."""
        if self._bpf_cgroup_ids is None:
            return Verified.UNVERIFIED, None
        bpf_cgroup_id = self._bpf_cgroup_ids.get(process.key)
        if bpf_cgroup_id is None or not (cgroup_id or said):
            return Verified.UNVERIFIED, None
        by_bpf = self._owner.get(bpf_cgroup_id)
        if bpf_cgroup_id == cgroup_id or by_bpf == said:
            return Verified.AGREE, said
        return Verified.CONFLICT, by_bpf

    def _note_unknown(self, cgroup_id: int, candidate: Candidate | None) -> None:
        """A cgroup that is neither a container's nor was seen as the host's is worth a question.

        A container with the host's namespaces has no candidates, so where the host's cgroups are
        known every process counts.
        """
        if cgroup_id == 0 or cgroup_id in self._view.host_ids:
            return
        if candidate is not None or self._view.host_ids:
            self._unknown.add(cgroup_id)


def _named(container: ContainerKey | None) -> str:
    return container.id if container else ""


def _by_source(
    bpf_cgroup_ids: Mapping[ProcessKey, int] | None, source: Source
) -> Mapping[ProcessKey, int] | None:
    """BPF's record under the keys of the source: psutil's are cut to clock ticks."""
    if bpf_cgroup_ids is None or source is not Source.PSUTIL:
        return bpf_cgroup_ids
    return {in_clock_ticks(key): cgroup_id for key, cgroup_id in bpf_cgroup_ids.items()}
