"""All processes without kernel modules: the fallback source, with the values that the modules give.

psutil tells the host's memory and the pids; the rest is read from `/proc` directly. What is less
exact than with the modules: starts are cut to clock ticks (10 ms), processes that share an address
space cannot be told and count each for itself, and every process is read at a moment of its own.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agent.clock import Clock
from agent.errors import SourceError, remedy_for
from agent.model.host import Memory
from agent.model.process import Candidate, Process, Snapshot, Source
from agent.sources import procfs
from agent.sources.cgroup import tree
from agent.sources.cgroup.layout import CgroupLayout

_STATES = {"R": 0, "S": 1, "D": 2, "I": 2, "T": 4, "t": 8, "X": 16, "Z": 32, "P": 64}
"""`(__state | exit_state) & 0x7f` of the letters that the kernel writes (fs/proc/array.c)."""

_SMALL_KB = 8192
"""Before 6.2 counts are cached per thread: off by up to 64 pages a thread, which for a small
process is most of it. There the page tables are few, and `smaps_rollup` is exact and quick."""


def read(clock: Clock, layout: CgroupLayout) -> Snapshot:
    """One snapshot. Raises SourceError where `/proc` cannot be read as root reads it.

    Processes that end while it reads are left out.
    """
    proc = os.fspath(layout.proc)
    try:
        memory = psutil.virtual_memory()
        total_kb, free_kb = memory.total // 1024, memory.free // 1024
        reader = _Reader(
            proc,
            total_kb,
            procfs.host_namespaces(proc),
            _CgroupIds(layout),
            _counts_are_exact(),
            procfs.has_our_pids(proc),
        )
        pids = psutil.pids()
    except (OSError, ValueError) as error:
        raise _unreadable(proc, error) from error
    processes: list[Process] = []
    candidates: list[Candidate] = []
    for pid in pids:
        try:
            process, candidate = reader.process(pid, clock.boot_ns())
        except (OSError, ValueError):
            continue
        processes.append(process)
        if candidate is not None:
            candidates.append(candidate)
    now_ns = clock.boot_ns()
    return Snapshot(
        source=Source.PSUTIL,
        snapshot_ns=now_ns,
        memory=Memory(total_kb, free_kb, total_kb - free_kb, memory.available // 1024),
        processes=tuple(processes),
        candidates=tuple(candidates),
        candidates_ns=now_ns,
    )


def _unreadable(proc: str, error: OSError | ValueError) -> SourceError:
    # psutil reads the host's figures there.
    problem, remount = procfs.partial_problem(str(psutil.PROCFS_PATH))
    if problem:
        return SourceError(problem, remount)
    hint = "Run the agent with sudo." if os.geteuid() else f"See how it is mounted: findmnt {proc}"
    if isinstance(error, OSError):
        hint = remedy_for(error, hint)
    return SourceError(f"{proc} cannot be read as root: {error}.", hint)


_UNKNOWN = -1
"""A cgroup that its text does not show."""


@dataclass(slots=True)
class _CgroupIds:
    """The inodes of a process's cgroup directories, looked up once a snapshot and text."""

    layout: CgroupLayout
    _known: dict[tuple[bytes, bool], tuple[int, int]] = field(default_factory=dict)
    _members: dict[Path, Mapping[int, int]] = field(default_factory=dict)

    def of(self, text: bytes | None, *, has_ended: bool, task: int) -> tuple[int, int]:
        """Ids in the default and in the memory controller's v1 hierarchy, 0 where there is none,
        for what `/proc/PID/cgroup` says.

        A path of PATH_MAX bytes or more the kernel cuts, or it refuses the whole text, which is
        None then: the cgroups' own lists of tasks still have `task`.

        Of a process that ends, the kernel shows the root instead of its v1 cgroups, though it keeps
        them (proc_cgroup_show); in the default hierarchy it shows the truth, and where the same
        path is there in the other one, that is it. Where nothing is in the default hierarchy either
        (pure v1), the root is no answer, and the id is 0.
        """
        if text is None:
            found = _UNKNOWN, _UNKNOWN
        else:
            key = (text, has_ended)
            if key not in self._known:
                self._known[key] = self._look_up(procfs.parse_cgroups(text), has_ended=has_ended)
            found = self._known[key]
        if _UNKNOWN not in found:
            return found
        default, memory = found
        if default == _UNKNOWN:
            default = self._by_members(self.layout.default_root, "cgroup.threads", task)
        if memory == _UNKNOWN:
            memory = self._by_members(self.layout.memory1_root, "tasks", task)
        return default, memory

    def _look_up(self, paths: dict[str, str], *, has_ended: bool) -> tuple[int, int]:
        default, memory = paths.get(""), paths.get("memory")
        default_id = self._id(self.layout.default_root, default)
        if has_ended and memory == "/":
            told = None if default == "/" else default
            return default_id, self._id(self.layout.memory1_root, told)
        return default_id, self._id(self.layout.memory1_root, memory)

    def _id(self, root: Path | None, path: str | None) -> int:
        if root is None or not path or not path.startswith("/") or path.startswith("/.."):
            return 0
        if len(os.fsencode(path)) >= procfs.PATH_MAX - 1:
            return _UNKNOWN
        try:
            # A Path of each would be a tenth of a whole snapshot's time.
            return os.stat(f"{os.fspath(root)}/{path.lstrip('/')}").st_ino
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                return 0
        try:
            return tree.inode_at(os.fspath(root), path)
        except OSError:
            return 0

    def _by_members(self, root: Path | None, file: str, task: int) -> int:
        if root is None:
            return 0
        if root not in self._members:
            self._members[root] = tree.members(os.fspath(root), file)
        return self._members[root].get(task, 0)


