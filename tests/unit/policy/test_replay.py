"""The history decided on again: what was recorded is found; what other rules would do is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.container import ContainerKey, ContainerState
from agent.model.past import PastDecision, PastTick
from agent.policy import decide
from agent.policy.conditions import HostMoment
from agent.policy.replay_limits import limits
from agent.policy.replay_quiet import Together, may_act
from agent.policy.rules import RuleSet
from tests.unit.policy.containers import container, totals
from tests.unit.policy.past import compared, decision, row, simulated, tick
from tests.unit.policy.test_standings import rule

KEEPS = rule(keep=1, action="remove")
LARGE = rule(when={"held_mb": 50}, action="remove")


def test_what_was_decided_is_reproduced_and_what_was_not_of_a_rule_is_apart() -> None:
    found = compared(
        [
            tick(0, row(1, 10)),
            tick(1, row(1, 10), row(2, 20)),
            decision(1, 2),
            tick(2, row(1, 10)),
            decision(2, 1, reason="stop", rule=""),
            decision(2, 1, decision="free-1"),
        ],
        KEEPS,
    )
    assert (found.ticks, found.recorded, found.reproduced, found.not_of_rules) == (3, 1, 1, 2)
    assert found.differences == []


def test_a_removal_that_took_two_ticks_is_the_decision_of_the_first() -> None:
    both = (row(1, 10), row(2, 20))
    found = compared([tick(0, *both), tick(1, *both), decision(1, 2), tick(2, row(1, 10))], KEEPS)
    assert (found.recorded, found.reproduced, found.differences) == (1, 1, [])


def test_none_is_decided_on_in_place_of_one_that_was_going() -> None:
    """While the second went, the first came to hold more than it."""
    found = compared(
        [
            tick(0, row(1, 10), row(2, 20)),
            tick(1, row(1, 10), row(2, 5)),
            decision(2, 2),
            *(tick(number, row(1, 10)) for number in range(2, 20)),
        ],
        KEEPS,
    )
    assert (found.recorded, found.reproduced, found.differences) == (1, 1, [])


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([tick(0, row(1, 10), row(2, 20)), decision(0, 1)], "within the 1 that stay"),
        ([tick(0, row(1)), decision(0, 2)], "no stored tick has it"),
        ([tick(0, row(1)), decision(0, 1, rule="old")], "not among the rules of now"),
        ([tick(0, row(1)), decision(1, 3)], "between two ticks"),
        ([tick(0, row(1), row(2), disputed=None), decision(0, 1)], "not stored any more"),
    ],
)
def test_each_recorded_decision_that_is_not_made_again_has_its_reason(
    events: list[PastTick | PastDecision], reason: str
) -> None:
    found = compared(events, KEEPS)
    assert (found.recorded, found.reproduced) == (1, 0)
    (one,) = [each for each in found.differences if each.recorded]
    assert reason in one.reason


def test_what_is_decided_here_and_was_never_recorded_is_reported_once() -> None:
    pair = (row(1, 10), row(2, 20))
    found = compared([tick(n, *pair) for n in range(30)], KEEPS)
    (one,) = found.differences
    assert (one.recorded, one.container_name) == (False, "job-2")
    assert "go on to decide it" in one.reason


def test_what_a_rule_had_done_before_the_span_is_no_difference_and_its_step_still_follows() -> None:
    notes = rule(when={"held_mb": 50}, step=[{"after": "5m", "action": "stop"}])
    assert compared([tick(n, row(1, 90)) for n in range(12)], notes).differences == []
    seen: list[PastTick | PastDecision] = [
        *[tick(n, row(1, 10)) for n in range(2)],
        *[tick(n, row(1, 90)) for n in range(2, 3)],
        decision(2, 1, action="notify", outcome="notified"),
        *[tick(n, row(1, 90)) for n in range(3, 18)],
        decision(17, 1, action="stop", outcome="stopped"),
    ]
    found = compared(seen, notes)
    assert (found.recorded, found.reproduced, found.differences) == (2, 2, [])


def test_a_failed_removal_is_decided_again_and_each_of_its_rows_is_reproduced() -> None:
    pair = (row(1, 10), row(2, 20))
    failed = [decision(n, 2, outcome="failed", error="no") for n in (0, 3)]
    events: list[PastTick | PastDecision] = [tick(0, *pair), failed[0]]
    events += [*(tick(n, *pair) for n in (1, 2, 3)), failed[1]]
    found = compared(events, KEEPS)
    assert (found.recorded, found.reproduced, found.differences) == (2, 2, [])


def test_what_was_decided_again_before_its_row_has_two_rows() -> None:
    """It was gone by the second time, or ended between two looks: the look had it still."""
    pair = (row(1, 10), row(2, 20))
    ends = rule(name="ended", when={"exited": "0s"}, action="remove")
    left = [row(1, 10), row(2, 0, processes=0, rule="ended")]
    for second, again in ((pair, "mine"), (left, "ended")):
        events: list[PastTick | PastDecision] = [tick(0, *pair), tick(1, *second)]
        events += [decision(1, 2), tick(2, row(1, 10))]
        events.append(decision(2, 2, outcome="gone", rule=again))
        found = compared(events, KEEPS, ends)
        assert (found.recorded, found.reproduced, found.differences) == (2, 2, [])


def test_what_a_killed_agent_had_begun_has_a_row_of_the_next_one_s_rule_alone() -> None:
    ends = rule(name="ended", when={"exited": "0s"}, action="remove")
    left = row(2, 0, processes=0, rule="ended")
    seen = [tick(0, row(1, 10), row(2, 20)), tick(1, row(1, 10), left)]
    found = compared([*seen, decision(1, 2, rule="ended")], KEEPS, ends)
    assert (found.recorded, found.reproduced, found.differences) == (1, 1, [])


def test_a_second_row_of_what_was_decided_once_is_none_of_it() -> None:
    pair = (row(1, 10), row(2, 20))
    first: list[PastTick | PastDecision] = [tick(0, *pair), decision(0, 2)]
    found = compared([*first, tick(1, row(1, 10)), decision(1, 2, outcome="gone")], KEEPS)
    assert (found.recorded, found.reproduced) == (2, 1)
    assert [one.recorded for one in found.differences] == [True]


def test_a_condition_that_must_last_counts_over_ticks_and_not_over_a_gap() -> None:
    busy = rule(when={"cpu": {"above": 50, "for": "1m"}}, action="remove")
    hot = row(1, cpu_percent=90.0, rule=None, governed=0)
    steady = simulated([tick(n, hot) for n in range(6)], busy)
    assert [one.timestamp_ms for one in steady.actions] == [tick(3).timestamp_ms]
    gap = simulated([tick(n, hot) for n in (0, 1, 2, 30, 31)], busy)
    assert [one.timestamp_ms for one in gap.actions] == [tick(31).timestamp_ms]


def test_other_rules_act_once_say_what_they_give_back_and_when_it_really_went() -> None:
    found = simulated(
        [
            tick(0, row(1, 60), row(2, 10)),
            tick(1, row(1, 80), row(2, 10)),
            tick(2, row(1, 70), row(2, 10)),
            decision(2, 1),
            tick(3, row(2, 10)),
        ],
        LARGE,
    )
    (one,) = found.actions
    assert (one.container_name, one.action, one.held_mb) == ("job-1", "remove", 60)
    assert (one.timestamp_ms, one.removed_ms) == (tick(0).timestamp_ms, tick(2).timestamp_ms)
    assert (found.most_given_back_mb, found.most_given_back_ms) == (80, tick(1).timestamp_ms)
    assert not one.unsure


def test_what_would_have_gone_counts_as_available_so_that_one_after_the_other_goes() -> None:
    short = rule(when={"available_mb": 500}, action="remove")
    crowd = (row(1, 300), row(2, 200), row(3, 100))
    found = simulated([tick(n, *crowd, available_mb=150.0) for n in range(4)], short)
    assert [one.container_name for one in found.actions] == ["job-1", "job-2"]


def test_what_the_history_does_not_have_is_never_met_and_said() -> None:
    unknown = {
        "idle": rule(when={"idle": "1m"}, action="remove"),
        "unhealthy": rule(when={"unhealthy": "1m"}, action="remove"),
        "label": rule(match={"label": "a=b"}, keep=0, action="remove"),
        "project": rule(match={"project": "*"}, keep=0, action="remove"),
    }
    for key, one in unknown.items():
        assert simulated([tick(n, row(1)) for n in range(9)], one).actions == []
        assert key in limits(RuleSet((one,)), as_claimed=False)[0]
    assert "first saw it run" in limits(RuleSet((rule(when={"age": "1h"}),)), as_claimed=True)[0]


def test_nothing_would_go_while_the_engine_is_away_or_nobody_knows_who_is_disputed() -> None:
    for changed in ({"engine_answered": False}, {"disputed": None}, {"disputed": {row(1)[0]}}):
        assert simulated([tick(0, row(1, 60), **changed)], LARGE).actions == []
    (one,) = simulated([tick(0, row(1, 60, governed=0, rule=None))], LARGE).actions
    assert one.unsure, "a label may have protected it"


WHENS = st.fixed_dictionaries(
    {},
    optional={
        "held_mb": st.sampled_from([1, 20]),
        "cpu": st.fixed_dictionaries({"above": st.sampled_from([0, 50])}),
        "available_mb": st.sampled_from([100, 5000]),
        "pressure": st.fixed_dictionaries({"memory": st.sampled_from([5, 50])}),
        "exited": st.just("0s"),
    },
)
MEMBERS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 99)), min_size=1, max_size=5
)


@given(WHENS, st.none() | st.integers(0, 3), MEMBERS, st.sampled_from([50, 900]))
def test_a_tick_that_is_passed_over_would_have_decided_nothing(
    when: dict[str, object], keep: int | None, members: list[tuple[bool, int, int]], mb: int
) -> None:
    one = rule(when=when, keep=keep, action="remove")
    group, everyone = Together(), []
    for number, (runs, held_mb, cpu) in enumerate(members, 1):
        state = ContainerState.RUNNING if runs else ContainerState.EXITED
        made = totals(container(number, state=state), held_mb=held_mb, cpu=cpu)
        everyone.append(replace(made, governed=True, rule="mine"))
        group.count(runs)
        group.held_mb = max(group.held_mb, held_mb)
        group.cpu_percent = max(group.cpu_percent, cpu)
    if not may_act(one, group, mb, 10.0):
        now = HostMoment(now_ns=10**12, available_kb=mb * 1024, pressure=10.0)
        nobody: frozenset[ContainerKey] = frozenset()
        standings = decide.standings(everyone, nobody, RuleSet((one,)), now)
        assert not any(each.acts for each in standings)


def test_words_of_a_later_version_are_no_reason_to_end() -> None:
    later: list[PastTick | PastDecision] = [
        tick(0, row(1, 10, tier="middle"), row(2, 20)),
        decision(0, 2, outcome="frozen"),
        decision(0, 2, action="freeze"),
    ]
    assert compared(later, KEEPS).recorded == 2


def test_pressure_of_before_one_went_does_not_count_for_the_next() -> None:
    lasting = rule(when={"pressure": {"memory": 20, "for": "1m"}}, action="pause")
    pair = (row(1, 10), row(2, 20))
    pressed = [tick(n, *pair, psi_memory=55.0) for n in range(6)]
    calm = [tick(n, *pair, psi_memory=0.0) for n in range(6, 20)]
    went = decision(3, 2, action="pause", outcome="paused")
    found = compared([*pressed[:4], went, *pressed[4:], *calm], lasting)
    assert (found.recorded, found.reproduced, found.differences) == (1, 1, [])
