"""Who is idle: each thing that is no rest, what of it is a health check's, and what is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.activity import Activity
from agent.model.container import ContainerState, ContainerTotals
from agent.model.process import ProcessKey
from agent.policy import idle
from agent.policy.conditions import HostMoment
from agent.policy.idle import Footprint, idleness
from agent.policy.memory import RuleMemory
from agent.policy.rules import RuleSet
from agent.policy.timers import Timer, Timers
from tests.unit.policy.test_standings import acting, job, numbers, rule

S = 10**9
BEFORE = Activity(0, 7, cpu_ns=5 * S, io_operations=10, sent_bytes=100)
MAIN = ProcessKey(50, 1)
ONE = job(1)
KEY = ONE.container.key


def look(
    one: ContainerTotals = ONE,
    before: frozenset[ProcessKey] | None = frozenset({MAIN}),
    now: frozenset[ProcessKey] = frozenset({MAIN}),
    **changed: Any,
) -> idle.Idleness:
    """Twenty seconds later, with what changed in between."""
    after = replace(replace(BEFORE, read_ns=20 * S), **changed)
    return idleness(one, Footprint(BEFORE, before), Footprint(after, now))


def test_one_of_which_nothing_changed_is_idle() -> None:
    found = look()
    assert (found.holds, found.is_proven) == (True, True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cpu_ns": 5 * S + 21 * 10**6}, "0.1 % CPU"),
        ({"io_operations": 11}, "1 reads and writes"),
        ({"sent_bytes": 142}, "42 bytes sent"),
        ({"life_id": 8}, "started again"),
    ],
)
def test_each_thing_that_is_no_rest_ends_it(changed: dict[str, Any], said: str) -> None:
    found = look(**changed)
    assert (found.holds, found.value, found.is_proven) == (False, said, False)


def test_a_thousandth_of_a_cpu_is_rest() -> None:
    assert look(cpu_ns=5 * S + 20 * 10**6).holds is True


@pytest.mark.parametrize("figure", ["starts", "exits"])
def test_a_process_that_no_snapshot_saw_is_no_rest_but_a_health_check(figure: str) -> None:
    busy = replace(ONE, **{figure: 1})  # type: ignore[arg-type]
    assert look(busy).holds is False
    checked = replace(busy, container=replace(ONE.container, health="healthy"))
    assert look(checked).holds is True


def test_a_process_that_began_or_ended_is_no_rest() -> None:
    other = ProcessKey(60, 2)
    assert look(now=frozenset({MAIN, other})).holds is False
    assert look(before=frozenset({MAIN, other})).holds is False


def test_the_cpu_of_a_health_check_that_bpf_saw_is_not_the_containers() -> None:
    checked = replace(
        ONE, container=replace(ONE.container, health="healthy"), cpu_short_lived_percent=0.3
    )
    assert look(checked, cpu_ns=5 * S + 70 * 10**6).holds is True
    assert look(checked, cpu_ns=5 * S + 90 * 10**6).holds is False
    assert look(replace(ONE, cpu_short_lived_percent=0.3), cpu_ns=5 * S + 70 * 10**6).holds is False


def test_young_processes_of_docker_exec_are_a_health_checks_where_it_has_one() -> None:
    first = replace(ONE.container, first_pid=50)
    members = [
        (MAIN, 1),
        (ProcessKey(51, 2), 50),
        (ProcessKey(60, 90 * S), 9),
        (ProcessKey(61, 2), 9),
    ]
    plain = replace(ONE, container=first)
    checked = replace(ONE, container=replace(first, health="starting"))
    assert len(idle._counted(plain, members, 100 * S)) == 4
    assert {key.pid for key in idle._counted(checked, members, 100 * S)} == {50, 51, 61}


def test_a_paused_one_cannot_be_idle() -> None:
    paused = replace(ONE, container=replace(ONE.container, state=ContainerState.PAUSED))
    assert look(paused).holds is False


def test_what_is_not_known_is_neither_idle_nor_busy() -> None:
    shared = look(missing="its network is shared")
    assert (shared.holds, shared.missing) == (None, "its network is shared")
    assert idleness(ONE, None, Footprint(BEFORE)).holds is None


@given(
    st.fixed_dictionaries(
        {name: st.integers(0, 3) for name in ("cpu_ns", "io_operations", "sent_bytes", "life_id")}
    )
)
def test_only_counters_that_stand_still_prove_a_time(steps: dict[str, int]) -> None:
    changed = {name: getattr(BEFORE, name) + step * 10**9 for name, step in steps.items()}
    found = look(**changed)
    assert found.is_proven is (found.holds is True) is not any(steps.values())


def test_the_time_in_which_the_agent_was_down_counts_where_the_counters_prove_it() -> None:
    timers = Timers(30 * S)
    timers.resume({(KEY, "idle"): Timer(0, 100 * S)})
    timers.seen({(KEY, "idle"): True}, 5000 * S, {KEY})
    assert timers.since[(KEY, "idle")] == 0
    timers.resume({(KEY, "cpu>90"): Timer(0, 100 * S)})
    timers.seen({(KEY, "cpu>90"): True}, 5000 * S, {KEY})
    assert timers.since[(KEY, "cpu>90")] == 4900 * S, "no counter proves what CPU it had"


def test_counters_go_through_the_history_and_odd_ones_are_nobodys() -> None:
    memory = RuleMemory(30 * S)
    memory._idle = idle.Looked({KEY: Footprint(BEFORE, frozenset())})
    rows = memory.rows()
    assert rows is not None
    assert RuleMemory(30 * S, rows)._idle.traces == {KEY: Footprint(BEFORE)}
    for odd in ("", "[]", '["a"]', "{}"):
        broken = [replace(one, value=odd) for one in rows]
        assert RuleMemory(30 * S, broken)._idle.traces == {}


def test_beyond_keep_those_go_first_that_have_been_idle_longest_and_unknown_ones_are_spared() -> (
    None
):
    jobs = [job(number) for number in (1, 2, 3, 4)]
    mine = rule(keep=1, order="idle")
    since = {(jobs[0].container.key, "idle"): 70 * S, (jobs[2].container.key, "idle"): 20 * S}
    busy = {jobs[1].container.key: idle.Idleness(False, "9 bytes sent")}
    now = HostMoment(now_ns=100 * S, since=since, idle=busy)
    assert numbers(acting(jobs, mine, now=now)) == [3, 1], "the fourth is unknown and holds a place"


def test_it_is_measured_only_while_a_rule_asks() -> None:
    assert not idle.is_asked_for(RuleSet((rule(keep=1),)))
    assert idle.is_asked_for(RuleSet((rule(keep=1, order="idle"),)))
    assert idle.is_asked_for(RuleSet((rule(when={"idle": "1m"}),)))