@dataclass(frozen=True, slots=True)
class _Reader:
    proc: str
    total_kb: int
    host: tuple[int, int]
    cgroup_ids: _CgroupIds
    counts_are_exact: bool
    has_our_pids: bool

    def process(self, pid: int, now_ns: int) -> tuple[Process, Candidate | None]:
        """Raises OSError or ValueError for a process that ended meanwhile."""
        stat = procfs.read_stat(self.proc, pid)
        status = procfs.parse_status(procfs.read(f"{self.proc}/{pid}/status"))
        speaker = procfs.speaker(self.proc, pid, stat, status)
        vsz_kb = stat.vsz_kb
        if speaker != str(pid):
            vsz_kb = procfs.read_stat(self.proc, speaker).vsz_kb
            status = procfs.parse_status(procfs.read(f"{self.proc}/{speaker}/status"))
        cgroup_id, cgroup1_id = self.cgroup_ids.of(
            procfs.cgroup_text(self.proc, speaker),
            has_ended=vsz_kb == 0,
            task=int(speaker.rpartition("/")[2]),
        )
        namespaces = self._namespaces(pid, speaker, stat, status)
        rss_kb, anon_kb = self._resident(speaker, vsz_kb, status)
        cpu_ns = procfs.exact_cpu_ns(pid, stat) if self.has_our_pids else stat.cpu_ns
        name = stat.comm.decode("utf-8", "replace")
        life_ns = now_ns - stat.start_ns
        process = Process(
            pid=pid,
            name=name,
            state=_STATES.get(stat.state, 0),
            rss_kb=rss_kb,
            mem_percent=rss_kb * 100 // self.total_kb if self.total_kb else 0,
            vsz_kb=vsz_kb,
            life_cpu_percent=cpu_ns * 100 // life_ns if life_ns > 0 else 0,
            ppid=stat.ppid,
            threads=stat.threads,
            start_ns=stat.start_ns,
            cpu_ns=cpu_ns,
            rss_anon_kb=anon_kb,
            rss_shmem_kb=procfs.kb(status, b"RssShmem"),
            mm_id=pid if vsz_kb else 0,
            cgroup_id=cgroup_id,
            cgroup1_id=cgroup1_id,
        )
        if namespaces == self.host:
            return process, None
        return process, Candidate(
            pid=pid,
            name=name,
            rss_kb=process.rss_kb,
            mem_percent=process.mem_percent,
            vsz_kb=process.vsz_kb,
            life_cpu_percent=process.life_cpu_percent,
            start_ns=process.start_ns,
            cpu_ns=process.cpu_ns,
            rss_anon_kb=process.rss_anon_kb,
            rss_shmem_kb=process.rss_shmem_kb,
            mm_id=process.mm_id,
            cgroup_id=cgroup_id,
            cgroup1_id=cgroup1_id,
            ns_pid=procfs.innermost_pid(status)[0],
            pid_ns=namespaces[0],
            uts_ns=namespaces[1],
        )

    def _namespaces(
        self, pid: int, speaker: str, stat: procfs.Stat, status: dict[bytes, bytes]
    ) -> tuple[int, int]:
        """PID and UTS namespace. A zombie has only the first; the host's stands for the other.

        Those of a process with more privileges than ours are not shown: it is no container's. A
        process that no namespace below this `/proc`'s own sees is in that one: it has one pid
        (fs/proc/array.c, task_state).
        """
        pid_ns = self.host[0]
        try:
            if procfs.innermost_pid(status)[1] > 1:
                pid_ns = procfs.namespace(self.proc, pid, "pid")
            return pid_ns, procfs.namespace(self.proc, speaker, "uts")
        except PermissionError:
            return self.host
        except FileNotFoundError:
            if stat.state not in "ZX":
                stat = procfs.read_stat(self.proc, pid)
            if stat.state not in "ZX":
                raise
            return pid_ns, self.host[1]

    def _resident(self, speaker: str, vsz_kb: int, status: dict[bytes, bytes]) -> tuple[int, int]:
        """Resident and anonymous memory, KB."""
        rss_kb, anon_kb = procfs.kb(status, b"VmRSS"), procfs.kb(status, b"RssAnon")
        if not vsz_kb or rss_kb >= _SMALL_KB or self.counts_are_exact:
            return rss_kb, anon_kb
        try:
            exact = procfs.parse_rollup(procfs.read(f"{self.proc}/{speaker}/smaps_rollup"))
        except OSError:
            return rss_kb, anon_kb
        return procfs.kb(exact, b"Rss"), procfs.kb(exact, b"Anonymous")


def _counts_are_exact() -> bool:
    """Whether `/proc/PID/status` adds up what threads and CPUs hold back (Linux 6.2 and later)."""
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    return match is None or (int(match[1]), int(match[2])) >= (6, 2)
