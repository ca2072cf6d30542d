"""The records that the BPF programs keep, as `kernel/bpf/records.h` lays them out.

One `struct.Struct` a record, in native byte order and with every hole named, so that a map's bytes
can be unpacked in one sweep. A test compiles the header and compares sizes and offsets.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

PROCESS_KEY = struct.Struct("=IIQ")
PROCESS_KEY_ALONE = struct.Struct("=I4xQ")
"""The pid and start_ns of a `PROCESS_KEY`."""
PROCESS_RECORD = struct.Struct("=QQQQBBBBB3x")
PROCESS_PLACE = struct.Struct("=QQ8xQ2xB5x")
"""The cgroup_id, base_cpu_ns, exit_cpu_ns and exited of a `PROCESS_RECORD`: what a tick wants."""
CGROUP_KEY = struct.Struct("=Q")
CGROUP_RECORD = struct.Struct("=9QII")
CPU_COUNTERS = struct.Struct("=6Q")
CONTROL = struct.Struct("=Q")
EVENT_COMM = 16
EVENT_TEXT = 80
EVENT_LONG_TEXT = 4160
EVENT = struct.Struct(f"=QQQQIIIiII{EVENT_COMM}s{EVENT_TEXT}s")
LONG_EVENT = struct.Struct(f"=QQQQIIIiII{EVENT_COMM}s{EVENT_LONG_TEXT}s")
"""`struct long_event`, its text in one piece."""

PROCESS_KEY_FIELDS = ("pid", "reserved", "start_ns")


class ProcessRecord(NamedTuple):
    """`struct process_record`."""

    cgroup_id: int
    base_cpu_ns: int
    threads_cpu_ns: int
    exit_cpu_ns: int
    seen_event: int
    seen_snapshot: int
    exited: int
    short_lived: int
    moved: int


class CgroupRecord(NamedTuple):
    """`struct cgroup_record`."""

    parent_id: int
    forks: int
    execs: int
    exits: int
    oom_kills: int
    moved_in: int
    moved_out: int
    cpu_short_ns: int
    cpu_ended_ns: int
    born: int
    gone: int


class CpuCounters(NamedTuple):
    """`struct cpu_counters`, of one CPU or summed."""

    lost_processes: int = 0
    lost_cgroups: int = 0
    lost_events: int = 0
    mended: int = 0
    seam_both: int = 0
    seam_snapshot: int = 0


class EventKind(IntEnum):
    """`enum event_kind`."""

    FORK = 1
    EXEC = 2
    EXIT = 3
    ATTACH = 4
    MKDIR = 5
    RMDIR = 6
    OOM = 7


class EventRecord(NamedTuple):
    """`struct event`, or `struct long_event` with all of its text."""

    time_ns: int
    start_ns: int
    cgroup_id: int
    other_id: int
    kind: int
    pid: int
    ppid: int
    exit_code: int
    oom: int
    cut: int
    comm: bytes
    text: bytes


def c_text(raw: bytes) -> str:
    """The text before the first NUL; bytes that are not UTF-8 become U+FFFD."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
