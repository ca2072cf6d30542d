"""What the tests of the kernel modules look with: scenes of processes, and procfs as the oracle.

Nothing here knows the agent. Figures come as procfs prints them, in its own units.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import selectors
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYSINFO = Path("/proc/sysinfo_so1_202300539")
CONTINFO = Path("/proc/continfo_so1_202300539")
MODULES = ("sysinfo", "continfo")

LINUX = tuple(int(part) for part in platform.release().split(".")[:2])
"""The running kernel's version, such as (6, 12)."""

_PROGRAMS = Path(__file__).parent / "programs"
_SCENE_TIMEOUT_S = 240.0

Row = dict[str, Any]


@functools.cache
def program(name: str) -> str:
    """The path of programs/NAME.c, compiled."""
    # Not /tmp: the pages of a program on tmpfs count as shared memory.
    directory = Path(tempfile.mkdtemp(prefix="so1-scene-", dir="/var/tmp"))
    directory.chmod(0o755)
    target = directory / name
    subprocess.run(
        ["gcc", "-O1", "-pthread", "-o", target, _PROGRAMS / f"{name}.c"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return str(target)


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene that stands: `lines` is what it printed, words split, before `ready`."""

    lines: tuple[tuple[str, ...], ...]
    process: subprocess.Popen[bytes]

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(int(words[0]) for words in self.lines)

    @property
    def pid(self) -> int:
        (pid,) = self.pids
        return pid


@contextmanager
def scene(name: str, *args: object, prefix: tuple[str, ...] = ()) -> Iterator[Scene]:
    """Set up the scene `name` of programs/scene.c, under `prefix` (as `unshare`) where given."""
    with standing([*prefix, program("scene"), name, *map(str, args)]) as scene:
        yield scene


@contextmanager
def standing(command: list[str]) -> Iterator[Scene]:
    """A program that prints what it set up, then `ready`, and ends with its standard input."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        try:
            yield Scene(_lines_until_ready(process), process)
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def _lines_until_ready(process: subprocess.Popen[bytes]) -> tuple[tuple[str, ...], ...]:
    assert process.stdout is not None
    deadline = time.monotonic() + _SCENE_TIMEOUT_S
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not text.endswith(b"ready\n"):
            assert selector.select(deadline - time.monotonic()), f"no scene after {text[-200:]!r}"
            more = os.read(process.stdout.fileno(), 1 << 16)
            assert more, f"the scene ended: {text[-200:]!r}"
            text += more
    return tuple(tuple(line.split()) for line in text.decode().splitlines()[:-1])


def sysinfo() -> Row:
    """The whole object of sysinfo."""
    found: dict[str, Any] = json.loads(SYSINFO.read_bytes())
    return found


def processes() -> dict[int, Row]:
    """sysinfo's processes by PID; a PID that is there twice is an error."""
    return _by_pid(sysinfo()["processes"])


def candidates() -> dict[int, Row]:
    """continfo's processes by PID."""
    return _by_pid(json.loads(CONTINFO.read_bytes()))


def _by_pid(rows: list[Row]) -> dict[int, Row]:
    found = {row["pid"]: row for row in rows}
    assert len(found) == len(rows), "a PID is there twice"
    return found


def rmmod(name: str) -> None:
    """Unload it, as soon as no reader is just being copied to."""

    def attempt() -> None:
        done = subprocess.run(["rmmod", name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    eventually(attempt)


def host_pids() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}


def fields(pid: int, file: str) -> dict[str, str]:
    """`/proc/PID/FILE` of the kind `Name: value`; empty where the process is gone."""
    try:
        text = Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {
        name: value.strip() for name, _, value in (line.partition(":") for line in text.split("\n"))
    }


def kilobytes(pid: int, file: str, *names: str) -> tuple[int, ...] | None:
    """Those fields in kB; None where the process has no address space or is gone."""
    found = fields(pid, file)
    if any(name not in found for name in names):
        return None
    return tuple(int(found[name].split()[0]) for name in names)


def stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the third (state) on; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def threads(pid: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()}


def scheduler_ns(pid: int) -> int:
    """Time on a CPU of the living threads, from their schedstat."""
    return sum(
        int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        for thread in threads(pid)
    )


def cpu_clock_ns(pid: int) -> int:
    """Time on a CPU of the whole process, ended threads included (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def namespace(pid: int | str, kind: str) -> int | None:
    """The number in `/proc/PID/ns/KIND`; None where the process has none any more."""
    try:
        link = str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except (FileNotFoundError, ProcessLookupError):
        return None
    match = re.fullmatch(r"\w+:\[(\d+)\]", link)
    assert match, link
    return int(match[1])


def cgroup_hierarchies() -> dict[str, Path]:
    """Where the default hierarchy (``""``) and each v1 controller are mounted."""
    found: dict[str, Path] = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.setdefault("", Path(where))
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, Path(where))
    return found


def cgroup_inode(pid: int, controller: str) -> int | None:
    """Inode of the directory that `pid` is in, of the default hierarchy (``""``) or a v1 one."""
    mount = cgroup_hierarchies().get(controller)
    if mount is None:
        return None
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return (mount / path.lstrip("/")).stat().st_ino
    return None


def eventually(check: Callable[[], None], timeout_s: float = 240) -> None:
    """Run `check` until it raises no AssertionError; its last one when the time is over.

    For what others on the host may change between two looks.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
