"""What the adversarial table looks with: the agent's answer on one side, a shell's on the other.

The oracle knows a container's processes from `find` and `cgroup.procs` alone, in the hierarchy that
a person would look in (the only one on v2, the memory controller's on v1), and what a test did by
hand from the test. Nothing of it comes from the agent.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.analysis.attribution import attribute
from agent.clock import SystemClock
from agent.engine_api.address import Address
from agent.model.attribution import AttributedProcess, Attribution
from agent.model.container import Container
from agent.model.process import ProcessKey, Snapshot
from agent.sources.cgroup import reader as cgroups
from agent.sources.engine.inventory import Engine
from tests import containers

Reader = Callable[[], Snapshot]
Second = Callable[[], Mapping[ProcessKey, int] | None]


def identifying_root() -> Path:
    """Where a person looks for a container's processes."""
    root = Path("/sys/fs/cgroup")
    return root if (root / "cgroup.controllers").exists() else root / "memory"


def directories() -> list[Path]:
    """Every cgroup of that hierarchy, by find."""
    found = subprocess.run(
        ["find", identifying_root(), "-type", "d"], capture_output=True, text=True, check=False
    )
    return [Path(line) for line in found.stdout.splitlines()]


def directories_of(container_id: str, among: Sequence[Path] | None = None) -> list[Path]:
    """All directories with the id in their names."""
    found = directories() if among is None else among
    return [path for path in found if container_id in path.name]


def directory_of(container_id: str) -> Path:
    """The container's own directory: the one with its first process, else that nearest the root."""
    return _real_one(directories_of(container_id), containers.first_pid(container_id))


def _real_one(directories: Sequence[Path], first: int) -> Path:
    root, cgroup = identifying_root(), _cgroup_of(first)
    return min(
        directories,
        key=lambda path: (f":/{path.relative_to(root)}" not in cgroup, len(path.parts)),
    )


def pids_below(directory: Path, among: Sequence[Path] | None = None) -> set[int]:
    """Every process in a cgroup and below, from `cgroup.procs`. Kernel threads are none."""
    found = directories() if among is None else among
    texts = (
        text_of(path / "cgroup.procs")
        for path in found
        if path == directory or directory in path.parents
    )
    return {pid for text in texts for pid in map(int, text.split()) if pid > 0}


def running() -> list[str]:
    """Full ids of what Docker says is running."""
    return containers.docker("ps", "-q", "--no-trunc").split()


def first_pids() -> dict[str, int]:
    """Full id → first process, of what is running."""
    # One command for all: a client takes half a second to start under emulation. It fails where
    # a container is gone meanwhile, and tells of the others all the same.
    told = subprocess.run(
        ["docker", "inspect", "--format", "{{.Id}} {{.State.Pid}}", *running()],
        capture_output=True,
        text=True,
        check=False,
    )
    pairs = (line.split() for line in told.stdout.splitlines() if line)
    return {container_id: int(pid) for container_id, pid in pairs if pid != "0"}


def state_of(pid: int) -> str:
    """The letter of a process's state, "" where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text[text.rindex(")") + 2]


def move(pid: int, directory: Path) -> None:
    """By hand, as root would: in the identifying hierarchy."""
    (directory / "cgroup.procs").write_text(str(pid), encoding="ascii")


@contextmanager
def moved_below(pid: int, directory: Path, names: Sequence[str]) -> Iterator[None]:
    """A process in the last of directories one inside the other, whose path may be too long."""
    opened = [os.open(directory, os.O_RDONLY)]
    try:
        for name in names:
            os.mkdir(name, dir_fd=opened[-1])
            opened.append(os.open(name, os.O_RDONLY, dir_fd=opened[-1]))
        _move_at(pid, opened[-1])
        yield
    finally:
        _move_at(pid, opened[0])
        for parent, name in reversed(list(zip(opened, names, strict=False))):
            os.rmdir(name, dir_fd=parent)
        for descriptor in opened:
            os.close(descriptor)


def _move_at(pid: int, directory: int) -> None:
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=directory)
    os.write(procs, str(pid).encode("ascii"))
    os.close(procs)


@contextmanager
def host_cgroup() -> Iterator[Path]:
    """A cgroup that is no container's. What is left in it at the end is killed."""
    directory = identifying_root() / f"so1test-elsewhere-{uuid.uuid4().hex[:6]}"
    directory.mkdir()
    try:
        yield directory
    finally:
        for pid in pids_below(directory):
            subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)
        containers.wait_until(lambda: not pids_below(directory), "the strays are gone")
        directory.rmdir()


@dataclass(frozen=True, slots=True)
class Told:
    """What the agent says of one process."""

    container: str
    basis: str


def _address() -> str:
    """The shared engine; SO1_TEST_KIND says of what kind: podman answers docker's client too."""
    kind = os.environ.get("SO1_TEST_KIND", "docker")
    return containers.HOST if kind == "docker" else Address(containers.HOST, kind)


