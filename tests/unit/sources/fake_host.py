"""A host in a directory: cgroup hierarchies, a table of mounts, and processes with namespaces.

Inodes are the directory's own, as on a real one; the rest is written as the kernel prints it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.model.container import Container, ContainerState
from agent.sources.cgroup.layout import CgroupLayout, detect

HOST_PID_NS = 4026531836
HOST_UTS_NS = 4026531838

V2_STAT = """anon 4194304
file 3145728
kernel 524288
kernel_stack 16384
shmem 1048576
slab_reclaimable 131072
slab_unreclaimable 65536
"""
V1_STAT = """cache 1
rss 1
total_cache 3145728
total_rss 4194304
total_shmem 1048576
"""


def full_id(letter: str) -> str:
    return letter * 64


def container(
    letter: str, first_pid: int = 0, state: ContainerState = ContainerState.RUNNING
) -> Container:
    return Container(full_id(letter), f"name-{letter}", "image", 1, state, first_pid)


@dataclass(slots=True)
class FakeHost:
    """`kind` is how cgroups are mounted: v2, v1 or hybrid."""

    base: Path
    kind: str = "v2"
    mounts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.proc / "self").mkdir(parents=True)
        if self.kind == "v2":
            self.mount("", "cgroup2", "rw")
        else:
            self.mount("memory", "cgroup", "rw,memory")
            self.mount("cpuacct", "cgroup", "rw,cpu,cpuacct")
        if self.kind == "hybrid":
            self.mount("unified", "cgroup2", "rw")
        self.process(1, cgroup="/init.scope", own_pid=1)
        (self.proc / "self" / "cgroup").write_text(self._cgroup_file("/agent.service"))

    @property
    def proc(self) -> Path:
        return self.base / "proc"

    @property
    def root(self) -> Path:
        return self.base / "cgroup"

    def mount(self, name: str, fstype: str, options: str, *, of: str = "/") -> Path:
        point = self.root / name if name else self.root
        point.mkdir(parents=True, exist_ok=True)
        shown = str(point).replace(" ", "\\040")
        self.mounts.append(f"31 23 0:28 {of} {shown} rw,relatime - {fstype} x {options}")
        (self.proc / "self" / "mountinfo").write_text("\n".join(self.mounts) + "\n")
        return point

    def layout(self) -> CgroupLayout:
        return detect(self.root, self.proc, self.base / "sys")

    @property
    def identifying(self) -> Path:
        return self.root if self.kind == "v2" else self.root / "memory"

    def cgroup(self, path: str, *, figures: bool = True) -> int:
        """A directory in every hierarchy; its inode in the identifying one."""
        for root in self._roots():
            (root / path.strip("/")).mkdir(parents=True, exist_ok=True)
        directory = self.identifying / path.strip("/")
        (directory / "cgroup.procs").write_text("")
        if figures and self.kind == "v2":
            (directory / "memory.stat").write_text(V2_STAT)
            (directory / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
            (directory / "cpu.stat").write_text("usage_usec 7000\nuser_usec 5000\n")
        elif figures:
            (directory / "memory.stat").write_text(V1_STAT)
            (directory / "memory.kmem.usage_in_bytes").write_text("524288\n")
            (directory / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 2\n")
            self.cpu_usage(path, 7_000_000)
        return directory.stat().st_ino

    def cpu_usage(self, path: str, usage_ns: int) -> None:
        directory = self.root / "cpuacct" / path.strip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cpuacct.usage").write_text(f"{usage_ns}\n")

    def process(
        self,
        pid: int,
        *,
        cgroup: str = "/",
        pid_ns: int = HOST_PID_NS,
        uts_ns: int = HOST_UTS_NS,
        own_pid: int | None = None,
        start_ticks: int = 500,
        state: str = "S",
        comm: str = "sleep",
    ) -> None:
        """In `cgroup` in every hierarchy."""
        directory = self.proc / str(pid)
        (directory / "ns").mkdir(parents=True, exist_ok=True)
        for kind, number in (("pid", pid_ns), ("uts", uts_ns)):
            link = directory / "ns" / kind
            link.unlink(missing_ok=True)
            if number:
                link.symlink_to(f"{kind}:[{number}]")
        fields = [state, "1", "0", "0", "0", "-1", "0", "0", "0", "0", "0", "3", "4", "0", "0"]
        fields += ["20", "0", "1", "0", str(start_ticks), "8192", "0"]
        (directory / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")
        (directory / "cgroup").write_text(self._cgroup_file(cgroup))
        nested = f"{pid}\t{own_pid or pid}" if pid_ns != HOST_PID_NS else str(pid)
        (directory / "status").write_text(f"Name:\t{comm}\nNSpid:\t{nested}\nVmRSS:\t  12 kB\n")
        if cgroup != "/" and os.path.isdir(self.identifying / cgroup.strip("/")):
            procs = self.identifying / cgroup.strip("/") / "cgroup.procs"
            procs.write_text((procs.read_text() if procs.exists() else "") + f"{pid}\n")

    def end_main_thread(self, pid: int, tid: int) -> None:
        """Leaves the process to its other thread `tid`: what the kernel shows of both then."""
        leader = self.proc / str(pid)
        thread = leader / "task" / str(tid)
        (thread / "ns").mkdir(parents=True)
        for name in ("stat", "status", "cgroup"):
            (thread / name).write_bytes((leader / name).read_bytes())
        for link in (leader / "ns").iterdir():
            (thread / "ns" / link.name).symlink_to(link.readlink())
        (leader / "task" / str(pid)).mkdir()
        (leader / "ns" / "uts").unlink()
        stat = (leader / "stat").read_text().replace(") S ", ") Z ").replace(" 8192 ", " 0 ")
        (leader / "stat").write_text(stat.replace(" 20 0 1 ", " 20 0 2 "))
        status = (leader / "status").read_text().partition("VmRSS")[0]
        (leader / "status").write_text(status)
        (leader / "task" / str(pid) / "status").write_text(status)
        # A thread that has ended keeps its cgroup; of v1's the kernel shows the root.
        text = (leader / "cgroup").read_text()
        lines = [line if line.startswith("0::") else f"{line[: line.rindex(':')]}:/" for line in
                 text.splitlines()]  # fmt: skip
        (leader / "cgroup").write_text("\n".join(lines) + "\n")

    def _roots(self) -> list[Path]:
        names = {
            "v2": [""],
            "v1": ["memory", "cpuacct"],
            "hybrid": ["memory", "cpuacct", "unified"],
        }
        return [self.root / name if name else self.root for name in names[self.kind]]

    def _cgroup_file(self, path: str) -> str:
        lines = []
        if self.kind != "v2":
            lines = [f"5:cpu,cpuacct:{path}", f"4:memory:{path}"]
        if self.kind != "v1":
            lines.append(f"0::{path}")
        return "\n".join(lines) + "\n"


def nest(root: Path, names: Sequence[str], files: Mapping[str, str] | None = None) -> int:
    """Directories one inside the other, `files` in the last; its inode."""
    here = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    for name, text in (files or {}).items():
        file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(file, text.encode())
        os.close(file)
    inode = os.fstat(here).st_ino
    os.close(here)
    return inode


def remove_nested(root: Path) -> None:
    """Removes what `nest` made, which may be too deep for a path and for recursion."""
    here = os.open(root, os.O_RDONLY)
    depth = 0
    while True:
        names = os.listdir(here)
        folders = [name for name in names if stat.S_ISDIR(os.lstat(name, dir_fd=here).st_mode)]
        for name in set(names) - set(folders):
            os.unlink(name, dir_fd=here)
        if folders:
            below = os.open(folders[0], os.O_RDONLY, dir_fd=here)
            depth += 1
        elif depth:
            below = os.open("..", os.O_RDONLY, dir_fd=here)
            depth -= 1
            for name in os.listdir(below):
                try:
                    os.rmdir(name, dir_fd=below)
                except OSError:
                    continue
        else:
            break
        os.close(here)
        here = below
    os.close(here)
