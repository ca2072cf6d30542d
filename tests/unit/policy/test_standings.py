"""What a rule makes of the containers that it claims: excess, order, conditions, and doubt."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from agent.config import PolicySettings
from agent.model.container import (
    DOCKER,
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    Tier,
)
from agent.model.removal import Action, Decision, Reason
from agent.policy import decide, governance, original
from agent.policy.conditions import HostMoment, verdicts
from agent.policy.idle import Idleness
from agent.policy.rules import Rule, Rules
from tests.unit.policy.containers import OURS, container, ids_in_turn, totals

MINUTE_NS = 60 * 10**9
NOW_NS = 1000 * MINUTE_NS


def rule(**values: Any) -> Rule:
    return msgspec.convert({"name": "mine", "match": {"name": "*"}, **values}, Rule)


def job(number: int, held_mb: float = 1, cpu: float = 0, **changed: Any) -> ContainerTotals:
    return totals(container(number, name=f"job-{number}", **changed), held_mb=held_mb, cpu=cpu)


def settings(*rules: Rule) -> PolicySettings:
    return PolicySettings(rule=rules, rules=Rules.NONE)


def acting(
    everything: list[ContainerTotals],
    *rules: Rule,
    disputed: frozenset[ContainerKey] = frozenset(),
    now: HostMoment = HostMoment(now_ns=NOW_NS),  # noqa: B008 - frozen
) -> list[Decision]:
    of = settings(*rules)
    claimed = []
    for one in everything:
        seen = governance.claim(one.container, original.rule_set(of), OURS)
        claimed.append(replace(one, tier=seen.tier, governed=seen.governed, rule=seen.rule))
    return list(decide.decide(claimed, disputed, of, ids_in_turn(), now))


def numbers(decisions: list[Decision]) -> list[int]:
    return [int(one.container_id, 16) for one in decisions]


def started(*minutes_ago: int) -> HostMoment:
    """Containers 1, 2, … started so long ago."""
    return HostMoment(
        now_ns=NOW_NS,
        started_ns={
            ContainerKey(DOCKER, f"{n:064x}"): NOW_NS - m * MINUTE_NS
            for n, m in enumerate(minutes_ago, 1)
        },
    )


def test_those_beyond_keep_act_in_the_rule_s_order() -> None:
    jobs = [job(1, 30, 1), job(2, 10, 9), job(3, 20, 5)]
    by_age = started(5, 10, 20)
    found = {
        order: numbers(acting(jobs, rule(keep=1, order=order), now=by_age))
        for order in ("held", "cpu", "oldest", "youngest")
    }
    assert found == {
        "held": [1, 3],
        "cpu": [2, 3],
        "oldest": [3, 2],
        "youngest": [1, 2],
    }


def test_of_the_excess_only_those_that_meet_when_act_and_never_more_than_the_excess() -> None:
    jobs = [job(1, 5), job(2, 50), job(3, 40), job(4, 30)]
    assert numbers(acting(jobs, rule(keep=2, when={"held_mb": 10}))) == [2, 3]
    assert numbers(acting(jobs, rule(keep=3, when={"held_mb": 10}))) == [2]
    assert numbers(acting(jobs, rule(keep=2, when={"held_mb": 45}))) == [2]
    assert acting(jobs, rule(keep=4, when={"held_mb": 10})) == []


def test_without_keep_all_that_meet_when_act() -> None:
    jobs = [job(1, 5), job(2, 50), job(3, 40)]
    assert numbers(acting(jobs, rule(when={"held_mb": 10}))) == [2, 3]


def test_ended_ones_neither_count_nor_act_unless_the_rule_asks_for_exited() -> None:
    jobs = [job(1), job(2), job(3, state=ContainerState.EXITED)]
    assert acting(jobs, rule(keep=2)) == []
    assert acting(jobs, rule(when={"held_mb": 0}, match={"name": "job-3"})) == []
    ended = acting(jobs, rule(when={"exited": "0s"}, action="remove"))
    assert [(one.container_name, one.reason) for one in ended] == [("job-3", Reason.EXITED)]


@pytest.mark.parametrize("state", [ContainerState.CREATED, ContainerState.UNKNOWN])
def test_one_that_has_not_run_yet_is_left_to_whoever_makes_it(state: ContainerState) -> None:
    assert acting([job(1, state=state)], rule(when={"held_mb": 0})) == []
    assert acting([job(1, state=state)], rule(keep=0)) == []


@pytest.mark.parametrize("order", ["held", "cpu", "oldest", "youngest"])
def test_disputed_ones_hold_the_first_places_of_every_order(order: str) -> None:
    jobs = [job(n, n, n) for n in range(1, 6)]
    now = started(1, 2, 3, 4, 5)
    sure = numbers(acting(jobs, rule(keep=2, order=order), now=now))
    last = jobs[sure[-1] - 1].container.key
    least = next(one for one in jobs if int(one.container.id, 16) not in sure).container.key
    assert len(sure) == 3
    for disputed in (last, least):
        found = acting(jobs, rule(keep=2, order=order), disputed=frozenset({disputed}), now=now)
        assert numbers(found) == [n for n in sure if f"{n:064x}" != disputed.id][:2]


def test_one_whose_figure_is_unknown_holds_a_place_and_is_spared() -> None:
    jobs = [job(1, 10), job(2, 20), job(3, 30)]
    # Nobody saw when the third started.
    now = started(10, 20)
    assert numbers(acting(jobs, rule(keep=1, order="oldest"), now=now)) == [2]
    assert numbers(acting(jobs, rule(keep=0, when={"age": "1m"}), now=now)) == [2, 1]
    no_cpu = [job(1, cpu=math.nan), job(2, cpu=5), job(3, cpu=9)]
    assert numbers(acting(no_cpu, rule(keep=1, order="cpu"))) == [3]


def test_keep_is_counted_for_each_engine() -> None:
    here = [job(1, 10), job(2, 20)]
    there = [job(3, 90), job(4, 80)]
    away = [
        replace(one, container=replace(one.container, engine="podman"), rule="") for one in there
    ]
    assert acting([*here, *away], rule(keep=2)) == []
    found = acting([*here, *away], rule(keep=1))
    assert sorted((one.engine, one.container_name) for one in found) == [
        ("docker", "job-2"),
        ("podman", "job-3"),
    ]


def test_a_silent_engine_s_part_is_suspended_as_its_containers_are_not_in_the_look() -> None:
    assert acting([job(1, 10)], rule(keep=1)) == []


HOST = HostMoment(now_ns=NOW_NS, available_kb=300 * 1024, pressure=50.0)


@pytest.mark.parametrize(
    "when", [{"available_mb": 400}, {"pressure": {"memory": 20}}], ids=["available", "pressure"]
)
def test_a_condition_of_the_whole_host_makes_one_container_act(when: dict[str, Any]) -> None:
    jobs = [job(1, 10), job(2, 30), job(3, 20)]
    found = acting(jobs, rule(when=when, action="remove"), now=HOST)
    assert numbers(found) == [2]
    assert found[0].grace_s == 0
    assert acting(jobs, rule(when=when, action="remove")) == []


def test_one_container_of_all_rules_of_the_host_acts_and_a_report_holds_up_no_remedy() -> None:
    jobs = [job(1, 10), job(2, 30), job(3, 20)]
    found = acting(
        jobs,
        rule(name="report", match={"name": "job-1"}, when={"available_mb": 900}),
        rule(name="a", match={"name": "job-2"}, when={"available_mb": 400}, action="stop"),
        rule(name="b", when={"available_mb": 350}, action="remove", grace_s=3),
        now=HOST,
    )
    assert [(one.rule, one.container_name) for one in found] == [
        ("report", "job-1"),
        ("a", "job-2"),
    ]


def test_a_decision_says_which_rule_does_what() -> None:
    (one,) = acting([job(1)], rule(keep=0, action="stop", grace_s=7))
    assert (one.rule, one.action, one.grace_s, one.reason) == (
        "mine",
        Action.STOP,
        7,
        Reason.RULE,
    )
    assert one.tier is Tier.NONE
    assert acting([job(1)], rule(keep=0))[0].action is Action.NOTIFY


def test_one_s_own_rules_come_before_the_built_in_set_in_the_order_of_the_file() -> None:
    of = PolicySettings(
        rule=(
            rule(name="second", match={"name": "b*"}, keep=0, action="remove"),
            rule(name="first", match={"name": "a*"}, keep=0, action="remove"),
        ),
        keep_low=0,
    )
    everything = []
    for number, name in enumerate(["a", "b", "so1_contenedor_1", "other"]):
        one = totals(container(number, name=name), held_mb=number)
        seen = governance.claim(one.container, original.rule_set(of), OURS)
        everything.append(replace(one, tier=seen.tier, governed=seen.governed, rule=seen.rule))
    found = decide.decide(everything, frozenset(), of, ids_in_turn())
    assert [one.container_name for one in found] == ["b", "a", "so1_contenedor_1"]
    assert [one.reason for one in found] == [Reason.RULE, Reason.RULE, Reason.EXCESS_LOW]


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(
    "spared",
    [
        {"labels": {"so1.protect": "true"}},
        {"labels": {"so1.protect": ""}},
        {"labels": {"com.docker.compose.project": "so1-grafana"}},
        {"image": "grafana/grafana"},
    ],
)
def test_what_is_protected_is_neither_claimed_nor_counted_whatever_the_action(
    action: Action, spared: dict[str, Any]
) -> None:
    jobs = [job(1, 99, **spared), job(2, 5)]
    assert acting(jobs, rule(keep=1, action=action)) == []
    slipped = replace(jobs[0], governed=True, rule="mine")
    of = settings(rule(keep=0, action=action))
    assert decide.decide([slipped], frozenset(), of, ids_in_turn()) == ()


@pytest.mark.parametrize("action", list(Action))
def test_what_the_witnesses_disagree_on_is_spared_whatever_the_action(action: Action) -> None:
    one = job(1, 99)
    disputed = frozenset({one.container.key})
    assert acting([one], rule(keep=0, action=action), disputed=disputed) == []
    when = rule(when={"held_mb": 1}, action=action)
    assert acting([one], when, disputed=disputed) == []


def of(one: ContainerTotals, now: HostMoment, **when: Any) -> tuple[bool | None, str]:
    (verdict,) = verdicts(rule(when=when), one, now)
    assert verdict.condition in when
    assert bool(verdict.missing) is (verdict.met is None)
    return verdict.met, verdict.missing


def test_each_condition_is_held_against_its_figure() -> None:
    one = job(1, 100, cpu=50)
    now = replace(started(10), available_kb=500 * 1024, pressure=20.0)
    assert of(one, now, age="10m")[0] is True
    assert of(one, now, age="11m")[0] is False
    assert of(one, now, held_mb=100)[0] is True
    assert of(one, now, held_mb=100.5)[0] is False
    assert of(one, now, cpu={"above": 49})[0] is True
    assert of(one, now, cpu={"above": 50})[0] is False
    assert of(one, now, available_mb=501)[0] is True
    assert of(one, now, available_mb=500)[0] is False
    assert of(one, now, pressure={"memory": 19})[0] is True
    assert of(one, now, pressure={"memory": 20})[0] is False
    assert of(one, now, exited="0s")[0] is False


def test_a_figure_that_is_unknown_leaves_its_condition_unmet_and_says_what_is_missing() -> None:
    one = job(1, cpu=math.nan)
    now = HostMoment(now_ns=NOW_NS)
    assert of(one, now, age="1s") == (None, "it does not run")
    assert of(one, now, cpu={"above": 1}) == (None, "its CPU is not known")
    assert "psi=1" in of(one, now, pressure={"memory": 1})[1]
    assert of(one, now, unhealthy="1s") == (None, "it has no health check")
    assert of(one, now, idle="1s") == (None, "it was not measured long enough")
    shared = replace(now, idle={one.container.key: Idleness(None, missing="its network is shared")})
    assert of(one, shared, idle="1s") == (None, "its network is shared")
    assert of(one, now, available_mb=1)[0] is None


def test_a_paused_one_is_never_idle() -> None:
    paused = job(1, state=ContainerState.PAUSED)
    assert of(paused, HostMoment(now_ns=NOW_NS), idle="1s")[0] is False


LEVELS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "cpu": ({"cpu": {"above": 90, "for": "10m"}}, "cpu>90", {}),
    "exited": ({"exited": "10m"}, "exited", {"state": ContainerState.EXITED}),
    "unhealthy": ({"unhealthy": "10m"}, "unhealthy", {}),
    "pressure": ({"pressure": {"memory": 20, "for": "10m"}}, "pressure>20", {}),
}


@pytest.mark.parametrize("what", LEVELS)
def test_what_must_last_counts_from_when_it_began_and_not_before(what: str) -> None:
    when, key, changed = LEVELS[what]
    one = job(1, cpu=95, **changed)
    sick: Container = replace(one.container, health="unhealthy")
    one = replace(one, container=sick)
    met = [
        of(one, replace(HOST, since={(sick.key, key): NOW_NS - m * MINUTE_NS}), **when)[0]
        for m in (9, 10)
    ]
    assert met == [False, True]
    assert of(one, HOST, **when)[0] is False
