"""Which BPF programs there are, where they attach and what is kept of a compile: plain data.

Shared by the helper that compiles them, the loader, and those who use what was loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from agent.sources.bpf import records
from agent.sources.bpf.records import EventKind


@dataclass(frozen=True, slots=True)
class Probe:
    """One function of a source file and the tracepoint that it attaches to."""

    tracepoint: str
    function: str
    typed: bool = False
    """Whether the kernel checks its accesses by type (`tp_btf`), which saves a helper call each."""


@dataclass(frozen=True, slots=True)
class ProgramSet:
    """What is compiled as one: its maps with their record sizes, its probes, its iterator."""

    sources: tuple[str, ...]
    """Files, in the order in which they are put together."""
    maps: Mapping[str, tuple[int, int]]
    probes: tuple[Probe, ...]
    iterator: str = ""
    optional: frozenset[str] = frozenset()
    """Functions without which the others are of use still."""


WITNESS = ProgramSet(
    sources=("witness.c", "births.c", "ends.c", "snapshot.c", "cgroups.c", "oom.c"),
    maps={
        "slots": (4, records.PROCESS_RECORD.size),
        "spilled": (records.PROCESS_KEY.size, records.PROCESS_RECORD.size),
        "generations": (4, records.GENERATION.size),
        "cgroups": (records.CGROUP_KEY.size, records.CGROUP_RECORD.size),
        "exits": (0, 0),
        "ooms": (0, 0),
        "names": (0, 0),
        "counters": (4, records.CPU_COUNTERS.size),
        "controls": (4, records.CONTROL.size),
    },
    probes=(
        Probe("sched_process_free", "on_free", typed=True),
        Probe("sched_switch", "on_switch", typed=True),
        Probe("cgroup_rmdir", "on_rmdir", typed=True),
        Probe("cgroup_mkdir", "on_mkdir", typed=True),
        Probe("cgroup_mkdir", "on_name", typed=True),
        Probe("cgroup_attach_task", "on_attach", typed=True),
        Probe("sched_process_exec", "on_exec", typed=True),
        Probe("sched_process_fork", "on_fork", typed=True),
        Probe("mark_victim", "on_oom", typed=True),
    ),
    iterator="on_task",
    optional=frozenset({"on_oom", "on_name"}),
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
    sources=("trace.c",),
    maps={"events": (0, 0), "counters": (4, records.CPU_COUNTERS.size)},
    probes=tuple(TRACE_PROBES.values()),
)

SETS = {"witness": WITNESS, "trace": TRACE}

ITERATOR = "iterator"
"""Stands for a tracepoint's name where a program is the task iterator."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for."""

    programs: str
    """A key of SETS."""
    hierarchy: str
    probes: tuple[str, ...] = ()
    """Functions to attach; all where none is named."""
    macros: tuple[str, ...] = ()
    """More `-D` options. What is compiled with any is not kept."""


class MapSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What BPF_MAP_CREATE needs."""

    name: str
    kind: int
    """`enum bpf_map_type`."""
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One program's instructions, before the maps have descriptors."""

    function: str
    tracepoint: str
    """Or ITERATOR."""
    btf_id: int
    """The kernel's type that it attaches to; 0 for a program without types."""
    code: bytes
    references: tuple[tuple[int, int], ...]
    """(instruction, place in Compiled.maps) of every map that it names."""


class Compiled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What BCC made of one program set for one kernel, or why it made nothing."""

    maps: tuple[MapSpec, ...] = ()
    programs: tuple[Program, ...] = ()
    bcc: str = ""
    headers: str = ""
    """`own`, or `kernel` where BCC could compile only with the kernel's."""
    compile_ms: int = 0
    failure: str = ""
    hint: str = ""


class Handover(msgspec.Struct, frozen=True):
    """How the programs came to be there."""

    bcc: str = ""
    headers: str = ""
    compile_ms: int = 0
    """0 where kept instructions were loaded."""
    attach_ms: int = 0
    """Loading, attaching and the iterator's pass."""
    seam: tuple[int, int, int] = (0, 0, 0)
    """Both, snapshot only, event only."""
    kept: bool = False
    """Whether nothing had to be compiled."""
    without: tuple[str, ...] = ()
    """Functions that this kernel refuses, and that the others do without."""
