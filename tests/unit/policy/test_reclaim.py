"""`plan --free`: the fewest that hold so much, under every safeguard, beside what came before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.container import ContainerState, Need
from agent.model.removal import Action
from agent.policy import plan as plans
from agent.policy import reclaim
from agent.policy.rules import RuleSet
from tests.unit.policy.containers import ids_in_turn
from tests.unit.policy.test_standings import job, numbers, rule

if TYPE_CHECKING:
    from agent.model.container import ContainerTotals

REMOVES = rule(keep=5, action="remove")


def claimed(number: int, held_mb: float, **changed: Any) -> ContainerTotals:
    one = job(number, held_mb)
    container = replace(one.container, **changed)
    return replace(one, container=container, governed=True, rule="mine")


def offered(*totals: ContainerTotals, of: Any = REMOVES, **more: Any) -> reclaim.Offer:
    doubt = frozenset(more.get("in_doubt", ()))
    return reclaim.offer(totals, doubt, more.get("own_ids", ()), RuleSet((of,)), ids_in_turn())


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(1, 200))
def test_no_fewer_would_do_and_the_last_is_the_smallest_that_does(
    held: list[int], target: int
) -> None:
    decisions = offered(*(claimed(n, mb) for n, mb in enumerate(held, 1))).decisions
    chosen = reclaim.fewest(decisions, target)
    # By brute force over every subset.
    enough = [
        len(some)
        for size in range(len(held) + 1)
        for some in combinations(held, size)
        if sum(some) >= target
    ]
    if not enough:
        assert chosen is None
        return
    assert chosen is not None
    came = [one.held_mb for one in chosen]
    assert sum(came) >= target
    assert len(came) == min(enough)
    assert len({one.container_id for one in chosen}) == len(chosen)
    rest = sum(came) - min(came)
    spared = list(held)
    for one in came:
        spared.remove(int(one))
    assert not any(target - rest <= one < min(came) for one in spared)


def test_the_rule_s_own_action_is_done_and_a_rule_that_only_reports_offers_nobody() -> None:
    stops = rule(action="notify", keep=0, step=[{"after": "1h", "action": "stop"}])
    assert [one.action for one in offered(claimed(1, 9), of=stops).decisions] == [Action.STOP]
    for action in ("notify", "pause", "restart"):
        nobody = offered(claimed(1, 9), of=rule(keep=0, action=action))
        assert nobody.decisions == ()
        assert "neither removes nor stops" in nobody.spared[claimed(1, 9).container.id]


SAFE: dict[str, tuple[ContainerTotals, str]] = {
    "protected": (claimed(2, 90, labels={"so1.protect": ""}), "so1.protect"),
    "a Grafana": (claimed(2, 90, image="grafana/grafana"), "Grafana"),
    "nobody's": (replace(claimed(2, 90), rule="", governed=False), "no rule claims it"),
    "ended": (claimed(2, 90, state=ContainerState.EXITED), "it is exited"),
    "a pod's": (claimed(2, 90, observed_only="it is of a pod"), "of a pod"),
}


@pytest.mark.parametrize("what", SAFE)
def test_what_is_spared_is_never_offered_and_is_named(what: str) -> None:
    one, why = SAFE[what]
    found = offered(claimed(1, 10), one)
    assert numbers(list(found.decisions)) == [1]
    assert why in found.spared[one.container.id]


def test_who_is_in_doubt_going_needed_by_another_or_ours_is_never_offered() -> None:
    one, two = claimed(1, 10), claimed(2, 90)
    for more in ({"in_doubt": {two.container.key}}, {"own_ids": {two.container.id}}):
        assert numbers(list(offered(one, two, **more).decisions)) == [1]
    at_it = reclaim.offer(
        (one, two), (), (), RuleSet((REMOVES,)), ids_in_turn(), {two.container.key}
    )
    assert numbers(list(at_it.decisions)) == [1]
    assert at_it.spared == {two.container.id: "the agent is at it already"}
    needs = claimed(1, 10, needs=(Need("job-2", "uses its volumes"),))
    assert "uses its volumes" in offered(needs, two).spared[two.container.id]


@pytest.mark.parametrize(
    ("text", "mb"),
    [("4G", 4096), ("1.5GiB", 1536), ("800m", 800), (" 1T ", 1 << 20), ("2gb", 2048)],
)
def test_amounts_are_of_1024(text: str, mb: float) -> None:
    assert reclaim.megabytes(text) == mb


@pytest.mark.parametrize("text", ["", "4", "0G", "-1G", "4 apples", "1e9G", "G", "9" * 99 + "G"])
def test_what_is_no_amount_is_none(text: str) -> None:
    assert reclaim.megabytes(text) is None


@dataclass(frozen=True)
class Row:
    timestamp_ms: int
    held_mb: float
    after_mb: float
    outcome: str = "removed"
    duration_ms: int = 300
    error: str = ""
    action: str = "remove"
    available_before_mb: float = 1000.0

    @property
    def available_after_mb(self) -> float:
        return self.after_mb


def test_earlier_passes_are_held_against_what_came() -> None:
    rows = [
        Row(1, 60, 1090),
        Row(1, 40, 1090),  # one pass of 100 MB: 90 came
        Row(2, 100, 1050),
        Row(3, 100, 1080),
        Row(4, 100, 1000, outcome="failed"),
        Row(5, 100, 1000, duration_ms=9000),  # ended after its pass had looked
        Row(6, 100, 1000, outcome="gone", error="it runs again"),
        Row(7, 100, 1000, outcome="notified", action="notify"),
    ]
    earlier = reclaim.earlier(rows)
    assert (earlier.passes, earlier.held_mb, earlier.gave_back_mb) == (3, 300, 220)
    assert earlier.median == 0.8
    chosen = offered(claimed(1, 50)).decisions
    assert reclaim.expected(chosen, 40, earlier).predicted_mb == 40
    assert reclaim.expected(chosen, 40, reclaim.earlier([])).predicted_mb == 50


def test_a_plan_to_free_keeps_what_it_is_for_and_holds_only_as_such() -> None:
    one = claimed(1, 50)
    chosen = offered(one).decisions
    made = plans.make(chosen, [one], 1.0, reclaim.expected(chosen, 40, reclaim.Earlier()))
    read = msgspec.json.decode(msgspec.json.encode(made), type=plans.Plan)
    assert read == made
    assert plans.is_whole(read)
    assert not plans.is_whole(msgspec.structs.replace(read, reclaim=None))
