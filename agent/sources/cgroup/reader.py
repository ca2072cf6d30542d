"""Which cgroup ids belong to which container, and what each container's cgroup says it costs.

Docker says which containers there are; the kernel's directories say which ids are theirs. The ids
are the inodes of a container's directory and of every directory below it, in the one hierarchy that
the layout names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.analysis import held_memory
from agent.clock import Clock, SystemClock
from agent.model.container import (
    CgroupView,
    Container,
    ContainerCgroup,
    ContainerKey,
    ContainerState,
    ForeignCgroup,
    Hierarchy,
)
from agent.sources import host_memory, procfs
from agent.sources.cgroup import stats as figures
from agent.sources.cgroup import tree
from agent.sources.cgroup.layout import CgroupLayout, CgroupMode, detect
from agent.sources.cgroup.memo import FirstProcess
from agent.util.terminal import printable

__all__ = ["CgroupLayout", "CgroupMode", "detect", "read"]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _First:
    """What `/proc` says of a container's first process."""

    process: FirstProcess
    paths: Mapping[str, str]
    """As `procfs.parse_cgroups`; empty where one is too long to be shown."""
    is_init: bool
    """Pid 1 of a PID namespace that is not the host's."""


def read(
    layout: CgroupLayout,
    containers: Sequence[Container],
    unknown_ids: frozenset[int] = frozenset(),
    *,
    clock: Clock | None = None,
) -> CgroupView:
    """The cgroups of `containers`, and of others' containers.

    `unknown_ids` are ids that Docker was asked for again and does not explain: container-like
    directories among them are taken for foreign containers. A cgroup that vanishes raises nothing;
    a running container without a directory is left out, unless its first process is surely known.
    Where two engines list one id, the cgroup is the first one's: the order is the settings'.
    """
    clock = clock or SystemClock()
    proc = os.fspath(layout.proc)
    host_pid_ns, host_uts_ns = _host_namespaces(proc)
    first_of = {one.id: one for one in reversed(containers)}
    living = {
        one.id: one
        for one in containers
        if _may_have_processes(one) and first_of[one.id].engine == one.engine
    }
    firsts = {
        key: first
        for key, one in living.items()
        if one.first_pid > 0 and (first := _first_process(proc, one.first_pid)) is not None
    }
    directories = tree.walk(os.fspath(layout.root))
    controller = _identifying_controller(layout)
    first_paths = {key: first.paths.get(controller, "") for key, first in firsts.items()}
    chosen = tree.choose(directories, living, first_paths)
    _add_by_first_process(layout, directories, chosen, living, first_paths)
    owner = tree.owners(directories, chosen)

    ids: dict[str, set[int]] = {key: set() for key in chosen}
    for directory, container_id in zip(directories, owner, strict=True):
        if container_id:
            ids[container_id].add(directory.inode)
    namespaces = _namespaces(layout, directories, owner, living, firsts, first_paths)
    host = host_memory.read(layout.proc, layout.sys)
    elsewhere = _Elsewhere(layout, living, firsts, host)
    present = frozenset(directory.inode for directory in directories)
    found: dict[ContainerKey, ContainerCgroup] = {}
    last_ids: dict[str, frozenset[int]] = {}
    for key, one in living.items():
        own = frozenset(ids.get(key, ()))
        last_ids[key] = own
        # What was removed since the last reading still names its zombies.
        known = own | (layout.memo.last_ids.get(key, frozenset()) - present)
        # systemd removes the scope of a container whose processes were all moved out: its first
        # process's namespaces still tell whose they are.
        if known or key in namespaces:
            own_place = directories[chosen[key]] if key in chosen else None
            found[one.key] = _container_cgroup(
                layout, one.key, own_place, known, namespaces.get(key), elsewhere, clock
            )
    layout.memo.last_ids = last_ids
    listed = frozenset(one.id for one in containers)
    strangers = tree.unlisted(directories, owner, listed)
    foreign, pending = _foreign(layout, strangers, unknown_ids)
    claimed = pending.union(*(one.ids for one in foreign.values()))
    return CgroupView(
        hierarchy=layout.hierarchy,
        containers=held_memory.with_estimates(found, host),
        foreign=foreign,
        host_pid_ns=host_pid_ns,
        host_uts_ns=host_uts_ns,
        host_ids=frozenset(
            directory.inode
            for directory, container_id in zip(directories, owner, strict=True)
            if not container_id and directory.inode not in claimed
        ),
    )


def _may_have_processes(container: Container) -> bool:
    return container.state.is_running or container.state is ContainerState.UNKNOWN


def _identifying_controller(layout: CgroupLayout) -> str:
    return "memory" if layout.hierarchy is Hierarchy.MEMORY_V1 else ""


