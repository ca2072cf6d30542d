"""The macros that fit the BPF programs to the running kernel: offsets, tracepoint forms, sizes.

Everything is decided by what the kernel's type information has, never by its version, because
distributions backport.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agent.errors import remedy_for
from agent.model.container import Hierarchy
from agent.sources.bpf.btf import Btf, BtfError

SLOTS = 32_768
"""Places for processes, by pid: 3 MB of the kernel's memory."""
SLOT_BLOCK = 32
"""Places that the reader looks at together."""
SPILLED = 8_192
"""Processes whose place another one has: only where pids go beyond SLOTS."""
MAX_CGROUPS = 8_192
EXIT_BYTES = 2 << 20
"""The witness's ring buffer: some 14,000 exits."""
OOM_BYTES = 256 << 10
"""The ring buffer of OOM kills: some 180 of them. It is emptied once a second."""
NAME_BYTES = 256 << 10
"""The ring buffer of cgroups' names: some 860 of them. It is emptied once a second."""
EVENT_BYTES = 8 << 20
"""The trace's ring buffer: some 50,000 events."""

_FIELDS = {
    "TASK_PID": ("task_struct", "pid"),
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_START": ("task_struct", "start_boottime"),
    "TASK_CGROUPS": ("task_struct", "cgroups"),
    "TASK_GROUP_LEADER": ("task_struct", "group_leader"),
    "TASK_REAL_PARENT": ("task_struct", "real_parent"),
    "TASK_SIGNAL": ("task_struct", "signal"),
    "TASK_EXIT_CODE": ("task_struct", "exit_code"),
    "TASK_EXIT_STATE": ("task_struct", "exit_state"),
    "TASK_FLAGS": ("task_struct", "flags"),
    "TASK_THREAD_NODE": ("task_struct", "thread_node"),
    "TASK_COMM": ("task_struct", "comm"),
    "TASK_RUNTIME": ("task_struct", "se", "sum_exec_runtime"),
    "SIGNAL_LIVE": ("signal_struct", "live"),
    "SIGNAL_NR_THREADS": ("signal_struct", "nr_threads"),
    "SIGNAL_FLAGS": ("signal_struct", "flags"),
    "SIGNAL_EXIT_CODE": ("signal_struct", "group_exit_code"),
    "SIGNAL_OOM_MM": ("signal_struct", "oom_mm"),
    "SIGNAL_MAXRSS": ("signal_struct", "maxrss"),
    "SIGNAL_THREAD_HEAD": ("signal_struct", "thread_head"),
    "SIGNAL_RUNTIME": ("signal_struct", "sum_sched_runtime"),
    "CSS_SET_DFL_CGRP": ("css_set", "dfl_cgrp"),
    "CSS_SET_SUBSYS": ("css_set", "subsys"),
    "CSS_CGROUP": ("cgroup_subsys_state", "cgroup"),
    "CSS_PARENT": ("cgroup_subsys_state", "parent"),
    "CGROUP_KN": ("cgroup", "kn"),
    "CGROUP_SELF": ("cgroup", "self"),
    "CGROUP_ROOT": ("cgroup", "root"),
    "ROOT_HIERARCHY_ID": ("cgroup_root", "hierarchy_id"),
    "KERNFS_ID": ("kernfs_node", "id"),
    "KERNFS_NAME": ("kernfs_node", "name"),
    "TASK_MM": ("task_struct", "mm"),
    "SIGNAL_OOM_ADJ": ("signal_struct", "oom_score_adj"),
    "BPRM_FILENAME": ("linux_binprm", "filename"),
}
_TRACEPOINTS = (
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_free",
    "sched_switch",
    "cgroup_attach_task",
    "cgroup_mkdir",
    "cgroup_rmdir",
    "mark_victim",
)


