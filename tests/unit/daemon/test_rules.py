"""Rules of one's own in a running agent, on a host made of values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.daemon.composition import Options, start
from agent.model.removal import Action
from tests.unit.agent_scene import Host, alpine, signal_self

if TYPE_CHECKING:
    from pathlib import Path

OUTCOME = {
    Action.NOTIFY: "notified",
    Action.REMOVE: "removed",
    Action.STOP: "stopped",
    Action.RESTART: "restarted",
    Action.PAUSE: "paused",
}
each_action = pytest.mark.parametrize("action", list(Action))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def rule(action: Action, **more: Any) -> dict[str, Any]:
    return {"name": "jobs", "match": {"name": "job-*"}, "keep": 1, "action": str(action), **more}


def run(host: Host, *rules: dict[str, Any], dry_run: bool = False, seconds: float = 90) -> None:
    host.time.at(seconds, signal_self)
    outside = host.outside(policy__rule=rules)
    start(outside.config, Options(dry_run=dry_run), outside.clock, outside.say, outside)


def jobs(host: Host, count: int = 3, **changed: Any) -> None:
    host.docker.run(*(alpine(n, name=f"job-{n}", **changed) for n in range(count)))


def deletions(host: Host) -> list[tuple[Any, ...]]:
    return host.rows(
        "SELECT container_name, action, rule, engine, reason, outcome FROM deletions ORDER BY id"
    )


@each_action
def test_what_a_rule_did_is_a_row_with_the_rule_and_only_removals_are_counted(
    host: Host, action: Action
) -> None:
    jobs(host)
    run(host, rule(action))
    # The scene's cgroups hold more the later their name comes.
    assert set(deletions(host)) == {
        (name, str(action), "jobs", "docker", "rule", OUTCOME[action])
        for name in ("job-2", "job-1")
    }
    assert len(deletions(host)) == 2, "once for each, though five ticks saw it"
    removed = 2 if action is Action.REMOVE else 0
    assert host.rows("SELECT sum(deleted_count) FROM metrics") == [(removed,)]
    assert len(host.docker.removed) == removed
    acted = 0 if action in {Action.NOTIFY, Action.REMOVE} else 2
    assert len(host.docker.acted) == acted


@each_action
def test_a_dry_run_records_each_decision_once_and_does_nothing(host: Host, action: Action) -> None:
    jobs(host)
    run(host, rule(action), dry_run=True)
    assert [row[1::4] for row in deletions(host)] == [(str(action), "dry-run")] * 2
    assert host.docker.removed == host.docker.acted == []


@each_action
def test_nothing_is_done_before_one_whole_tick_with_the_engine_back(
    host: Host, action: Action
) -> None:
    jobs(host)
    host.docker.away = True
    seen: list[int] = []
    host.time.at(30, lambda: setattr(host.docker, "away", False))
    host.time.at(50, lambda: seen.append(len(deletions(host))))
    run(host, rule(action))
    assert seen == [0]
    assert len(deletions(host)) == 2


@each_action
def test_a_protected_one_is_neither_touched_nor_reported(host: Host, action: Action) -> None:
    jobs(host, labels={"so1.protect": "true"})
    run(host, rule(action))
    assert deletions(host) == []


def test_a_step_follows_the_report_while_the_condition_holds(host: Host) -> None:
    jobs(host, 2)
    run(host, rule(Action.NOTIFY, step=[{"after": "1m", "action": "stop"}]), seconds=130)
    assert [row[1::4] for row in deletions(host)] == [("notify", "notified"), ("stop", "stopped")]


def test_a_file_with_rules_leaves_others_containers_alone_and_keeps_the_built_in_set(
    host: Host,
) -> None:
    host.docker.run(*(alpine(n, name=f"db-{n}") for n in range(5)))
    host.docker.run(*(alpine(n + 10) for n in range(5)))
    host.time.at(50, signal_self)
    outside = host.outside(policy__rule=[rule(Action.REMOVE)], policy__scope="all")
    start(outside.config, Options(), outside.clock, outside.say, outside)
    assert len(host.docker.removed) == 2
    assert not [name for name in host.docker.removed if name.startswith("db-")]


def test_one_that_its_owner_brings_back_is_left_to_it_and_reported(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    made = iter(range(1, 100))

    def bring_back() -> None:
        if not host.docker.containers:
            host.docker.run(replace(alpine(next(made) + 100), name="job-1"))

    bring_back()
    for tick in range(6):
        host.time.at(20 * tick + 10, bring_back)
    run(host, rule(Action.REMOVE, keep=0), seconds=150)
    assert len(host.docker.removed) == 3
    assert "owner-recreates" in caplog.text
    assert len(host.docker.containers) == 1


def test_a_start_beyond_the_limit_among_those_that_a_rule_keeps_is_looked_at_at_once(
    host: Host,
) -> None:
    def burst() -> None:
        for number in range(11):
            host.docker.run(alpine(number, name=f"job-{number}"))
            host.send("start")

    host.time.at(25, burst)
    seen: list[int] = []
    host.time.at(26, lambda: seen.append(len(host.docker.removed)))
    run(host, rule(Action.REMOVE, keep=4), seconds=30)
    assert seen == [7]
