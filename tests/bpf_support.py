"""What the tests of the BPF witness look with: storms of known size, and /proc as the oracle.

The oracle side (Storm, cgroup files, /proc) knows nothing of the agent.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import containers

LIAR = Path(__file__).parent / "liar"
PROGRAM = Path(__file__).parent / "programs" / "storm.c"
CGROUPS = Path("/sys/fs/cgroup")
ANSWER_S = 900.0


def lying(lies: Path) -> dict[str, str]:
    """The environment of an agent whose BPF witness says what the file has."""
    path = f"{LIAR}{os.pathsep}{Path(__file__).parents[1]}"
    return {"PYTHONPATH": path, "SO1_TEST_BPF_DISAGREE": str(lies)}


def unified() -> bool:
    """Whether the only hierarchy is the default one (v2)."""
    return (CGROUPS / "cgroup.controllers").exists()


def identifying_root() -> Path:
    """Where a container's processes are looked for: memory's hierarchy on v1 and hybrid."""
    return CGROUPS if unified() else CGROUPS / "memory"


def compile_storm(directory: Path) -> Path:
    """The storm program, static so that it runs in any container."""
    target = directory / "storm"
    subprocess.run(
        ["gcc", "-O2", "-static", "-pthread", "-o", target, PROGRAM],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    directory.chmod(0o755)
    return target


@dataclass(slots=True)
class Storm:
    """A container whose first process does what it is asked and nothing else."""

    container: str
    directory: Path
    ask_fd: int
    done_fd: int
    answers: bytes = b""
    pid: int = 0
    cgroup: Path = field(default_factory=Path)

    def begin(self, what: str, number: int) -> None:
        os.write(self.ask_fd, f"{what} {number}\n".encode())

    def finish(self, timeout_s: float = ANSWER_S) -> None:
        """Waits until the request is done."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self.answers:
            left = deadline - time.monotonic()
            assert left > 0, f"the storm in {self.container[:12]} did not end"
            if select.select([self.done_fd], [], [], left)[0]:
                self.answers += os.read(self.done_fd, 4096)
        self.answers = self.answers.partition(b"\n")[2]

    def do(self, what: str, number: int) -> None:
        self.begin(what, number)
        self.finish()

    @property
    def cgroup_id(self) -> int:
        return self.cgroup.stat().st_ino

    def usage_ns(self) -> int:
        """What the kernel has charged the container's cgroup for."""
        return cgroup_usage_ns(self.cgroup, self.pid)

    def first_process_cpu_ns(self) -> int:
        """CPU of the first process, to the nanosecond (one thread)."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text(encoding="ascii").split()[0])

    def oom_kills(self) -> int:
        name = "memory.events" if unified() else "memory.oom_control"
        for line in (self.cgroup / name).read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        raise AssertionError(f"no oom_kill in {name}")


def cgroup_path(pid: int | str, controller: str = "") -> str:
    """The path of a process's cgroup in the hierarchy of `controller`, "" for the default one."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    raise AssertionError(f"{pid} is in no {controller or 'default'} cgroup")


def cgroup_of(pid: int | str) -> Path:
    """The directory of a process's cgroup where containers are told apart."""
    path = cgroup_path(pid, "" if unified() else "memory")
    return identifying_root() / path.lstrip("/")


def cgroup_usage_ns(cgroup: Path, pid: int) -> int:
    """What the kernel has charged `cgroup` for; on v1 that of cpuacct which `pid` is in."""
    if unified():
        for line in (cgroup / "cpu.stat").read_text(encoding="ascii").splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) * 1000
    path = cgroup_path(pid, "cpuacct")
    for mount in ("cpuacct", "cpu,cpuacct"):
        file = CGROUPS / mount / path.lstrip("/") / "cpuacct.usage"
        if file.exists():
            return int(file.read_text(encoding="ascii"))
    raise AssertionError("no cpuacct")


@contextmanager
def storm(
    boxes: containers.Containers, image: str, program: Path, *options: str
) -> Iterator[Storm]:
    """A storm's container, ready for requests."""
    place = Path(tempfile.mkdtemp(prefix="so1-storm-", dir="/var/tmp"))
    fds = []
    try:
        for name in ("ask", "done"):
            os.mkfifo(place / name, 0o600)
            fds.append(os.open(place / name, os.O_RDWR))
        box = boxes.run(
            image,
            ["/storm/storm", "serve", "/ctl"],
            options=["-v", f"{program.parent}:/storm:ro", "-v", f"{place}:/ctl", *options],
        )
        pid = containers.first_pid(box)
        one = Storm(box, place, fds[0], fds[1], pid=pid, cgroup=cgroup_of(pid))
        one.do("fork", 1)
        yield one
    finally:
        for fd in fds:
            os.close(fd)
        shutil.rmtree(place)


@dataclass(frozen=True, slots=True)
class Told:
    """What /proc says of one process."""

    start_ticks: int
    cgroup: int


def processes() -> dict[int, Told]:
    """Every process of the host with the inode of its cgroup's directory."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            # Some sandboxes keep their own first process out of everybody's sight, root's too.
            (entry / "ns" / "pid").readlink()
            state, *fields = stat.rpartition(")")[2].split()
            if state in "ZX" and not unified():
                continue  # v1 says "/" of what has ended (kernel/cgroup/cgroup.c: proc_cgroup_show)
            directory = cgroup_of(entry.name)
            start = int(fields[18])
            found[int(entry.name)] = Told(start, directory.stat().st_ino)
        except OSError:
            continue
    return found


def programs_there(ids: list[int]) -> list[int]:
    """Those of the kernel's BPF programs in `ids` that exist, by bpftool."""
    if shutil.which("bpftool") is None:
        pytest.skip("needs bpftool")
    there = []
    for one in ids:
        done = subprocess.run(["bpftool", "prog", "show", "id", str(one)], capture_output=True)
        if done.returncode == 0:
            there.append(one)
    return there


def program_ids(pid: int | str = "self") -> list[int]:
    """The BPF programs that a process holds descriptors of (`prog_id` in fdinfo)."""
    ids = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = entry.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        ids += [int(line.split()[1]) for line in lines if line.startswith("prog_id:")]
    return sorted(set(ids))
