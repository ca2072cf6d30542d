"""A host whose memory runs short, with jobs that a rule may remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.daemon.composition import Options, start
from tests.unit.agent_parts import WALL_NS
from tests.unit.agent_scene import Host, alpine, signal_self

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(tmp_path)
    found.memory.available_mb = lambda: 4000.0
    return found


def rule(when: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "before-oom",
        "match": {"name": "job-*"},
        "when": when,
        "action": "remove",
        **more,
    }


def jobs(host: Host, count: int) -> None:
    """The one with the highest number holds most."""
    host.docker.run(*(alpine(n, name=f"job-{n}") for n in range(count)))


def run(host: Host, *rules: dict[str, Any], seconds: float = 70, **settings: Any) -> None:
    host.time.at(seconds, signal_self)
    dry_run = settings.pop("dry_run", False)
    outside = host.outside(policy__rule=rules, **({"interval_s": 60.0} | settings))
    start(outside.config, Options(dry_run=dry_run), outside.clock, outside.say, outside)


def deletions(host: Host) -> list[tuple[Any, ...]]:
    return host.rows("SELECT container_name, rule, outcome FROM deletions ORDER BY id")


def moments_s(host: Host) -> list[float]:
    """When each row of `deletions` was written, from the begin on."""
    rows = host.rows("SELECT timestamp FROM deletions ORDER BY id")
    return [(row[0] - WALL_NS // 10**6) / 1000 for row in rows]
