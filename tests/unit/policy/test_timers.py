"""Since when something has been so: observed time counts, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from agent.model.container import DOCKER, ContainerKey
from agent.model.policy_state import PolicyState, StateKind
from agent.model.removal import Action, Outcome, Removal
from agent.policy.conditions import HostMoment
from agent.policy.decide import Standing
from agent.policy.memory import RuleMemory
from agent.policy.rules import RuleSet
from agent.policy.timers import Timer, Timers, holding
from tests.unit.policy.test_arming import ONE, decision, rule
from tests.unit.policy.test_standings import job
from tests.unit.policy.test_standings import rule as any_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

S = 10**9
ONE_KEY = ContainerKey(DOCKER, "a" * 64)
KEY = (ONE_KEY, "cpu>90")


def looked(*looks: tuple[int, bool | None]) -> int | None:
    """How long the level has been so at the last of these looks, 30 s being the longest gap."""
    timers = Timers(30 * S)
    for second, holds in looks:
        timers.seen({KEY: holds}, second * S)
    since = timers.since.get(KEY)
    return None if since is None else (looks[-1][0] * S - since) // S


def test_it_counts_from_the_first_look_that_saw_it_and_ends_with_one_that_does_not() -> None:
    assert looked((0, False), (20, True)) == 0
    assert looked((0, False), (20, True), (40, True), (60, True)) == 40
    assert looked((0, True), (20, False)) is None
    assert looked((0, True), (20, False), (40, True)) == 0


def test_time_that_nobody_observed_does_not_count() -> None:
    assert looked((0, True), (20, True), (500, True)) == 20
    assert looked((0, True), (20, True), (500, True), (520, True)) == 40


def test_a_look_at_which_it_is_unknown_neither_ends_it_nor_counts() -> None:
    assert looked((0, True), (20, True), (40, None), (60, True)) == 20
    assert looked((0, True), (20, True), (40, None), (50, True)) == 50


def test_a_container_that_is_gone_has_no_timer() -> None:
    timers = Timers(30 * S)
    timers.seen({KEY: True}, 0)
    timers.seen({}, 20 * S)
    assert timers.kept == {}


@given(st.lists(st.tuples(st.integers(1, 100), st.sampled_from([True, False, None])), min_size=1))
def test_no_more_time_is_counted_than_was_observed(
    looks: list[tuple[int, bool | None]],
) -> None:
    """The oracle adds up steps that begin and end with a look that saw it, none of them long."""
    timers, now, counted = Timers(30 * S), 0, 0
    last: int | None = None
    for step, holds in looks:
        now += step
        timers.seen({KEY: holds}, now * S)
        if holds:
            counted = counted + (now - last if last is not None and now - last <= 30 else 0)
            last = now
            assert timers.since[KEY] == (now - counted) * S
        elif holds is False:
            counted, last = 0, None
            assert KEY not in timers.since


def test_the_time_in_which_the_agent_was_down_does_not_count_however_short() -> None:
    timers = Timers(30 * S)
    timers.resume({KEY: Timer(0, 100 * S)})
    timers.seen({KEY: None}, 105 * S)
    timers.seen({KEY: True}, 110 * S)
    assert timers.since[KEY] == 10 * S
    timers.seen({KEY: True}, 130 * S)
    assert timers.since[KEY] == 10 * S


def test_only_levels_that_must_last_have_timers_and_only_of_claimed_containers() -> None:
    waits = any_rule(when={"cpu": {"above": 90, "for": "1m"}, "pressure": {"memory": 1}})
    one = replace(job(1, cpu=95), rule="mine")
    found = holding([one, job(2, cpu=95)], RuleSet((waits,)), HostMoment(pressure=50.0))
    assert found == {(one.container.key, "cpu>90"): True}


def test_what_is_remembered_goes_through_the_history_and_the_down_time_is_taken_out() -> None:
    mine = rule(Action.NOTIFY, ("1h", "stop"))
    before = RuleMemory(30 * S)
    before.timers.seen({KEY: True}, 50 * S)
    before.done([Removal(decision(mine), Outcome.NOTIFIED, 1)], 60 * S)
    rows = before.rows()
    assert rows is not None
    rows = tuple(replace(one, seen_ns=70 * S) for one in rows)
    assert {one.kind for one in rows} == {StateKind.TIMER, StateKind.FIRED}
    after = RuleMemory(30 * S, rows, 100 * S)
    assert after.timers.kept == {KEY: Timer(50 * S, 70 * S)}
    assert [one.first_ns for one in after.arming.kept.values()] == [90 * S]
    assert after.arming.due([decision(mine)], RuleSet((mine,)), 200 * S) == ()


def test_nothing_is_written_where_nothing_is_remembered_and_an_end_is_written_once() -> None:
    memory = RuleMemory(30 * S)
    assert memory.rows() is None
    memory.timers.seen({KEY: True}, 0)
    rows = memory.rows()
    assert rows == (PolicyState(StateKind.TIMER, "cpu>90", ONE_KEY, 0, 0),)
    memory.stored(rows)
    memory.timers.seen({}, 1)
    ends: Sequence[object] = [memory.rows(), memory.rows()]
    assert ends == [(), ()], "until the history has it"
    memory.stored(())
    assert memory.rows() is None


def test_a_rule_is_not_armed_again_by_a_look_that_knows_nothing() -> None:
    mine = rule(Action.NOTIFY)
    memory = RuleMemory(30 * S)
    memory.done([Removal(decision(mine), Outcome.NOTIFIED, 1)], 0)
    memory.arming.seen([Standing(ONE, mine, 0, 0, None, False, "spared")])
    assert memory.arming.due([decision(mine)], RuleSet((mine,)), S) == ()
