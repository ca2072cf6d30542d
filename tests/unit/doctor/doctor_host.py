"""A host for the tests of `agent doctor` that has everything, and what a test may change of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.config import Config, decode_config
from agent.doctor import Check, judge
from agent.doctor.facts import (
    BpfFacts,
    CgroupFacts,
    ClockFacts,
    DockerFacts,
    Facts,
    LeftoverFacts,
    ModuleFacts,
    OomFacts,
    PressureFacts,
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
    oom=OomFacts(True, True),
    cgroups=CgroupFacts("v2", "default", True),
    pressure=PressureFacts(no_trigger=""),
    docker=DockerFacts(
        version="26.1",
        api="1.45",
        driver="systemd",
        problem="",
        hint="",
        images={"alpine:latest": True, "polinux/stress": True},
        missing_stand_in=(),
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
