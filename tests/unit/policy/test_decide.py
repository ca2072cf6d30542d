"""Who is governed, who is protected, and who goes: the rules one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config import PolicySettings, Scope
from agent.model.container import (
    Container,
    ContainerKey,
    ContainerState,
    Tier,
)
from agent.model.removal import Action, Reason
from agent.policy import decide as policy
from agent.policy import governance
from agent.policy.conditions import HostMoment
from agent.policy.rules import Match, Rule, RuleSet
from tests.unit.policy.containers import (
    DEFAULTS,
    OURS,
    container,
    decide,
    ids_in_turn,
    names,
    totals,
)


class TestClassify:
    @pytest.mark.parametrize(
        ("image", "tier"),
        [
            ("alpine:latest", Tier.LOW),
            ("registry.example:5000/team/alpine@sha256:00", Tier.LOW),
            ("so1-alpine-standin:local", Tier.LOW),
            ("polinux/stress", Tier.HIGH),
            ("nginx", Tier.HIGH),
            ("", Tier.HIGH),
        ],
    )
    def test_the_tier_is_told_by_the_image_as_created(self, image: str, tier: Tier) -> None:
        assert governance.classify(container(image=image), OURS, Scope.MANAGED).tier is tier

    def test_a_generated_name_or_our_own_label_makes_a_container_governed(self) -> None:
        by_name = container()
        by_label = container(name="db", own_installation=OURS)
        neither = container(name="my_so1_contenedor_1")
        found = [
            governance.classify(one, OURS, Scope.MANAGED) for one in (by_name, by_label, neither)
        ]
        assert [one.governed for one in found] == [True, True, False]
        assert found[2].tier is Tier.NONE

    def test_a_label_that_comes_from_the_image_governs_nothing(self) -> None:
        inherited = container(name="db", labels={"so1.installation": OURS})
        assert not governance.classify(inherited, OURS, Scope.MANAGED).governed

    def test_without_an_installation_no_container_is_governed_by_label(self) -> None:
        unlabelled = container(name="db", own_installation="")
        assert not governance.classify(unlabelled, "", Scope.MANAGED).governed

    def test_scope_all_governs_everything_that_is_not_protected(self) -> None:
        assert governance.classify(container(name="db"), OURS, Scope.ALL).governed
        protected = container(name="db", labels={"so1.protect": "true"})
        assert not governance.classify(protected, OURS, Scope.ALL).governed

    @pytest.mark.parametrize(
        "spared",
        [
            container(labels={"so1.protect": "true"}, own_installation=OURS),
            container(labels={"so1.protect": "TRUE"}),
            container(labels={"com.docker.compose.project": "so1-grafana"}, name="x", image="y"),
            container(name="so1_contenedor_Grafana"),
            container(image="Registry/GRAFANA/grafana-oss:13"),
            container(image="mirror.example/my-grafana-alpine"),
        ],
    )
    @pytest.mark.parametrize("scope", list(Scope))
    def test_what_is_protected_is_never_governed(self, spared: Container, scope: Scope) -> None:
        found = governance.classify(spared, OURS, scope)
        assert (found.governed, found.tier) == (False, Tier.NONE)
        assert found.protected

    @pytest.mark.parametrize("value", ["false", "0", "no", "OFF", " False "])
    def test_a_protecting_label_that_says_no_protects_nothing(self, value: str) -> None:
        one = container(labels={"so1.protect": value})
        assert governance.classify(one, OURS, Scope.MANAGED).governed
        assert governance.odd_protection(one) is None

    @pytest.mark.parametrize("value", ["", "1", "true", "yes", "on", "True ", " ON", "\tYES"])
    def test_a_protecting_label_says_yes_as_people_do(self, value: str) -> None:
        one = container(labels={"so1.protect": value})
        assert governance.classify(one, OURS, Scope.ALL).protected
        assert governance.odd_protection(one) is None

    @pytest.mark.parametrize("value", ["ture", "2", "please", "so1"])
    def test_an_odd_value_spares_and_is_to_be_warned_of(self, value: str) -> None:
        one = container(labels={"so1.protect": value})
        assert governance.classify(one, OURS, Scope.ALL).protected
        assert governance.odd_protection(one) == value

    def test_the_container_that_the_agent_runs_in_is_never_governed(self) -> None:
        ours = container()
        found = governance.classify(ours, OURS, Scope.ALL, own_ids={ours.id, "b" * 64})
        assert (found.governed, found.protected) == (False, "the agent runs in it")


class TestDecide:
    def test_the_ones_that_hold_least_of_each_tier_stay(self) -> None:
        low = [totals(container(n), held_mb=n * 10) for n in range(1, 6)]
        high = [totals(container(n), held_mb=n * 10, tier=Tier.HIGH) for n in range(6, 10)]
        decisions = decide([*low, *high])
        assert names(decisions) == ["9", "8", "5", "4"]
        assert [one.rank for one in decisions] == [1, 2, 3, 4]
        assert [one.reason for one in decisions] == [Reason.EXCESS_HIGH] * 2 + [
            Reason.EXCESS_LOW
        ] * 2
        assert len({one.id for one in decisions}) == 4

    def test_one_tier_never_pays_for_the_other(self) -> None:
        many_high = [totals(container(n), tier=Tier.HIGH) for n in range(8)]
        assert len(decide([*many_high, totals(container(9), held_mb=999)])) == 6

    def test_pages_apart_count_as_equal_and_the_cpu_tells(self) -> None:
        idle = totals(container(1), held_mb=10.3, cpu=1)
        busy = totals(container(2), held_mb=10.1, cpu=50)
        (gone,) = decide([idle, busy], settings=PolicySettings(keep_low=1))
        assert names([gone]) == ["2"]

    def test_of_two_that_cost_the_same_the_youngest_goes(self) -> None:
        old = totals(container(2, created_ns=1))
        young = totals(container(1, created_ns=2))
        (gone,) = decide([old, young], settings=PolicySettings(keep_low=1))
        assert names([gone]) == ["1"]

    def test_a_decision_carries_the_figures_of_its_container(self) -> None:
        kept = totals(container(1), held_mb=1.5, cpu=2)
        hungry = totals(container(2, created_ns=77), held_mb=7.25, cpu=3)
        (decision,) = decide([kept, hungry], settings=PolicySettings(keep_low=1))
        assert (decision.container_id, decision.created_ns) == (hungry.container.id, 77)
        assert (decision.held_mb, decision.cpu_percent, decision.tier) == (7.25, 3, Tier.LOW)

    @pytest.mark.parametrize(
        "state", [ContainerState.EXITED, ContainerState.DEAD, ContainerState.REMOVING]
    )
    def test_governed_containers_that_have_ended_go_last_and_count_in_no_tier(
        self, state: ContainerState
    ) -> None:
        running = [totals(container(n), held_mb=n) for n in range(1, 5)]
        ended = totals(container(9, state=state), held_mb=0)
        decisions = decide([ended, *running])
        assert [(one.container_name[-1], one.reason) for one in decisions] == [
            ("4", Reason.EXCESS_LOW),
            ("9", Reason.EXITED),
        ]

    @pytest.mark.parametrize("state", [ContainerState.CREATED, ContainerState.UNKNOWN])
    def test_one_that_has_not_run_yet_is_left_to_whoever_makes_it(
        self, state: ContainerState
    ) -> None:
        assert decide([totals(container(n, state=state)) for n in range(9)]) == ()

    def test_paused_containers_hold_memory_and_count_as_running(self) -> None:
        paused = totals(container(9, state=ContainerState.PAUSED), held_mb=99)
        assert names(decide([paused, *(totals(container(n)) for n in range(3))])) == ["9"]

    def test_what_is_not_governed_neither_counts_nor_goes(self) -> None:
        others = [totals(container(n), governed=False, tier=Tier.NONE) for n in range(20)]
        assert decide(others) == ()

    def test_protection_is_looked_at_again_whatever_the_classification_said(self) -> None:
        slipped = [totals(container(n, name=f"grafana{n}")) for n in range(9)]
        assert decide(slipped) == ()

    def test_a_doubtful_one_is_spared_and_no_other_goes_in_its_place(self) -> None:
        low = [totals(container(n), held_mb=n) for n in range(1, 6)]
        largest, modest = low[4].container.id, low[0].container.id
        assert names(decide(low)) == ["5", "4"]
        assert names(decide(low, frozenset({largest}))) == ["4"]
        # What it really holds is what is in doubt: it may be the one that should go.
        assert names(decide(low, frozenset({modest}))) == ["5"]

    def test_a_doubtful_one_that_has_ended_is_spared_too(self) -> None:
        ended = totals(container(1, state=ContainerState.EXITED))
        assert decide([ended], frozenset({ended.container.id})) == ()

    def test_a_doubtful_one_of_another_engine_spares_no_other_of_its_id(self) -> None:
        ended = totals(container(1, state=ContainerState.EXITED))
        other = ContainerKey("other", ended.container.id)
        (gone,) = policy.decide([ended], frozenset({other}), DEFAULTS, ids_in_turn())
        assert gone.container == ended.container.key

    def test_keeping_none_is_possible(self) -> None:
        both = [totals(container(1)), totals(container(2), tier=Tier.HIGH)]
        assert decide(both) == ()
        assert len(decide(both, settings=PolicySettings(keep_low=0, keep_high=0))) == 2


class TestStillStands:
    def test_on_the_container_as_it_was_decided_on(self) -> None:
        (decision,) = decide([totals(container(1))], settings=PolicySettings(keep_low=0))
        assert governance.still_stands(decision, container(1))
        assert governance.still_stands(decision, container(1, name=""))

    @pytest.mark.parametrize(
        "now",
        [
            container(1, name="db"),
            container(1, name="so1_contenedor_2"),
            container(1, labels={"so1.protect": "true"}),
            container(1, image="grafana/grafana"),
        ],
    )
    def test_not_on_one_renamed_or_protected(self, now: Container) -> None:
        (decision,) = decide([totals(container(1))], settings=PolicySettings(keep_low=0))
        assert not governance.still_stands(decision, now)


@pytest.mark.parametrize("keep", [3, 0, None])
def test_what_is_under_way_goes_first_whatever_it_holds_by_now(keep: int | None) -> None:
    """Its place is not given to one that holds more."""
    rule = Rule(name="all", match=Match(image_contains="alpine"), action=Action.REMOVE, keep=keep)
    rules = RuleSet((rule,), ())
    five = [replace(totals(container(n), held_mb=n), rule="all") for n in range(1, 6)]
    going = {five[0].container.key, five[1].container.key}
    for under_way, first in ((going, {1, 2}), ((), {4, 5})):
        found = policy.standings(five, frozenset(), rules, HostMoment(), frozenset(), under_way)
        found.sort(key=lambda one: one.place)
        acting = [int(one.totals.container.id, 16) for one in found if one.acts]
        assert len(acting) == 5 - (keep or 0)
        assert set(acting[:2]) == first


def test_the_limit_is_passed_by_the_one_beyond_it() -> None:
    assert not policy.over_limit(10, DEFAULTS)
    assert policy.over_limit(11, DEFAULTS)
