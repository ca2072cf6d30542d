"""Processes beside a container's own: in its namespaces, its cgroup, or made there by clone3."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import containers
from tests.attribution_support import directory_of, pids_below, state_of

_CLONE3 = 435


@contextmanager
def beside(*argv: str, needs: Callable[[int], bool] | None = None) -> Iterator[int]:
    """A host process that runs while the block does; its pid. `needs` says when it is ready."""
    program = shutil.which(argv[0])
    assert program, f"{argv[0]} is not installed"
    process = subprocess.Popen(
        [program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        if needs is not None:
            containers.wait_until(lambda: needs(process.pid), f"{argv} is ready")
        yield process.pid
    finally:
        killed = [*descendants(process.pid), process.pid]
        for pid in killed:
            subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)
        process.wait(timeout=30)
        # On a busy host one that was killed lives on for a moment, and who looks next sees it.
        containers.wait_until(
            lambda: all(state_of(pid) in ("", "Z") for pid in killed), f"{killed} have ended"
        )


def descendants(pid: int) -> list[int]:
    """Pids below `pid`, by ps, nearest first."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [pid]
    for one in found:
        found += [child for child, parent in parents if parent == one]
    return found[1:]


def child_of(pid: int) -> int:
    """The one child of `pid`, once it is there."""
    (child,) = containers.wait_until(lambda: descendants(pid)[:1], f"{pid} has a child")
    return int(child)


def host_pid_inside(container_id: str, marker: str) -> int:
    """The host's pid of the process in a container whose command line holds `marker`."""

    def find() -> int:
        for pid in pids_below(directory_of(container_id)):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marker.encode() in words:
                return pid
        return 0

    return int(containers.wait_until(find, f"{marker} runs in {container_id[:12]}"))


class CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def clone_at(pid: int) -> None:
    """Runs as a program of its own: a child that sleeps with exactly this pid (clone3, set_tid)."""
    wanted = (ctypes.c_int32 * 1)(pid)
    args = CloneArgs(exit_signal=17, set_tid=ctypes.addressof(wanted), set_tid_size=1)
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.syscall(_CLONE3, ctypes.byref(args), ctypes.sizeof(args))
    if made == 0:
        os.execv("/bin/sleep", ["sleep", "9999"])
    if made < 0:
        raise OSError(ctypes.get_errno(), f"clone3 with pid {pid}")
    os.waitpid(made, 0)


@contextmanager
def process_at(pid: int, cgroup: Path | None = None) -> Iterator[None]:
    """A sleeping process with this very pid, in `cgroup` where one is given."""
    assert state_of(pid) == "", f"{pid} is still taken"
    enter = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0'); " if cgroup else ""
    code = f"{enter}from tests.attribution_processes import clone_at; clone_at({pid})"
    maker = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], start_new_session=True
    )
    try:
        containers.wait_until(
            lambda: is_sleep(pid) or maker.poll() is not None, f"a process with pid {pid}"
        )
        assert maker.poll() is None, "clone3 was refused"
        yield
    finally:
        subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)
        maker.wait(timeout=30)
        containers.wait_until(lambda: state_of(pid) == "", f"{pid} is gone")


def is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x009999\0"
    except OSError:
        return False