def _first_process(proc: str, pid: int) -> _First | None:
    """None where the process ends meanwhile, or the pid passes to another one."""
    try:
        stat = procfs.read_stat(proc, pid)
        start_ns = stat.start_ns
        status = procfs.parse_status(procfs.read(f"{proc}/{pid}/status"))
        speaker = procfs.speaker(proc, pid, stat, status)
        paths = procfs.parse_cgroups(procfs.cgroup_text(proc, speaker) or b"")
        pid_ns = procfs.namespace(proc, pid, "pid")
        uts_ns = procfs.namespace(proc, speaker, "uts")
        inner_pid, levels = procfs.innermost_pid(status)
        if procfs.read_stat(proc, pid).start_ns != start_ns:
            return None
    except (OSError, ValueError):
        return None
    process = FirstProcess(pid, start_ns, pid_ns, uts_ns)
    return _First(process, paths, is_init=inner_pid == 1 and levels > 1)


def _add_by_first_process(
    layout: CgroupLayout,
    directories: list[tree.Directory],
    chosen: dict[str, int],
    living: Mapping[str, Container],
    first_paths: Mapping[str, str],
) -> None:
    """Finds directories whose names do not tell, through the cgroup of the first process.

    A first process may have been moved out, so its cgroup is believed only where it can be nobody
    else's: not the root, not at or above another container's or our own, and with no process in it
    that is outside the first one's PID namespace.
    """
    # One whose directory had its name and is gone was moved out of it by hand, not put elsewhere.
    named = layout.memo.named = (layout.memo.named | set(chosen)) & set(living)
    missing = [key for key in first_paths if key not in chosen and key not in named]
    if not missing:
        return
    place_of = {directory.path: place for place, directory in enumerate(directories)}
    proc = os.fspath(layout.proc)
    taken = [directories[place].path for place in chosen.values()]
    taken += [path for path in (_own_path(layout, "self"), _own_path(layout, "1")) if path]
    for key in missing:
        path = first_paths[key]
        place = place_of.get(path)
        if place is None or path == "/":
            continue
        if any(other == path or other.startswith(path + "/") for other in taken):
            continue
        if any(path.startswith(other + "/") for other in taken if other != "/"):
            continue
        if _is_private(layout, proc, path, living[key].first_pid):
            chosen[key] = place
            taken.append(path)


def _own_path(layout: CgroupLayout, who: str) -> str:
    try:
        text = procfs.read(f"{os.fspath(layout.proc)}/{who}/cgroup")
    except OSError:
        return ""
    return procfs.parse_cgroups(text).get(_identifying_controller(layout), "")


def _is_private(layout: CgroupLayout, proc: str, path: str, first_pid: int) -> bool:
    try:
        inside = procfs.namespace(proc, first_pid, "pid")
        if inside == procfs.host_namespaces(proc)[0]:
            return False
        members = procfs.read(f"{os.fspath(layout.root)}{path}/cgroup.procs").split()
        return all(procfs.namespace(proc, int(pid), "pid") == inside for pid in members)
    except (OSError, ValueError):
        return False


def _namespaces(
    layout: CgroupLayout,
    directories: list[tree.Directory],
    owner: list[str],
    living: Mapping[str, Container],
    firsts: Mapping[str, _First],
    first_paths: Mapping[str, str],
) -> dict[str, FirstProcess]:
    """First processes that surely are their container's, by container.

    Surely: in the container's own cgroup; or seen there before, whatever happened to it since; or
    the init of a PID namespace (one that was moved by hand) and no other container's first process.
    Otherwise Docker's pid may have passed to somebody else.
    """
    owner_of = {
        directory.path: owner[place]
        for place, directory in enumerate(directories)
        if directory.path
    }
    pids: dict[int, int] = {}
    for one in living.values():
        pids[one.first_pid] = pids.get(one.first_pid, 0) + 1
    sure: dict[str, FirstProcess] = {}
    for key, first in firsts.items():
        if (
            owner_of.get(first_paths[key], "") == key
            or layout.memo.first.get(key) == first.process
            or (first.is_init and pids[first.process.pid] == 1)
        ):
            sure[key] = first.process
    layout.memo.first = sure
    return sure


def _container_cgroup(
    layout: CgroupLayout,
    container: ContainerKey,
    place: tree.Directory | None,
    ids: frozenset[int],
    first: FirstProcess | None,
    elsewhere: _Elsewhere,
    clock: Clock,
) -> ContainerCgroup:
    memory = figures.Figures()
    cpu_ns = None
    hugetlb_kb: Mapping[int, int] = {}
    path = place.path if place is not None else ""
    if path:
        directory = os.fspath(layout.root) + path
        v1 = layout.hierarchy is Hierarchy.MEMORY_V1
        memory = figures.memory_v1(directory) if v1 else figures.memory_v2(directory)
        cpu_ns = elsewhere.cpu_ns(container.id, path)
        hugetlb_kb = elsewhere.hugetlb_kb(container.id, path)
    return ContainerCgroup(
        container=container,
        path=printable(path),
        ids=ids,
        life_id=place.inode if place is not None else 0,
        pid_ns=first.pid_ns if first else 0,
        uts_ns=first.uts_ns if first else 0,
        held_kb=memory.held_kb,
        held_basis=memory.held_basis,
        cache_kb=memory.cache_kb,
        swap_kb=memory.swap_kb,
        zswapped_kb=memory.zswapped_kb,
        zswap_kb=memory.zswap_kb,
        hugetlb_kb=hugetlb_kb,
        cpu_ns=cpu_ns,
        oom_kills=memory.oom_kills,
        anon_kb=memory.anon_kb,
        file_kb=memory.file_kb,
        limit_kb=memory.limit_kb,
        read_ns=clock.boot_ns(),
    )


