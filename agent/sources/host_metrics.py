"""The host's own figures: CPU time, load, pressure, free memory; and whether we are root."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

from agent.errors import PrivilegeError, SourceError
from agent.model.host import HostCounters
from agent.sources import procfs

_SOME_AVG10 = re.compile(rb"^some avg10=(\d+(?:\.\d+)?)", re.MULTILINE)


def read(proc: Path = Path("/proc")) -> HostCounters:
    """The host's counters and figures at this moment."""
    busy_s, total_s = _busy_and_total()
    return HostCounters(
        cpu_busy_s=busy_s,
        cpu_total_s=total_s,
        cpu_count=os.cpu_count() or 1,
        load1=os.getloadavg()[0],
        psi_memory_some_avg10=_pressure(proc, "memory"),
        psi_cpu_some_avg10=_pressure(proc, "cpu"),
    )


def _pressure(proc: Path, resource: str) -> float | None:
    """`some avg10` of /proc/pressure (Documentation/accounting/psi.rst), None without PSI."""
    try:
        text = procfs.read(f"{proc}/pressure/{resource}")
    except OSError:
        return None
    found = _SOME_AVG10.search(text)
    return float(found[1]) if found else None


def require_whole_proc(proc: Path = Path("/proc")) -> None:
    """Raises SourceError where `proc` does not tell of the host (mounted with `subset=pid`)."""
    problem, hint = procfs.partial_problem(f"{proc}")
    if problem:
        raise SourceError(problem, hint)


def available_kb() -> int:
    """Memory that new work could have without swapping (`MemAvailable`), KB."""
    return int(psutil.virtual_memory().available) // 1024


def require_root(command: str) -> None:
    """Raises PrivilegeError where the caller is not root."""
    if os.geteuid() != 0:
        raise PrivilegeError(f"`{command}` needs root.", f"Run `sudo {command}`.")


def _busy_and_total() -> tuple[float, float]:
    times = psutil.cpu_times()
    # guest and guest_nice are already in user and nice (proc(5)).
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    return total - idle, total
