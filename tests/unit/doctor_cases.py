"""Hosts for the tests of `agent doctor`: a good one, and what may be wrong with it.

The tables name the check that has to tell it, in what state, and a word of what it says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.config import Config, decode_config
from agent.doctor import Check, State, judge
from agent.doctor.facts import (
    BpfFacts,
    CgroupFacts,
    ClockFacts,
    DockerFacts,
    Facts,
    LeftoverFacts,
    ModuleFacts,
    PythonFacts,
    SigningFacts,
    StoreFacts,
)

NOW_MS = 1_700_000_000_000
HOUR_MS = 3600 * 1000

GOOD = Facts(
    root=True,
    config_problem="",
    modules=ModuleFacts("6.1.0", True, False, True, (), True, ("sysinfo", "continfo"), True, ""),
    signing=SigningFacts(False, "none", False, False, None),
    bpf=BpfFacts("", "", True, "0.26.0", ""),
    cgroups=CgroupFacts("v2", "default", True),
    docker=DockerFacts(
        version="26.1",
        api="1.45",
        driver="systemd",
        problem="",
        hint="",
        images={"alpine:latest": True, "polinux/stress": True},
        stand_in_lacks=(),
        compose="docker compose",
        grafana_image=True,
    ),
    cron_problem="",
    cron_hint="",
    store=StoreFacts("ours", "", "", True, "wal", "current", "", NOW_MS, 12, 50_000, 1000),
    clock=ClockFacts(True, NOW_MS, NOW_MS - HOUR_MS),
    python=PythonFacts((3, 11, 2), "/opt/so1/venv/bin/python", True, (), ""),
    leftovers=LeftoverFacts(4242, True, 5, True),
)


def facts(**changed: Any) -> Facts:
    """The good host with some fields of some of its parts changed: `docker__api="1.24"`."""
    value = GOOD
    for name, new in changed.items():
        part, _, field = name.partition("__")
        whole = dataclasses.replace(getattr(value, part), **{field: new}) if field else new
        value = dataclasses.replace(value, **{part: whole})
    return value


def check(name: str, config: Config | None = None, **changed: Any) -> Check:
    (found,) = (one for one in judge(facts(**changed), config or Config()) if one.name == name)
    return found


def settings(text: str) -> Config:
    return decode_config(text, "test")


NO_MODULES = settings('source = "psutil"')
ONLY_MODULES = settings('source = "modules"')
UNLOADED: dict[str, Any] = {"modules__loaded": (), "modules__ours": None}
UNBUILT: dict[str, Any] = {**UNLOADED, "modules__built": False}
STOPPED: dict[str, Any] = {"leftovers__agent_pid": 0}
LOCKED: dict[str, Any] = {"signing__lockdown": "integrity", "signing__secure_boot": True}


# What is wrong → the check that tells it, its state, a word of what it says, a word of what mends.
TABLE: dict[str, tuple[dict[str, Any], str, State, str, str]] = {
    "another user": ({"root": False}, "privileges", State.UNKNOWN, "not root", "sudo"),
    "a broken configuration": (
        {"config_problem": "agent.toml cannot be used: x."},
        "configuration",
        State.MISSING,
        "agent.toml",
        "correct",
    ),
    "a configuration that is root's alone": (
        {"root": False, "config_problem": "x cannot be read: Permission denied."},
        "configuration",
        State.UNKNOWN,
        "Permission denied",
        "sudo",
    ),
    "an old Python": ({"python__version": (3, 9, 2)}, "python", State.MISSING, "3.11", "start.sh"),
    "no peewee": ({"python__missing": ("peewee",)}, "python", State.MISSING, "peewee", "start.sh"),
    "another Python": (
        {"python__distribution": False},
        "python",
        State.DEGRADED,
        "BCC",
        "start.sh",
    ),
    "a user's checkout": (
        {"python__untrusted": "/home/me can be changed by others than root."},
        "installation",
        State.DEGRADED,
        "/home/me",
        "start.sh",
    ),
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
    "Docker away": (
        {"docker__version": "", "docker__problem": "Docker does not answer.", "docker__hint": "Go"},
        "Docker",
        State.MISSING,
        "does not answer",
        "Go",
    ),
    "Docker's socket forbidden to this user": (
        {"root": False, "docker__version": "", "docker__problem": "x: Permission denied."},
        "Docker",
        State.UNKNOWN,
        "Permission denied",
        "sudo",
    ),
    "images nobody could look for": (
        {"docker__images": None},
        "images",
        State.UNKNOWN,
        "not asked",
        "Docker",
    ),
    "no image and nothing to make one of": (
        {"docker__images": {"alpine:latest": False}, "docker__stand_in_lacks": ("stress",)},
        "images",
        State.DEGRADED,
        "alpine:latest not here",
        "install -y stress",
    ),
    "no compose": (
        {"docker__compose": ""},
        "compose",
        State.DEGRADED,
        "docker-compose",
        "apt-get install",
    ),
    "no cron daemon": (
        {"cron_problem": "No cron daemon runs.", "cron_hint": "Start it."},
        "cron",
        State.DEGRADED,
        "No cron",
        "Start it",
    ),
    "a cron daemon nobody could look for": (
        {"cron_problem": None},
        "cron",
        State.UNKNOWN,
        "whether its daemon runs",
        "sudo",
    ),
    "a full disk": ({"store__free_mb": 3}, "disk", State.MISSING, "3 MB", "df"),
    "no inodes": ({"store__free_inodes": 0}, "disk", State.MISSING, "inodes", "df"),
    "a disk that may fill up": (
        {"store__free_mb": 500},
        "disk",
        State.DEGRADED,
        "may grow by 2036 MB",
        "max_database_mb",
    ),
    "a disk nobody could look at": ({"store__free_mb": None}, "disk", State.UNKNOWN, "", "sudo"),
    "a database behind a link": (
        {"store__path_problem": "/x is a symbolic link.", "store__path_hint": "Name it."},
        "database",
        State.MISSING,
        "symbolic link",
        "Name it",
    ),
    "a database nobody could look at": (
        {"store__kind": None},
        "database",
        State.UNKNOWN,
        "/var/lib/so1/metrics.db",
        "sudo",
    ),
    "somebody else's file": (
        {"store__kind": "foreign"},
        "database",
        State.MISSING,
        "something else",
        "--database",
    ),
    "a database that cannot be written": (
        {"store__writable": False},
        "database",
        State.MISSING,
        "cannot be written",
        "findmnt",
    ),
    "a database of a newer agent": (
        {"store__schema": "newer"},
        "database",
        State.MISSING,
        "newer",
        "mv",
    ),
    "a damaged database": (
        {"store__kind": "damaged"},
        "database",
        State.DEGRADED,
        "set",
        "integrity_check",
    ),
    "a database that cannot be read": (
        {"store__read_problem": "disk I/O error"},
        "database",
        State.DEGRADED,
        "disk I/O error",
        "integrity_check",
    ),
    "a clock from before the installation": (
        {"clock__wall_ms": NOW_MS - 3 * HOUR_MS, "store__newest_row_ms": None},
        "clock",
        State.DEGRADED,
        "before",
        "timedatectl",
    ),
    "a clock behind the history": (
        {"store__newest_row_ms": NOW_MS + 5 * HOUR_MS},
        "clock",
        State.DEGRADED,
        "5.0 h behind",
        "timedatectl",
    ),
    "a clock that nobody steers": (
        {"clock__synchronised": False},
        "clock",
        State.DEGRADED,
        "no time service",
        "timedatectl",
    ),
    "what a killed agent left": (
        STOPPED,
        "agent",
        State.DEGRADED,
        "module sysinfo, module continfo, the cron file, 5 containers, Grafana",
        "cleanup",
    ),
    "an agent that may run": (
        {"leftovers__agent_pid": None},
        "agent",
        State.UNKNOWN,
        "running or not",
        "sudo",
    ),
}


FINE: dict[str, tuple[dict[str, Any], str, str]] = {
    "no headers but built modules": (
        {"modules__headers": False, "modules__missing_tools": ("make",), **UNLOADED},
        "headers",
        "built already",
    ),
    "no tools but built modules": (
        {"modules__missing_tools": ("make",), **UNLOADED},
        "build tools",
        "built already",
    ),
    "modules that were never built": (UNBUILT, "modules", "first start builds them"),
    "modules that are not loaded": (UNLOADED, "modules", "a start loads them"),
    "Secure Boot with a key it knows": (
        {**LOCKED, "signing__key": True, "signing__enrolled": True},
        "module signing",
        "ours is known",
    ),
    "an image that can be made here": (
        {"docker__images": {"alpine:latest": False}},
        "images",
        "stand-in",
    ),
    "no database yet": ({"store__kind": "absent"}, "database", "first start makes it"),
    "a database of an older agent": ({"store__schema": "older"}, "database", "migrated"),
    "a file system that counts no inodes": ({"store__free_inodes": None}, "disk", "MB free"),
    "a clock whose steering is unknown": (
        {"clock__synchronised": None},
        "clock",
        "not known",
    ),
    "nothing left behind": (
        {
            **UNLOADED,
            "leftovers": LeftoverFacts(0, False, 0, False),
        },
        "agent",
        "nothing left behind",
    ),
}