class _Elsewhere:
    """Figures that v1 has in hierarchies of their own: CPU time and huge pages."""

    def __init__(
        self,
        layout: CgroupLayout,
        living: Mapping[str, Container],
        firsts: Mapping[str, _First],
        host: held_memory.HostMemory,
    ) -> None:
        self._cpu_is_v1 = layout.cpuacct_root is not None
        cpu_root = layout.cpuacct_root or layout.default_root or layout.root
        cpu = "cpuacct" if self._cpu_is_v1 else ""
        self._cpu = _OtherHierarchy(layout, cpu_root, cpu, living, firsts)
        self._huge_is_v1 = layout.hugetlb1_root is not None
        huge_root = layout.hugetlb1_root or layout.default_root or layout.root
        huge = "hugetlb" if self._huge_is_v1 else ""
        self._huge = _OtherHierarchy(layout, huge_root, huge, living, firsts)
        self._sizes_kb = tuple(host.surplus_kb)

    def cpu_ns(self, container_id: str, path: str) -> int | None:
        read = figures.cpu_v1_ns if self._cpu_is_v1 else figures.cpu_v2_ns
        return self._cpu.read(container_id, path, read)

    def hugetlb_kb(self, container_id: str, path: str) -> Mapping[int, int]:
        """Empty where the host has no surplus pages, or the kernel no hugetlb controller."""
        if not self._sizes_kb:
            return {}

        def read(directory: str) -> Mapping[int, int] | None:
            return figures.hugetlb_kb(directory, self._sizes_kb, v1=self._huge_is_v1)

        return self._huge.read(container_id, path, read) or {}


class _OtherHierarchy:
    """Containers' directories in one hierarchy, where their paths may be others than in the
    identifying one (with `--cgroup-parent` and systemd they are)."""

    def __init__(
        self,
        layout: CgroupLayout,
        root: Path,
        controller: str,
        living: Mapping[str, Container],
        firsts: Mapping[str, _First],
    ) -> None:
        self._root = os.fspath(root)
        self._same = root == layout.root
        self._living = living
        self._first_paths = {key: one.paths.get(controller, "") for key, one in firsts.items()}
        self._walked: dict[str, str] | None = None

    def read(self, container_id: str, path: str, read: Callable[[str], T | None]) -> T | None:
        """What `read` gives for the container's directory, `path` being its usual one."""
        found = read(self._root + path)
        if found is not None or self._same:
            return found
        elsewhere = self._found().get(container_id)
        return None if elsewhere is None else read(self._root + elsewhere)

    def _found(self) -> dict[str, str]:
        if self._walked is None:
            directories = tree.walk(self._root)
            chosen = tree.choose(directories, self._living, self._first_paths)
            self._walked = {key: directories[place].path for key, place in chosen.items()}
        return self._walked


def _foreign(
    layout: CgroupLayout, strangers: Sequence[tree.Unlisted], unknown_ids: frozenset[int]
) -> tuple[dict[ContainerKey, ForeignCgroup], frozenset[int]]:
    """Foreign containers, and the ids of directories that Docker has yet to be asked for."""
    foreign: dict[str, ForeignCgroup] = {}
    pending: set[int] = set()
    for stranger in strangers:
        asked = stranger.id in layout.memo.foreign or not unknown_ids.isdisjoint(stranger.inodes)
        if not (asked or stranger.is_never_dockers):
            pending |= stranger.inodes
            continue
        before = foreign.get(stranger.id)
        foreign[stranger.id] = ForeignCgroup(
            container=(before.container if before else ContainerKey(stranger.runtime, stranger.id)),
            name=printable(f"{stranger.runtime or 'cgroup'}-{stranger.id[:12]}"),
            path=before.path if before else printable(stranger.path),
            ids=stranger.inodes | (before.ids if before else frozenset()),
        )
    layout.memo.foreign = set(foreign)
    return {one.container: one for one in foreign.values()}, frozenset(pending)


def _host_namespaces(proc: str) -> tuple[int, int]:
    """0 where they are not told: then namespaces bear no witness."""
    try:
        return procfs.host_namespaces(proc)
    except (OSError, ValueError):
        return 0, 0
