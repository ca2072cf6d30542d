"""A disarmed policy in a running agent: nothing is touched, everything is said, and it recovers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.daemon.composition import Options, start
from agent.model.bpf import BpfView, Seam
from agent.model.proof import ByHand
from agent.model.removal import Action
from agent.store import by_hand
from tests.unit.agent_parts import WALL_NS
from tests.unit.agent_scene import Host, alpine, signal_self, status
from tests.unit.daemon.test_canary_runs import GOOD, OFF, Canary, begun

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["begun"]
ACTIONS = [one for one in Action if one.is_destructive]
each_action = pytest.mark.parametrize("action", ACTIONS)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def rule(action: Action) -> dict[str, Any]:
    return {"name": "jobs", "match": {"name": "job-*"}, "keep": 1, "action": str(action)}


def jobs(host: Host, count: int = 3) -> None:
    host.docker.run(*(alpine(n, name=f"job-{n}") for n in range(count)))


def run(host: Host, *rules: dict[str, Any], seconds: float, **settings: object) -> None:
    host.time.at(seconds, signal_self)
    outside = host.outside(policy__rule=rules, **settings)
    start(outside.config, Options(), outside.clock, outside.say, outside)


def disarm(host: Host, why: str = "") -> Callable[[], None]:
    def write() -> None:
        by_hand.write(host.directory / "data", ByHand(False, host.time.wall_ns() // 10**6, why))

    return write


def arm(host: Host) -> Callable[[], None]:
    def write() -> None:
        by_hand.write(host.directory / "data", ByHand(True, host.time.wall_ns() // 10**6))

    return write


def a_view(lost: int) -> BpfView:
    return BpfView(0, {}, {}, {}, {}, {}, frozenset(), frozenset(), lost, Seam())


def losing(host: Host, *moments_s: float) -> None:
    """BPF loses a thousand records just before each of these moments."""
    host.view = a_view(lost=0)
    for number, moment_s in enumerate(moments_s, start=1):

        def lose(number: int = number) -> None:
            host.view = a_view(lost=1000 * number)

        host.time.at(moment_s - 1, lose)


def deletions(host: Host) -> list[tuple[Any, ...]]:
    return host.rows("SELECT container_name, action, outcome FROM deletions ORDER BY id")


def touched(host: Host) -> list[Any]:
    return [*host.docker.removed, *host.docker.acted]


def second(host: Host, timestamp_ms: int) -> int:
    return (timestamp_ms - WALL_NS // 10**6) // 1000


@each_action
def test_while_disarmed_by_hand_each_action_is_one_row_and_nothing_is_touched(
    host: Host, action: Action
) -> None:
    host.time.at(5, disarm(host, "migration"))
    host.time.at(6, lambda: jobs(host))
    run(host, rule(action), seconds=90)
    assert touched(host) == []
    assert sorted(deletions(host)) == [
        ("job-1", str(action), "notified"),
        ("job-2", str(action), "notified"),
    ]
    assert host.rows("SELECT DISTINCT error FROM deletions") == [
        ("the policy is disarmed: by hand: migration",)
    ]
    assert host.rows("SELECT sum(deleted_count) FROM metrics") == [(0,)]


@each_action
def test_what_was_withheld_is_done_once_it_is_armed_again(host: Host, action: Action) -> None:
    host.time.at(5, disarm(host))
    host.time.at(6, lambda: jobs(host))
    host.time.at(50, arm(host))
    run(host, rule(action), seconds=90)
    assert len(touched(host)) == 2
    assert [row[2] for row in deletions(host)].count("notified") == 2
    assert len(deletions(host)) == 4


def test_a_rule_that_only_reports_goes_on_doing_so(host: Host) -> None:
    host.time.at(5, disarm(host))
    host.time.at(6, lambda: jobs(host))
    run(host, rule(Action.NOTIFY), seconds=90)
    assert [row[1:] for row in deletions(host)] == [("notify", "notified")] * 2
    assert host.rows("SELECT DISTINCT error FROM deletions") == [("",)]


def test_a_disarming_between_two_ticks_stops_the_pass_that_holds_the_limit(host: Host) -> None:
    host.time.at(5, disarm(host))

    def burst() -> None:
        host.docker.run(*(alpine(n) for n in range(12)))
        host.send("start")

    host.time.at(6, burst)
    run(host, seconds=15)
    assert touched(host) == []


def test_lost_records_disarm_within_two_ticks_remove_nothing_and_it_arms_itself(
    host: Host,
) -> None:
    losing(host, 40, 60)
    host.time.at(35, lambda: jobs(host))
    seen: dict[str, Any] = {}
    host.time.at(70, lambda: seen.update(status(host)))
    host.time.at(350, lambda: seen.update(removed=list(touched(host))))
    run(host, rule(Action.REMOVE), seconds=370)
    assert seen["armed"] is False
    assert seen["disarmed_why"] == "the budget loss is spent: 1000 of 1000 records are lost"
    assert seen["budgets"]["loss"] == 50
    assert seen["removed"] == [], "nothing for fifteen ticks"
    assert sorted(host.docker.removed) == ["job-1", "job-2"], "and then by itself"
    changes = host.rows("SELECT armed, timestamp FROM policy_arming ORDER BY id")
    assert [(armed, second(host, when)) for armed, when in changes] == [(0, 60), (1, 360)]
    # The tick between the first sign and the disarming acted on nothing either.
    first = host.rows("SELECT min(timestamp) FROM deletions")[0][0]
    assert second(host, first) == 60
    assert deletions(host)[:2] == [(f"job-{n}", "remove", "notified") for n in (2, 1)]


def test_a_canary_that_is_off_disarms_within_two_ticks_and_a_right_one_arms_again(
    host: Host, begun: list[Canary]
) -> None:
    """It is off by 10 % at its first run, and right five minutes later."""
    host.time.at(130, lambda: begun[0].end(1, GOOD, OFF))
    host.time.at(125, lambda: jobs(host))
    # The first look at which the jobs are there is one after the canary's end.
    seen: dict[str, Any] = {}
    host.time.at(165, lambda: seen.update(status(host)))
    host.time.at(460, lambda: begun[1].end(0, GOOD))
    host.time.at(700, lambda: seen.update(touched=list(touched(host))))
    run(host, rule(Action.REMOVE), seconds=790, proof__canary_hours=24)
    assert seen["armed"] is False
    assert seen["disarmed_why"] == (
        "the budget canary is spent: the canary's «CPU burnt» is off by 10.0 %"
    )
    assert seen["touched"] == []
    assert len(host.docker.removed) == 2
    changes = host.rows("SELECT armed, timestamp FROM policy_arming ORDER BY id")
    assert [(armed, second(host, when)) for armed, when in changes] == [(0, 160), (1, 760)]
    assert len(begun) == 2


def test_one_bad_tick_alone_acts_on_nothing_and_disarms_nothing(host: Host) -> None:
    losing(host, 40)
    host.time.at(35, lambda: jobs(host))
    run(host, rule(Action.REMOVE), seconds=50)
    assert touched(host) == []
    assert host.rows("SELECT * FROM policy_arming") == []
    again = Host(host.directory)
    jobs(again)
    run(again, rule(Action.REMOVE), seconds=10)
    assert len(again.docker.removed) == 2


def test_a_restart_arms_nothing_and_somebody_does(host: Host) -> None:
    losing(host, 20, 40)
    run(host, rule(Action.REMOVE), seconds=50)
    again = Host(host.directory)
    again.view = a_view(lost=0)
    jobs(again)
    again.time.at(50, arm(again))
    seen: list[Any] = []
    again.time.at(49, lambda: seen.extend(touched(again)))
    run(again, rule(Action.REMOVE), seconds=70)
    assert seen == []
    assert len(again.docker.removed) == 2


def test_a_host_without_bpf_goes_on_as_ever(host: Host) -> None:
    host.bpf = "off"
    jobs(host)
    run(host, rule(Action.REMOVE), seconds=30)
    assert len(host.docker.removed) == 2
    assert host.rows("SELECT * FROM policy_arming") == []
