"""A rule acts once on a container, and again only after it was false."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from agent.model.removal import Action, Decision, Outcome, Removal
from agent.policy.arming import Arming
from agent.policy.decide import Standing
from agent.policy.rules import Rule, RuleSet
from tests.unit.policy.containers import container, totals

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR_NS = 3600 * 10**9
ONE = totals(container(1, name="job"))
DONE = {
    Action.NOTIFY: Outcome.NOTIFIED,
    Action.STOP: Outcome.STOPPED,
    Action.RESTART: Outcome.RESTARTED,
    Action.PAUSE: Outcome.PAUSED,
}


def rule(action: Action = Action.NOTIFY, *steps: tuple[str, str]) -> Rule:
    return msgspec.convert(
        {
            "name": "mine",
            "match": {"name": "*"},
            "when": {"age": "6h"},
            "action": action,
            "step": [{"after": after, "action": what} for after, what in steps],
        },
        Rule,
    )


def decision(of: Rule) -> Decision:
    one = ONE.container
    return Decision(
        *("d", one.id, one.name, one.image, 0, ONE.tier, 1, "rule", 1.0, 0.0),  # type: ignore[arg-type]
        action=of.action,
        rule=of.name,
    )


class Run:
    """Looks one after another, each carried out as the engine is told to answer."""

    def __init__(self, of: Rule, outcome: Outcome | None = None) -> None:
        self.arming = Arming()
        self.rule = of
        self.outcome = outcome

    def look(self, hour: float, *, holds: bool = True) -> list[Action]:
        now_ns = int(hour * HOUR_NS)
        self.arming.seen([Standing(ONE, self.rule, 0, 0, holds, holds, "")])
        decisions: Sequence[Decision] = [decision(self.rule)] if holds else []
        due = self.arming.due(decisions, RuleSet((self.rule,)), now_ns)
        done = [Removal(one, self.outcome or DONE[one.action], 1) for one in due]
        self.arming.done(done, now_ns)
        return [one.action for one in due]


@pytest.mark.parametrize("action", list(DONE))
def test_a_rule_acts_once_and_again_only_after_its_condition_was_false(action: Action) -> None:
    run = Run(rule(action))
    assert run.look(0) == [action]
    assert run.look(1) == run.look(50) == []
    assert run.look(51, holds=False) == []
    assert run.look(52) == [action]


@pytest.mark.parametrize("action", list(Action))
def test_what_failed_is_due_again_whatever_the_action(action: Action) -> None:
    run = Run(rule(action), Outcome.FAILED)
    assert [run.look(hour) for hour in range(3)] == [[action]] * 3


def test_one_that_was_left_alone_is_due_again() -> None:
    run = Run(rule(Action.REMOVE), Outcome.GONE)
    assert [run.look(hour) for hour in range(2)] == [[Action.REMOVE]] * 2


def test_steps_count_from_the_first_action_while_the_condition_stays_true() -> None:
    run = Run(rule(Action.NOTIFY, ("1h", "pause"), ("3h", "stop")))
    assert run.look(10) == [Action.NOTIFY]
    assert run.look(10.9) == []
    assert run.look(11) == [Action.PAUSE]
    assert run.look(12.9) == []
    assert run.look(13) == [Action.STOP]
    assert run.look(100) == []


def test_a_condition_that_was_false_in_between_begins_the_steps_again() -> None:
    run = Run(rule(Action.NOTIFY, ("1h", "stop")))
    run.look(10)
    run.look(10.5, holds=False)
    assert run.look(11) == [Action.NOTIFY]
    assert run.look(11.5) == []
    assert run.look(12) == [Action.STOP]


def test_what_one_run_did_another_does_not_do_again() -> None:
    before, after = Run(rule(Action.RESTART)), Run(rule(Action.RESTART))
    before.look(1)
    after.arming.resume(before.arming.kept)
    assert after.look(2) == []


def test_a_decision_of_no_rule_is_always_due() -> None:
    arming = Arming()
    alone = Decision("d", "a" * 64, "x", "y", 0, ONE.tier, 1, "stop", 1.0, 0.0)  # type: ignore[arg-type]
    assert arming.due([alone], RuleSet(), 0) == (alone,)