def macros(btf: Btf, hierarchy: Hierarchy, *, cgroups: Path = Path("/proc/cgroups")) -> list[str]:
    """The `-D` options for `kernel/bpf/*.c` in the hierarchy that identifies containers here.

    Raises BtfError where the kernel has no field, a tracepoint or the hierarchy.
    """
    values = {macro: btf.offset(*path) for macro, path in _FIELDS.items()}
    forms = {name: btf.tracepoint_arguments(name) for name in _TRACEPOINTS}
    absent = [name for name, form in forms.items() if form is None]
    if absent:
        raise BtfError(
            f"This kernel cannot run BPF programs at its tracepoints ({', '.join(absent)}).",
            "Boot a kernel built with CONFIG_BPF_EVENTS and CONFIG_CGROUPS.",
        )
    # Since 6.16 sched_process_exit says itself that the group is dead; before, two threads that end
    # at once may both look like the last.
    if len(forms["sched_process_exit"] or ()) > 1:
        values["GROUP_DEAD_ARG"] = 1
    # Since 5.18 sched_switch says itself what the task's state was. Before, its field is read, with
    # underscores in its name since 5.14.
    if len(forms["sched_switch"] or ()) > 3:
        values["SWITCH_STATE_ARG"] = 1
    values["TASK_STATE"] = btf.offset_of_first("task_struct", "__state", "state")
    # Since 6.8 mark_victim hands over the task, before its number.
    if (forms["mark_victim"] or [False])[0]:
        values["OOM_TASK_ARG"] = 1
    values["HIERARCHY_ID"] = hierarchy_number(hierarchy, cgroups=cgroups)
    if hierarchy is Hierarchy.MEMORY_V1:
        subsystem = btf.enum_value("cgroup_subsys_id", "memory_cgrp_id")
        if subsystem is None:
            raise BtfError("This kernel has no memory controller.")
        values["V1_SUBSYS"] = subsystem
    values |= _resident_memory(btf) | _memory_cgroups(btf)
    values["SLOTS"] = SLOTS
    values["SLOT_BLOCK"] = SLOT_BLOCK
    values["SPILLED"] = SPILLED
    values["MAX_CGROUPS"] = MAX_CGROUPS
    page = os.sysconf("SC_PAGE_SIZE")
    values["PAGE_SIZE"] = page
    values["EVENT_PAGES"] = EVENT_BYTES // page
    values["EXIT_PAGES"] = EXIT_BYTES // page
    values["OOM_PAGES"] = OOM_BYTES // page
    values["NAME_PAGES"] = NAME_BYTES // page
    return [f"-D{macro}={value}" for macro, value in values.items()]


def _resident_memory(btf: Btf) -> dict[str, int]:
    """Where an address space's counters of pages are; nothing where this kernel has others.

    Since 6.2 each is a counter by CPU of which the sum is read, before a number in a structure.
    """
    for path, kind in (
        (("mm_struct", "rss_stat", "count"), ""),
        (("mm_struct", "rss_stat"), "percpu_counter"),
    ):
        with suppress(BtfError):
            first = btf.offset(*path) + (btf.offset(kind, "count") if kind else 0)
            return {"MM_RSS": first, "RSS_STRIDE": btf.size(kind) if kind else 8}
    return {}


def _memory_cgroups(btf: Btf) -> dict[str, int]:
    """Where a memory cgroup's counters are; nothing where this kernel has none, or others."""
    subsystem = btf.enum_value("cgroup_subsys_id", "memory_cgrp_id")
    event = btf.enum_value("memcg_memory_event", "MEMCG_OOM")
    if subsystem is None or event is None:
        return {}
    with suppress(BtfError):
        return {
            "MEMCG_CSS": btf.offset("mem_cgroup", "css"),
            "MEMCG_MEMORY": btf.offset("mem_cgroup", "memory"),
            "MEMCG_MEMSW": btf.offset("mem_cgroup", "memsw"),
            "MEMCG_EVENTS_LOCAL": btf.offset("mem_cgroup", "memory_events_local"),
            "COUNTER_USAGE": btf.offset("page_counter", "usage"),
            "COUNTER_MAX": btf.offset("page_counter", "max"),
            "MEMCG_OOM_EVENT": event,
            "MEMORY_SUBSYS": subsystem,
        }
    return {}


def hierarchy_number(hierarchy: Hierarchy, *, cgroups: Path = Path("/proc/cgroups")) -> int:
    """The kernel's number for it in this boot; the default hierarchy's is 0. Raises BtfError."""
    if hierarchy is Hierarchy.MEMORY_V1:
        return _v1_hierarchy("memory", cgroups)
    return 0


def _v1_hierarchy(controller: str, path: Path) -> int:
    """The number of the controller's v1 hierarchy, second column of `/proc/cgroups`."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise BtfError(
            f"{path} cannot be read: {error.strerror}.",
            remedy_for(error, f"See how it is mounted: findmnt -T {path}"),
        ) from error
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == controller and words[1] != "0":
            return int(words[1])
    raise BtfError(f"The {controller} controller has no v1 hierarchy on this host.")