@dataclass(slots=True)
class Host:
    """The agent's parts, put together as its service does; what one look learns serves the next.

    `readers` are the process sources, each asked at every look.
    """

    readers: Mapping[str, Reader]
    second: Second = lambda: None
    engine: Engine = field(default_factory=lambda: Engine(_address(), SystemClock()))
    layout: cgroups.CgroupLayout = field(default_factory=cgroups.detect)
    looks: int = 0
    rows: int = 0
    asked_again: int = 0

    def attribution(self, reader: Reader) -> Attribution:
        """One answer; Docker is asked once more for cgroups that nobody knows."""
        found, _ = self._once(reader, frozenset())
        if found.unknown_cgroups:
            self.asked_again += 1
            found, _ = self._once(reader, found.unknown_cgroups)
        return found

    def _once(
        self, reader: Reader, unknown: frozenset[int]
    ) -> tuple[Attribution, tuple[Container, ...]]:
        snapshot = reader()
        listing = self.engine.list()
        view = cgroups.read(self.layout, listing.containers, unknown)
        return attribute(snapshot, view, listing.containers, self.second()), listing.containers

    def told(self, reader: Reader) -> dict[int, Told]:
        """pid → what the agent says of it."""
        found = self.attribution(reader)
        self.looks += 1
        self.rows += len(found.rows)
        assert len({row.process.pid for row in found.rows}) == len(found.rows), (
            "a pid is there twice"
        )
        return {row.process.pid: _told(row) for row in found.rows}

    def check(
        self,
        *,
        extra: Mapping[int, Told] | None = None,
        basis: Mapping[int, str] | None = None,
        absent: Sequence[int] = (),
        owner: Callable[[str], str] = lambda container: container,
        others: Mapping[str, Path] | None = None,
    ) -> None:
        """Every source's rows against the oracle: none wrong, none missing, on the whole host.

        `extra` are processes outside their container's cgroup and what is to be said of them,
        `basis` exact answers for some of the rest, `absent` pids that are nobody's, `others` the
        directories of containers that Docker does not know. A process counts when it is there both
        before and after the look.
        """
        wanted = dict(extra or {})
        for name, reader in self.readers.items():
            before = oracle(others or {})
            told = self.told(reader)
            after = oracle(others or {})
            stayed = {pid: box for pid, box in before.items() if after.get(pid) == box}
            for pid, box in stayed.items():
                assert pid in told, f"{name}: {pid} of {box[:12]} is missing: {_cgroup_of(pid)}"
                assert told[pid].container == owner(box), f"{name}: {pid} is not {box[:12]}'s"
            for pid, one in wanted.items():
                assert told.get(pid) == one, f"{name}: {pid} is {told.get(pid)}, not {one}"
            for pid, exact in (basis or {}).items():
                assert told[pid].basis == exact, f"{name}: {pid} is {told[pid]}, not {exact}"
            for pid in absent:
                assert pid not in told, f"{name}: {pid} is nobody's, not {told[pid]}"
            for pid, one in told.items():
                assert is_explained(pid, one, before, after, wanted), f"{name}: {pid} is {one}"

    def close(self) -> None:
        self.engine.close()


def is_explained(
    pid: int,
    told: Told,
    before: Mapping[int, str],
    after: Mapping[int, str],
    wanted: Mapping[int, Told],
) -> bool:
    """Whether a row is right by the oracle: there before or after, made by hand, a zombie of that
    container, or a process that came and went between the two looks."""
    if pid in wanted or told.container in (before.get(pid), after.get(pid)):
        return True
    state = state_of(pid)
    if told.container not in running() or state == "Z":
        # Another engine's on this host, by the name of its cgroup; or a zombie, which
        # cgroup.procs does not list.
        # cgroup v1 shows the root for what has ended; the parent that has not reaped it stays.
        known = _cgroup_of(pid) + (_cgroup_of(_parent_of(pid)) if state == "Z" else "")
        # Or it has ended while it was looked at.
        now = state_of(pid)
        return told.container in known or now == "" or (now == "Z" and state != "Z")
    return state == "" and pid not in before and pid not in after


def oracle(others: Mapping[str, Path]) -> dict[int, str]:
    """pid → full id of its container."""
    found = {}
    everywhere = directories()
    place = {
        container_id: _real_one(own, first_pid)
        for container_id, first_pid in first_pids().items()
        if (own := directories_of(container_id, everywhere))
    }
    # One container's cgroup may lie inside another's. On v2 it is a threaded one then, which lists
    # no processes: the outer one's list has them, and only the path of each tells.
    for container_id in sorted(place, key=lambda one: len(place[one].parts)):
        for pid in pids_below(place[container_id], everywhere):
            found[pid] = container_id
            for inner, directory in place.items():
                if place[container_id] in directory.parents and inner in _cgroup_of(pid):
                    found[pid] = inner
    for container_id, directory in others.items():
        found.update(dict.fromkeys(pids_below(directory), container_id))
    return found


def _cgroup_of(pid: int) -> str:
    return text_of(Path(f"/proc/{pid}/cgroup"))


def _parent_of(pid: int) -> int:
    fields = text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def text_of(path: Path) -> str:
    """ "" where it cannot be read: the process or the cgroup is gone."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _told(row: AttributedProcess) -> Told:
    return Told(row.container_id, str(row.basis))


def settled(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition holds throughout: for what must not change."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.2)
    return True
