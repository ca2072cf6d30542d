"""What may be wrong with a kernel, its modules, probes and cgroups: a part of `doctor_cases`."""

from __future__ import annotations

from typing import Any

from agent.doctor import State
from agent.doctor.facts import CgroupFacts
from tests.unit.doctor.doctor_host import LOCKED, UNBUILT, UNLOADED

# What is wrong → the check that tells it, its state, a word of what it says, a word of what fixes.
KERNEL: dict[str, tuple[dict[str, Any], str, State, str, str]] = {
    "a kernel without modules": (
        {"modules__takes_modules": False, **UNBUILT},
        "kernel",
        State.DEGRADED,
        "psutil",
        "distribution",
    ),
    "modules switched off": (
        {"modules__disabled": True, **UNBUILT},
        "kernel",
        State.DEGRADED,
        "modules_disabled",
        "reboot",
    ),
    "no headers": (
        {"modules__headers": False, **UNBUILT},
        "headers",
        State.DEGRADED,
        "6.1.0",
        "apt-get install -y linux-headers-6.1.0",
    ),
    "no compiler": (
        {"modules__missing_tools": ("make", "gcc-12"), **UNBUILT},
        "build tools",
        State.DEGRADED,
        "gcc-12",
        "make gcc-12",
    ),
    "no insmod": (
        {"modules__missing_tools": ("insmod", "rmmod"), **UNLOADED},
        "build tools",
        State.DEGRADED,
        "insmod",
        "install -y kmod",
    ),
    "Secure Boot without a key": (
        {**LOCKED, "signing__key": False},
        "module signing",
        State.DEGRADED,
        "Secure Boot is on",
        "mokutil --import",
    ),
    "Secure Boot with a key it does not know": (
        {**LOCKED, "signing__key": True, "signing__enrolled": False},
        "module signing",
        State.DEGRADED,
        "does not know",
        "mokutil --import",
    ),
    "Secure Boot and nobody to ask": (
        {**LOCKED, "signing__key": True, "signing__enrolled": None},
        "module signing",
        State.UNKNOWN,
        "signed modules",
        "mokutil",
    ),
    "signing rules that cannot be read": (
        {"signing__lockdown": None, "signing__enforced": None},
        "module signing",
        State.UNKNOWN,
        "",
        "sudo",
    ),
    "one module of two": (
        {"modules__loaded": ("sysinfo",)},
        "modules",
        State.DEGRADED,
        "only sysinfo",
        "cleanup",
    ),
    "modules of another source": (
        {"modules__ours": False},
        "modules",
        State.DEGRADED,
        "other sources",
        "cleanup",
    ),
    "an entry that cannot be read": (
        {"modules__entry_problem": "/proc/sysinfo: Permission denied"},
        "modules",
        State.DEGRADED,
        "Permission denied",
        "cleanup",
    ),
    "modules that cannot be built": (
        {"modules__headers": False, **UNBUILT},
        "modules",
        State.DEGRADED,
        "cannot be built",
        "headers",
    ),
    "modules nobody could look for": (
        {**UNLOADED, "modules__built": None},
        "modules",
        State.UNKNOWN,
        "not loaded",
        "sudo",
    ),
    "a kernel without BPF events": (
        {"bpf__events": False},
        "BPF",
        State.DEGRADED,
        "CONFIG_BPF_EVENTS",
        "distribution",
    ),
    "a kernel without types": (
        {"bpf__problem": "this kernel has no type information.", "bpf__hint": "Boot another."},
        "BPF",
        State.DEGRADED,
        "unverified",
        "Boot another",
    ),
    "no BCC": (
        {"bpf__bcc": "", "bpf__bcc_problem": "not installed"},
        "BCC",
        State.DEGRADED,
        "not installed",
        "python3-bpfcc",
    ),
    "BCC that this Python cannot have": (
        {"bpf__bcc": "", "bpf__bcc_problem": "not installed", "python__distribution": False},
        "BCC",
        State.DEGRADED,
        "not installed",
        "start.sh",
    ),
    "hidden kernel addresses": (
        {"oom__has_symbols": False},
        "OOM kills",
        State.DEGRADED,
        "hides",
        "kptr_restrict",
    ),
    "nobody who tells of OOM kills": (
        {"oom__has_log": False, "bpf__problem": "no types.", "bpf__hint": "Boot another."},
        "OOM kills",
        State.DEGRADED,
        "only counters",
        "CAP_SYSLOG",
    ),
    "OOM kills that only root could look for": (
        {"oom__has_log": None},
        "OOM kills",
        State.UNKNOWN,
        "only root",
        "sudo",
    ),
    "a /proc of processes alone": (
        {"proc_problem": "mounted subset=pid.", "proc_hint": "Mount a whole one."},
        "/proc",
        State.MISSING,
        "subset=pid",
        "whole one",
    ),
    "no cgroups": (
        {"cgroups": CgroupFacts("", "", None, "No hierarchy is mounted.", "Mount one.")},
        "cgroups",
        State.MISSING,
        "No hierarchy",
        "Mount",
    ),
    "no memory controller": (
        {"cgroups__memory": False},
        "memory controller",
        State.DEGRADED,
        "off",
        "cgroup_enable=memory",
    ),
    "a memory controller nobody could look at": (
        {"cgroups__memory": None},
        "memory controller",
        State.UNKNOWN,
        "",
        "cgroups",
    ),
}
