"""Rules of one's own in a running agent, on a host made of values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Config, decode_config
from agent.daemon.composition import Options, start
from agent.daemon.signals import RELOAD
from agent.model.container import Tier
from agent.model.removal import Action, Decision, Outcome, Reason, Removal, RemovalPass
from agent.store import handover
from tests.unit.agent_scene import Host, alpine, signal_self

if TYPE_CHECKING:
    from collections.abc import Callable
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


def test_a_dry_run_spends_nothing_of_the_run_after_it(host: Host) -> None:
    """The scene's clock begins again as in the same boot."""
    jobs(host)
    run(host, rule(Action.RESTART), dry_run=True, seconds=50)
    assert host.docker.acted == []
    again = Host(host.directory)
    jobs(again)
    run(again, rule(Action.RESTART), seconds=50)
    assert len(again.docker.acted) == 2
    third = Host(host.directory)
    jobs(third)
    run(third, rule(Action.RESTART), dry_run=True, seconds=50)
    assert [row[5] for row in deletions(host)].count("restarted") == 2
    last = Host(host.directory)
    jobs(last)
    run(last, rule(Action.RESTART), seconds=50)
    assert last.docker.acted == [], "what a real run did a dry one after it forgets not"


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


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The boot's id, to be changed by a test."""
    ids = ["boot"]
    monkeypatch.setattr("agent.store.policy_state.boot_id", lambda: ids[0])
    return ids


def next_run(host: Host, *rules: dict[str, Any], seconds: float, after_s: int = 0) -> Host:
    """A run on the same disk, with one unhealthy job."""
    host.time.now_ns += after_s * 10**9
    again = Host(host.directory, time=host.time)
    jobs(again, 1, health="unhealthy")
    run(again, *rules, seconds=again.time.passed_s + seconds)
    return again


SICK = {"keep": None, "when": {"unhealthy": "1m"}}


def test_a_time_counts_on_after_a_restart_without_the_time_between(
    host: Host, boots: list[str]
) -> None:
    assert boots == ["boot"]
    # Looks at 0, 20 and 40 s, then the same again: 40 s of the minute, and then the rest of it.
    next_run(host, rule(Action.STOP, **SICK), seconds=50)
    assert deletions(host) == []
    second = next_run(host, rule(Action.STOP, **SICK), seconds=10, after_s=3600)
    assert second.ticks == 1
    assert deletions(host) == []
    next_run(host, rule(Action.STOP, **SICK), seconds=30, after_s=5)
    assert [row[1::4] for row in deletions(host)] == [("stop", "stopped")]


def test_no_time_counts_across_a_boot(host: Host, boots: list[str]) -> None:
    next_run(host, rule(Action.STOP, **SICK), seconds=50)
    boots[0] = "another boot"
    next_run(host, rule(Action.STOP, **SICK), seconds=50)
    assert deletions(host) == []
    boots[0] = ""
    next_run(host, rule(Action.STOP, **SICK), seconds=50)
    next_run(host, rule(Action.STOP, **SICK), seconds=50)
    assert deletions(host) == [], "a kernel that tells no boot proves none"


def test_what_was_reported_is_not_reported_again_after_a_restart(
    host: Host, boots: list[str]
) -> None:
    next_run(host, rule(Action.NOTIFY, keep=0), seconds=50)
    next_run(host, rule(Action.NOTIFY, keep=0), seconds=50)
    assert len(deletions(host)) == 1
    boots[0] = "another boot"
    next_run(host, rule(Action.NOTIFY, keep=0), seconds=50)
    assert len(deletions(host)) == 2


def test_without_rules_that_remember_nothing_is_written_beside_the_history(host: Host) -> None:
    host.docker.run(*(alpine(n) for n in range(5)))
    host.time.at(50, signal_self)
    outside = host.outside()
    start(outside.config, Options(), outside.clock, outside.say, outside)
    assert host.rows("SELECT count(*) FROM policy_state") == [(0,)]
    assert len(host.docker.removed) == 2


def reload_at(host: Host, seconds: float, read: Callable[[], Config]) -> Options:
    host.time.at(seconds, lambda: signal_self(RELOAD))
    return Options(read_again=read)


def reading(text: str) -> Callable[[], Config]:
    return lambda: decode_config(text, "agent.toml")


JOBS = """
[[policy.rule]]
name = "jobs"
match = { name = "job-*" }
keep = 1
action = "stop"
"""


def started(host: Host, options: Options) -> list[dict[str, Any]]:
    """What the status file says at 29 s and at 49 s of a run of 50 s."""
    seen: list[dict[str, Any]] = []
    path = host.directory / "run/status.json"
    for second in (29, 49):
        host.time.at(second, lambda: seen.append(json.loads(path.read_text())))
    host.time.at(50, signal_self)
    outside = host.outside(policy__rules="none")
    start(outside.config, options, outside.clock, outside.say, outside)
    return seen


def test_a_reload_swaps_in_checked_rules_without_a_stop(host: Host) -> None:
    jobs(host)
    before, after = started(host, reload_at(host, 25, reading(JOBS)))
    assert host.ticks == 3
    assert (before["reloads"], before["problems"]) == (1, [])
    assert after["reloads"] == 1
    assert sorted(host.docker.acted) == [("stopped", "job-1"), ("stopped", "job-2")]


def test_rules_that_do_not_pass_leave_the_old_ones_and_are_a_problem_in_status(host: Host) -> None:
    jobs(host)
    options = reload_at(host, 25, reading(JOBS.replace("keep", "kepe")))
    before, after = started(host, options)
    assert host.ticks == 3
    assert before["reloads"] == 1
    for value in (before, after):
        (problem,) = value["problems"]
        assert problem.startswith("rules: The rules are those of before: ")
        assert "kepe" in problem
    assert deletions(host) == []


def test_a_reload_keeps_what_was_done_and_asks_for_labels_where_a_rule_needs_them(
    host: Host,
) -> None:
    jobs(host, 1)
    once = JOBS.replace("keep = 1", "keep = 0").replace("stop", "notify")
    labelled = '[[policy.rule]]\nname = "l"\nmatch.label = "x"\nkeep = 1\naction = "stop"\n'
    texts = iter([once, once + labelled])
    options = reload_at(host, 5, lambda: decode_config(next(texts), "agent.toml"))
    reload_at(host, 25, reading(""))
    started(host, options)
    assert len(deletions(host)) == 1
    assert host.docker.all_labels is True


def test_what_a_person_applied_is_stored_and_counted_by_the_next_tick(host: Host) -> None:
    jobs(host, 1)
    ended = host.docker.containers[f"{0:064x}"]
    one = Decision(
        *("d", ended.id, ended.name, "alpine", 0, Tier.NONE, 1, Reason.RULE, 1.0, 0.0),
        rule="jobs",
    )
    done = RemovalPass((Removal(one, Outcome.REMOVED, 5),), 1024, 2048)
    host.time.at(10, lambda: handover.leave(host.directory / "data", done))
    run(host, rule(Action.NOTIFY), seconds=50)
    assert deletions(host) == [("job-0", "remove", "jobs", "docker", "rule", "removed")]
    assert host.rows("SELECT deleted_count FROM metrics ORDER BY id") == [(0,), (1,), (0,)]
