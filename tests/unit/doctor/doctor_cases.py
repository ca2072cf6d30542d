"""What may be wrong with a host that `agent doctor` looks at.

The tables name the check that has to tell it, in what state, and a word of what it says.
"""

from __future__ import annotations

from typing import Any

from agent.doctor import State
from agent.doctor.facts import LeftoverFacts
from tests.unit.doctor.doctor_host import HOUR_MS, LOCKED, NOW_MS, STOPPED, UNBUILT, UNLOADED
from tests.unit.doctor.kernel_cases import KERNEL

# What is wrong → the check that tells it, its state, a word of what it says, a word of what fixes.
TABLE: dict[str, tuple[dict[str, Any], str, State, str, str]] = {
    **KERNEL,
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
    "an address of metrics that is taken": (
        {"metrics_problem": "another program answers there"},
        "metrics",
        State.DEGRADED,
        "another program",
        "ss -ltnp",
    ),
    "a secret that others may read": (
        {"fleet_problem": "Others may read /etc/so1/fleet.secret.", "fleet_hint": "chmod 0600"},
        "fleet",
        State.DEGRADED,
        "Others may read",
        "chmod",
    ),
    "a key that others may read": (
        {"notify_problem": "The webhook's key is not root's alone.", "notify_hint": "chmod 0600"},
        "notify",
        State.DEGRADED,
        "not root's alone",
        "chmod",
    ),
    "a spent budget": (
        {"disarmed": "the policy is disarmed: the budget loss is spent: 30 of 40"},
        "proof",
        State.DEGRADED,
        "the budget loss is spent",
        "sudo agent policy arm",
    ),
    "Docker away": (
        {"docker__version": "", "docker__problem": "Docker does not answer.", "docker__hint": "Go"},
        "Docker",
        State.MISSING,
        "does not answer",
        "Go",
    ),
    "a proxy that refuses events": (
        {"docker__events_refused": "Docker at x gives no events: status 403."},
        "Docker",
        State.DEGRADED,
        "with each tick",
        "GET /events",
    ),
    "another engine in DOCKER_HOST": (
        {"docker__other_host": "DOCKER_HOST is unix:///run/user/1000/docker.sock."},
        "Docker",
        State.DEGRADED,
        "/run/user/1000",
        "docker_host in /etc/so1/agent.toml",
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
        {"docker__images": {"alpine:latest": False}, "docker__missing_stand_in": ("stress",)},
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
        {"cron_problem": None, "root": False},
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
    "a disk nobody could look at": (
        {"store__free_mb": None, "root": False},
        "disk",
        State.UNKNOWN,
        "",
        "sudo",
    ),
    "a database behind a link": (
        {"store__path_problem": "/x is a symbolic link.", "store__path_hint": "Name it."},
        "database",
        State.MISSING,
        "symbolic link",
        "Name it",
    ),
    "a database nobody could look at": (
        {"store__kind": None, "root": False},
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
        "quarantines",
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
        {"leftovers__agent_pid": None, "root": False},
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
