"""(a) A whole process snapshot with the same fields: the modules, psutil, and `/proc` by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from agent.clock import SystemClock
from agent.sources import modules as proc_modules
from bench.measure import IncompleteError, Row, Timing, ratio, timed

SYSINFO = Path("/proc/sysinfo_so1_202300539")
CONTINFO = Path("/proc/continfo_so1_202300539")
_GONE_S = 120.0
NOT_LOADED = "the modules are not loaded, so nothing of theirs is in it (bash/load_modules.sh)"
COUNTS = (100, 1_000, 5_000, 10_000)


@contextmanager
def crowd(wanted: int) -> Iterator[None]:
    """At least `wanted` processes on this host while the block runs: a shell's children."""
    before = count()
    missing = max(0, wanted - before)
    # Forks alone, each waiting for a line that never comes: starting a program as well would take
    # an emulated CPU half an hour.
    script = (
        f"exec 3<&0; i=0; while [ $i -lt {missing} ]; do (read -r _ <&3) & i=$((i+1)); done; "
        "echo up; wait"
    )
    shell = subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert shell.stdout is not None
        shell.stdout.readline()
        yield
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        # Thousands of orphans take their time; they must not be counted into the next crowd.
        deadline = time.monotonic() + _GONE_S
        while missing > 50 and count() > before + 50 and time.monotonic() < deadline:
            time.sleep(0.2)


def measure(wanted: int, repetitions: int) -> list[Row]:
    """A snapshot of at least `wanted` processes by each way.

    Raises IncompleteError with the others where the modules are not loaded.
    """
    rows: list[Row] = []
    clock = SystemClock()
    with crowd(wanted):
        present = count()
        few = max(2, repetitions // (1 + wanted // 1000))
        # What takes a minute in a guest is as warm as it gets after its first second.
        warm = wanted <= 1_000
        whole = None
        if SYSINFO.exists():
            whole = timed(lambda: proc_modules.read(SYSINFO, CONTINFO, clock), repetitions)
            text = timed(read_modules, repetitions)
            rows.append(_row(present, "modules: read and decode", whole, None))
            rows.append(_row(present, "modules: read alone", text, None))
        by_hand = timed(_by_hand, few, warm=warm)
        by_psutil = timed(psutil_snapshot, few, warm=warm)
    rows.append(_row(present, "psutil, same fields", by_psutil, whole))
    rows.append(_row(present, "/proc by hand", by_hand, whole))
    if whole is None:
        raise IncompleteError(NOT_LOADED, rows)
    return rows


def _row(present: int, what: str, timing: Timing, modules: Timing | None) -> Row:
    times = ratio(timing, modules) if modules else None
    return Row(
        "a",
        f"{present} processes · {what}",
        timing,
        ratio=times,
        against="modules" if times else "",
    )


def count() -> int:
    """How many processes this host has."""
    return len(list(_pids()))


def read_modules() -> None:
    """`cat` of both files, into memory."""
    _slurp(SYSINFO)
    _slurp(CONTINFO)


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _slurp(path: Path) -> bytes:
    """`cat` of a file, into memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


_FIELDS = [
    "pid", "name", "status", "ppid", "num_threads", "create_time", "cpu_times", "memory_info",
]  # fmt: skip


def psutil_snapshot() -> int:
    """The module's fields as far as psutil has them, and the cgroup that it is missing."""
    found = 0
    for process in psutil.process_iter(_FIELDS):
        try:
            Path(f"/proc/{process.pid}/cgroup").read_text(encoding="ascii")
        except OSError:
            continue
        found += 1
    # process_iter keeps its objects: the next call must look at every process again, as this one.
    psutil.process_iter.cache_clear()
    return found


def _by_hand() -> int:
    """The fewest files that hold the same: stat, statm and cgroup of each process."""
    found = 0
    for pid in _pids():
        try:
            for name in ("stat", "statm", "cgroup"):
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    file.read()
        except OSError:
            continue
        found += 1
    return found
