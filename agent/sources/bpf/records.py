"""The records that the BPF programs keep, as `kernel/bpf/records.h` lays them out.

One `struct.Struct` a record, in native byte order and with every hole named, so that a map's bytes
can be unpacked in one sweep. A test compiles the header and compares sizes and offsets.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

PROCESS_KEY = struct.Struct("=IIQ")
PROCESS_RECORD = struct.Struct("=9QII4B4x")
PROCESS_PLACE = struct.Struct("=4Q8xQ8xQQII8x")
"""start_ns, cgroup_id, pointer_id, base_cpu_ns, exit_cpu_ns, ended, released, pid and
spills of a
`PROCESS_RECORD`: what a tick needs."""
GENERATION = struct.Struct("=Q")
CGROUP_KEY = struct.Struct("=Q")
CGROUP_RECORD = struct.Struct("=10QII")
CPU_COUNTERS = struct.Struct("=11Q")
CONTROL = struct.Struct("=Q")
EVENT_COMM = 16
EVENT_TEXT = 80
EVENT_LONG_TEXT = 4160
EXIT = struct.Struct(f"=8QIIIiBBBBI{EVENT_COMM}s{EVENT_COMM}s")
OOM_LEVELS = 8
OOM_FRAMES = 24
OOM_NAME = 80
CGROUP_NAME_SIZE = 256
CGROUP_NAME = struct.Struct(f"=3QII{CGROUP_NAME_SIZE}s")
OOM_KNOWS_VICTIM, OOM_KNOWS_MEMORY, OOM_KNOWS_LEVELS = 1, 2, 4
OOM_LEVEL = struct.Struct(f"=6Q{OOM_NAME}s")
OOM = struct.Struct(
    f"=6Q4q3I2i3I{EVENT_COMM}s{EVENT_COMM}s{OOM_NAME}s"
    f"{8 * OOM_FRAMES}s{OOM_LEVELS * OOM_LEVEL.size}s"
)
EVENT = struct.Struct(f"=QQQQIIIiII{EVENT_COMM}s{EVENT_TEXT}s")
LONG_EVENT = struct.Struct(f"=QQQQIIIiII{EVENT_COMM}s{EVENT_LONG_TEXT}s")
"""`struct long_event`, its text in one piece."""

PROCESS_KEY_FIELDS = ("pid", "reserved", "start_ns")


class ProcessRecord(NamedTuple):
    """`struct process_record`."""

    start_ns: int
    cgroup_id: int
    pointer_id: int
    base_cpu_ns: int
    threads_cpu_ns: int
    exit_cpu_ns: int
    claimed: int
    ended: int
    released: int
    pid: int
    spills: int
    seen_event: int
    seen_snapshot: int
    moved: int
    base_partial: int


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
    short_exits: int
    born: int
    gone: int


class CpuCounters(NamedTuple):
    """`struct cpu_counters`, of one CPU or summed."""

    lost_processes: int = 0
    lost_cgroups: int = 0
    lost_events: int = 0
    corrected: int = 0
    late: int = 0
    exits: int = 0
    seam_both: int = 0
    seam_snapshot: int = 0
    ooms: int = 0
    names: int = 0
    long_names: int = 0


class EventKind(IntEnum):
    """`enum event_kind`."""

    FORK = 1
    EXEC = 2
    EXIT = 3
    ATTACH = 4
    MKDIR = 5
    RMDIR = 6
    OOM = 7


class ExitKind(IntEnum):
    """`enum exit_kind`."""

    WHOLE = 1
    REST = 2


class ExitRecord(NamedTuple):
    """`struct exit_record`."""

    sequence: int
    start_ns: int
    parent_start_ns: int
    cgroup_id: int
    ended_ns: int
    cpu_ns: int
    charged_ns: int
    max_rss_pages: int
    cpu: int
    pid: int
    ppid: int
    exit_code: int
    kind: int
    oom: int
    short_lived: int
    moved: int
    reserved: int
    comm: bytes
    parent_comm: bytes


class CgroupNameRecord(NamedTuple):
    """`struct cgroup_name`."""

    sequence: int
    cgroup_id: int
    maker_id: int
    cpu: int
    uid: int
    name: bytes


class OomLevel(NamedTuple):
    """`struct oom_level`."""

    cgroup_id: int
    used_pages: int
    max_pages: int
    memsw_used_pages: int
    memsw_max_pages: int
    oom_events: int
    name: bytes


class OomRecord(NamedTuple):
    """`struct oom_record`; `stack` and `level` are arrays that are not unpacked."""

    sequence: int
    marked_ns: int
    start_ns: int
    cgroup_id: int
    trigger_start_ns: int
    trigger_cgroup_id: int
    file_pages: int
    anon_pages: int
    swap_pages: int
    shmem_pages: int
    cpu: int
    pid: int
    trigger_pid: int
    oom_score_adj: int
    exit_code: int
    known: int
    levels: int
    frames: int
    comm: bytes
    trigger_comm: bytes
    trigger_cgroup: bytes
    stack: bytes
    level: bytes


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
