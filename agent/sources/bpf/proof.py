"""Whether the probes see this kernel: what they know right after their start against `/proc`.

Programs that were made for another kernel load without an error and find no process, or find
processes that are none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from agent.clock import BOOT_OFFSET_NS

TICK_NS = 10_000_000
"""The kernel's `USER_HZ` of 100: `/proc` tells starts in hundredths of a second."""

_HIDDEN = 2
"""Some sandboxes keep their first process out of everybody's sight."""


def processes() -> dict[int, int]:
    """Start, in clock ticks since boot, of every process that `/proc` shows, by its pid."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                stat = Path("/proc", name, "stat").read_bytes()
                start = int(stat.rpartition(b")")[2].split()[19])
                # In the host's boot clock, also where the reader is in a time namespace.
                found[int(name)] = (start * TICK_NS - BOOT_OFFSET_NS) // TICK_NS
    return found


def problem(
    before: Mapping[int, int], known: Mapping[int, AbstractSet[int]], after: Mapping[int, int]
) -> str:
    """What is wrong with `known` (starts in clock ticks by pid), "" where it will do.

    `before` and `after` are two readings around it: who is in both was there in between.
    """
    stayed = {pid: start for pid, start in before.items() if after.get(pid) == start}
    unseen = sum(start not in known.get(pid, ()) for pid, start in stayed.items())
    if unseen > _HIDDEN + len(stayed) // 50 or 2 * unseen > len(stayed):
        return f"{len(stayed) - unseen} of {len(stayed)} are known to them"
    return ""
