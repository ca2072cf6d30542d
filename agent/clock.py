"""The two clocks: the wall for people and rows, the boot clock for intervals and process starts.

The boot clock goes on while the machine sleeps and is never set, which is why every duration and
every process start in this program is on it.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

_BOOT_CLOCK = (b"boottime", b"7")  # by its number before Linux 5.7


def boot_offset_ns(text: bytes) -> int:
    """By how much a time namespace shifts the boot clock, of what `timens_offsets` says."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in _BOOT_CLOCK:
            return int(words[1]) * 10**9 + int(words[2])
    return 0


def _own_offset_ns() -> int:
    """That of the time namespace that we are in ourselves (time_namespaces(7)); 0 on the host.

    Clocks and the starts in `/proc` are shown to us with it, the modules and BPF know none. The
    file tells of the namespace of our children, which is ours unless somebody just made it again.
    """
    try:
        own, childrens = (
            os.readlink(f"/proc/self/ns/{name}") for name in ("time", "time_for_children")
        )
        if own != childrens:
            return 0
        with open("/proc/self/timens_offsets", "rb") as file:
            return boot_offset_ns(file.read())
    except (OSError, ValueError):
        return 0


BOOT_OFFSET_NS = _own_offset_ns()
"""What has to be taken off a boot-clock time that the kernel shows us to have the host's."""


class Clock(Protocol):
    """What the agent needs of time; tests pass their own."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""

    def boot_ns(self) -> int:
        """Nanoseconds since the host's boot, suspension included (`CLOCK_BOOTTIME`)."""


class SystemClock:
    """The kernel's own clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - BOOT_OFFSET_NS
