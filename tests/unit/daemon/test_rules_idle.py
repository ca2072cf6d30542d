"""A rule on idle containers in a running agent, on a host made of values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.model.removal import Action
from tests.unit.agent_scene import Host
from tests.unit.daemon.test_rules import boots, deletions, jobs, rule, run  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

RESTS = {"keep": None, "when": {"idle": "40s"}}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def begun(host: Host, seconds: float, after_s: int = 0) -> Host:
    """A run on the same disk, whose containers have done as much as before."""
    host.time.now_ns += after_s * 10**9
    again = Host(host.directory, time=host.time, activity=host.activity)
    jobs(again, 1)
    run(again, rule(Action.STOP, **RESTS), seconds=again.time.passed_s + seconds)
    return again


def test_one_that_rests_long_enough_is_acted_on_and_not_before(host: Host) -> None:
    seen: list[int] = []
    jobs(host, 1)
    # Looks at 0, 20, 40 and 60 s: the second is the first that can tell.
    host.time.at(50, lambda: seen.append(len(deletions(host))))
    run(host, rule(Action.STOP, **RESTS), seconds=70)
    assert seen == [0]
    assert [row[1::4] for row in deletions(host)] == [("stop", "stopped")]


@pytest.mark.parametrize("what", ["cpu_ns", "io_operations", "sent_bytes", "life_id"])
def test_what_it_does_in_between_begins_the_time_again(host: Host, what: str) -> None:
    def busy() -> None:
        host.activity = replace(host.activity, **{what: 10**9})  # type: ignore[arg-type]

    jobs(host, 1)
    host.time.at(50, busy)
    run(host, rule(Action.STOP, **RESTS), seconds=110)
    assert deletions(host) == []


def test_the_time_without_an_agent_counts_where_the_counters_stood_still(
    host: Host,
    boots: list[str],  # noqa: F811
) -> None:
    assert boots
    begun(host, seconds=30)
    begun(host, seconds=5, after_s=3600)
    assert [row[1::4] for row in deletions(host)] == [("stop", "stopped")]


def test_the_time_without_an_agent_does_not_count_where_they_moved(
    host: Host,
    boots: list[str],  # noqa: F811
) -> None:
    begun(host, seconds=30)
    host.activity = replace(host.activity, sent_bytes=60)
    begun(host, seconds=5, after_s=3600)
    assert deletions(host) == []
    boots[0] = "another"
    begun(host, seconds=5)
    assert deletions(host) == [], "nothing is proven across a boot"


def test_nothing_is_read_for_it_while_no_rule_asks(host: Host) -> None:
    jobs(host, 1)
    run(host, rule(Action.STOP), seconds=50)
    assert host.activity_reads == 0
