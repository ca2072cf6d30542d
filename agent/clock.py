"""The two clocks: the wall for people and rows, the boot clock for intervals and process starts.

The boot clock goes on while the machine sleeps and is never set, which is why every duration and
every process start in this program is on it.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the agent needs of time; tests pass their own."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""

    def boot_ns(self) -> int:
        """Nanoseconds since boot, suspension included (`CLOCK_BOOTTIME`)."""


class SystemClock:
    """The kernel's own clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
