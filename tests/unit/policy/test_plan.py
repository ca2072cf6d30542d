"""What of a plan still holds: figures may move, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from agent.model.container import ContainerState
from agent.model.removal import Action
from agent.policy import plan as plans
from tests.unit.policy.test_standings import acting, job, rule

if TYPE_CHECKING:
    from agent.model.container import ContainerTotals

MINE = rule(keep=0, action="stop")


def claimed(one: ContainerTotals, **changed: Any) -> ContainerTotals:
    return replace(one, rule="mine", container=replace(one.container, **changed))


ONE = claimed(job(1, 50), labels={"a": "b"})
PLAN = plans.make(acting([ONE], MINE), [ONE], 3.0)


def test_a_plan_survives_its_json_and_is_known_by_what_it_does() -> None:
    read = msgspec.json.decode(msgspec.json.encode(PLAN), type=plans.Plan)
    assert read == PLAN
    assert plans.is_whole(read)
    (entry,) = PLAN.decisions
    changes: list[dict[str, Any]] = [
        *({"action": Action.REMOVE}, {"container_id": "b" * 64}, {"created_ns": 7}, {"rank": 9}),
        *({"container_name": "x"}, {"labels": "0" * 16}, {"held_mb": 1.5}, {"cpu_usage": 1.5}),
    ]
    for changed in changes:
        other = msgspec.structs.replace(
            PLAN, decisions=(msgspec.structs.replace(entry, **changed),)
        )
        assert not plans.is_whole(other)


def test_what_only_holds_another_amount_is_carried_out_with_the_decision_of_now() -> None:
    larger = replace(ONE, held_kb=ONE.held_kb * 3)
    holding, others = plans.still(PLAN, acting([larger], MINE), [larger], {})
    assert [one.held_mb for one in holding] == [150]
    assert others == {}


CHANGED: dict[str, tuple[ContainerTotals | None, str]] = {
    "gone": (None, "no such container"),
    "replaced": (claimed(ONE, created_ns=9), "created at another time"),
    "renamed": (claimed(ONE, name="job-9"), "renamed since, to job-9"),
    "paused": (claimed(ONE, state=ContainerState.PAUSED), "it was running and is paused"),
    "labelled otherwise": (claimed(ONE, labels={"a": "c"}), "its labels are others"),
    "claimed by another": (replace(ONE, rule="other"), "claimed by other, not by mine"),
    "claimed by none": (replace(ONE, rule=""), "claimed by no rule"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_changed_otherwise_is_left_and_named(what: str) -> None:
    now, reason = CHANGED[what]
    totals = [now] if now else []
    due = acting([ONE], MINE)
    holding, others = plans.still(PLAN, due, totals, {})
    assert holding == ()
    assert reason in others[ONE.container.id]


def test_one_whose_condition_does_not_hold_any_more_is_left_with_the_rule_s_words() -> None:
    holding, others = plans.still(PLAN, (), [ONE], {ONE.container.id: "within the 1 that stay"})
    assert (holding, others) == ((), {ONE.container.id: "within the 1 that stay"})


def test_one_to_which_its_rule_would_do_something_else_by_now_is_left() -> None:
    due = [replace(one, action=Action.REMOVE) for one in acting([ONE], MINE)]
    assert plans.still(PLAN, due, [ONE], {})[1] == {
        ONE.container.id: "its rule would remove it now, not stop"
    }
