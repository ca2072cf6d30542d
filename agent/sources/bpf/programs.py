"""Which BPF programs there are, where they attach and what is handed over: plain data.

Shared by the helper that compiles them and by those who use what it hands over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from agent.sources.bpf import records
from agent.sources.bpf.records import EventKind


@dataclass(frozen=True, slots=True)
class Probe:
    """One function of a source file and the raw tracepoint that it attaches to."""

    tracepoint: str
    function: str


@dataclass(frozen=True, slots=True)
class ProgramSet:
    """One source file: its maps with their record sizes, its probes, its iterator if it has one."""

    source: str
    maps: Mapping[str, tuple[int, int]]
    probes: tuple[Probe, ...]
    iterator: str = ""


WITNESS = ProgramSet(
    source="witness.c",
    maps={
        "processes": (records.PROCESS_KEY.size, records.PROCESS_RECORD.size),
        "cgroups": (records.CGROUP_KEY.size, records.CGROUP_RECORD.size),
        "counters": (4, records.CPU_COUNTERS.size),
        "controls": (4, records.CONTROL.size),
    },
    probes=(
        Probe("sched_process_free", "on_free"),
        Probe("sched_process_exit", "on_exit"),
        Probe("cgroup_rmdir", "on_rmdir"),
        Probe("cgroup_mkdir", "on_mkdir"),
        Probe("cgroup_attach_task", "on_attach"),
        Probe("sched_process_exec", "on_exec"),
        Probe("sched_process_fork", "on_fork"),
    ),
    iterator="bpf_iter__task",
)

TRACE_PROBES = {
    EventKind.FORK: Probe("sched_process_fork", "trace_fork"),
    EventKind.EXEC: Probe("sched_process_exec", "trace_exec"),
    EventKind.EXIT: Probe("sched_process_exit", "trace_exit"),
    EventKind.ATTACH: Probe("cgroup_attach_task", "trace_attach"),
    EventKind.MKDIR: Probe("cgroup_mkdir", "trace_mkdir"),
    EventKind.RMDIR: Probe("cgroup_rmdir", "trace_rmdir"),
    EventKind.OOM: Probe("mark_victim", "trace_oom"),
}

TRACE = ProgramSet(
    source="trace.c",
    maps={"events": (0, 0), "counters": (4, records.CPU_COUNTERS.size)},
    probes=tuple(TRACE_PROBES.values()),
)

SETS = {"witness": WITNESS, "trace": TRACE}


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the helper is asked for."""

    programs: str
    """A key of SETS."""
    hierarchy: str
    probes: tuple[str, ...] = ()
    """Functions to attach; all where none is named."""
    macros: tuple[str, ...] = ()
    """More `-D` options."""


class Handover(msgspec.Struct, frozen=True):
    """What the helper says beside the descriptors: those of maps, then programs, then links."""

    maps: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    bcc: str = ""
    headers: str = ""
    """`own`, or `kernel` where BCC could compile only with the kernel's."""
    compile_ms: int = 0
    attach_ms: int = 0
    seam: tuple[int, int, int] = (0, 0, 0)
    """Both, snapshot only, event only."""
    failure: str = ""
    hint: str = ""
