"""What becomes a notification: the same thing once, its end when it is over, no hostile text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.model.notification import Event
from agent.model.proof import ARMED, ArmingWord
from agent.model.removal import Action, Outcome, Removal
from agent.policy import alerts
from agent.policy.alerts import Lasting
from tests.unit.store.builders import ID_A, a_removal

SPENT = ArmingWord(False, 5, "the budget loss is spent: 30 of 40 records are lost")


def removal(action: Action, outcome: Outcome, **more: Any) -> Removal:
    one = a_removal()
    decision = replace(one.decision, action=action, rule="ci", container_id=ID_A, **more)
    return replace(one, decision=decision, outcome=outcome)


def test_a_report_of_a_rule_is_the_same_alert_at_every_tick() -> None:
    one = alerts.of_removal(removal(Action.NOTIFY, Outcome.NOTIFIED, id="x"))
    other = alerts.of_removal(removal(Action.NOTIFY, Outcome.NOTIFIED, id="y"))
    assert one == other
    assert (one.event, one.key) == (Event.RULE, f"rule/ci/{ID_A}")
    assert one.labels["container_id"] == ID_A[:12]
    assert one.labels["rule"] == "ci"


@pytest.mark.parametrize("action", [one for one in Action if one.is_destructive])
def test_what_is_withheld_says_what_would_have_been_done(action: Action) -> None:
    one = alerts.of_removal(removal(action, Outcome.NOTIFIED))
    assert one.event is Event.WITHHELD
    assert f"hit by {action} of the rule ci" in one.summary


def test_each_action_is_one_of_its_own() -> None:
    one = alerts.of_removal(removal(Action.STOP, Outcome.STOPPED, id="x"))
    other = alerts.of_removal(removal(Action.STOP, Outcome.FAILED, id="y"))
    assert (one.event, one.labels["outcome"]) == (Event.ACTION, "stopped")
    assert one.key != other.key


def test_a_hostile_name_is_text_of_bounded_length() -> None:
    one = alerts.of_removal(
        removal(Action.NOTIFY, Outcome.NOTIFIED, container_name="a\x1b[2J\n\udcff" + "x" * 5000)
    )
    assert len(one.labels["container"]) < 400
    for text in (one.summary, *one.labels.values()):
        assert text.isprintable()
        assert text.encode("utf-8")


def test_what_the_policys_own_state_begins() -> None:
    lasting = Lasting(SPENT, returning={"compose service a/b": 3})
    assert [(one.event, one.key) for one in alerts.beginning(lasting)] == [
        (Event.DISARMED, "disarmed"),
        (Event.OWNER_RECREATES, "owner-recreates/compose service a/b"),
    ]
    assert list(alerts.beginning(Lasting(ARMED))) == []


def test_what_is_over_and_what_could_not_be_seen_this_time() -> None:
    active = ["disarmed", "owner-recreates/x", "rule/ci/a", "rule/ci/b", "withheld/ci/a", "odd/z"]
    unseen = Lasting(SPENT, returning={"x": 3})
    assert alerts.over(active, unseen) == []
    assert alerts.over(active, Lasting(ARMED, [("ci", "b")], [])) == [
        *("disarmed", "owner-recreates/x", "rule/ci/a", "withheld/ci/a"),
    ]
