"""The host's own figures: CPU over the last interval, load, pressure; and whether we are root."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

from agent.errors import PrivilegeError
from agent.model.host import HostFigures
from agent.sources import procfs

_SOME_AVG10 = re.compile(rb"^some avg10=(\d+(?:\.\d+)?)", re.MULTILINE)


class HostProbe:
    """Reads the host's figures once a tick; CPU is what was used since the reading before."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._before = _busy_and_total()

    def read(self) -> HostFigures:
        """Figures over the interval since the last call (or since the probe was made)."""
        busy, total = _busy_and_total()
        busy_before, total_before = self._before
        self._before = (busy, total)
        elapsed = total - total_before
        usage = 100.0 * (busy - busy_before) / elapsed if elapsed > 0 else 0.0
        return HostFigures(
            cpu_usage_percent=min(100.0, max(0.0, usage)),
            cpu_count=os.cpu_count() or 1,
            load1=os.getloadavg()[0],
            psi_memory_some_avg10=self._pressure("memory"),
            psi_cpu_some_avg10=self._pressure("cpu"),
        )

    def _pressure(self, resource: str) -> float | None:
        """`some avg10` of /proc/pressure (Documentation/accounting/psi.rst), None without PSI."""
        try:
            text = procfs.read(f"{self._proc}/pressure/{resource}")
        except OSError:
            return None
        found = _SOME_AVG10.search(text)
        return float(found[1]) if found else None


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
