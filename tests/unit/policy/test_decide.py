"""Who is governed, who is protected, and who goes: the rules one by one and as properties."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import PolicySettings, Scope
from agent.model.container import (
    DOCKER,
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    HeldBasis,
    Tier,
)
from agent.model.removal import Decision, Reason
from agent.policy import decide as policy
from agent.policy import governance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

OURS = "0123456789abcdef" * 2
NOBODY: frozenset[str] = frozenset()
DEFAULTS = PolicySettings()


def container(
    number: int = 1,
    *,
    name: str | None = None,
    image: str = "alpine:latest",
    state: ContainerState = ContainerState.RUNNING,
    created_ns: int = 0,
    labels: dict[str, str] | None = None,
    own_installation: str = "",
) -> Container:
    return Container(
        id=f"{number:064x}",
        name=f"so1_contenedor_{number}" if name is None else name,
        image=image,
        created_ns=created_ns,
        state=state,
        labels=labels or {},
        own_installation=own_installation,
    )


def totals(
    one: Container,
    *,
    held_mb: float = 1,
    cpu: float = 0,
    tier: Tier = Tier.LOW,
    governed: bool = True,
) -> ContainerTotals:
    return ContainerTotals(
        container=one,
        tier=tier,
        governed=governed,
        processes=1,
        held_kb=int(held_mb * 1024),
        held_basis=HeldBasis.CGROUP2,
        rss_kb=0,
        cache_kb=0,
        cpu_percent=cpu,
    )


def ids_in_turn() -> Callable[[], str]:
    counter = itertools.count(1)
    return lambda: f"d{next(counter)}"


def decide(
    all_of_them: Sequence[ContainerTotals],
    disputed: frozenset[str] = NOBODY,
    settings: PolicySettings = DEFAULTS,
) -> tuple[Decision, ...]:
    keys = frozenset(ContainerKey(DOCKER, one) for one in disputed)
    return policy.decide(all_of_them, keys, settings, ids_in_turn())


def names(decisions: Sequence[Decision]) -> list[str]:
    return [one.container_name.removeprefix("so1_contenedor_") for one in decisions]


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


def test_the_limit_is_passed_by_the_one_beyond_it() -> None:
    assert not policy.over_limit(10, DEFAULTS)
    assert policy.over_limit(11, DEFAULTS)


@st.composite
def hosts(draw: st.DrawFn) -> tuple[list[ContainerTotals], frozenset[str]]:
    """Containers of every kind, close enough together in their figures for ties, some disputed."""
    found: list[ContainerTotals] = []
    for number in range(draw(st.integers(0, 18))):
        one = container(
            number,
            name=draw(st.sampled_from(["so1_contenedor_1", "db", "grafana", "x"])),
            image=draw(st.sampled_from(["alpine", "polinux/stress", "grafana/grafana"])),
            state=draw(st.sampled_from([*ContainerState, *[ContainerState.RUNNING] * 12])),
            created_ns=draw(st.integers(0, 2)),
            labels=draw(st.sampled_from([{}, {}, {}, {"so1.protect": "true"}])),
            own_installation=draw(st.sampled_from(["", OURS, "f" * 32])),
        )
        seen_as = governance.classify(one, OURS, draw(st.sampled_from(list(Scope))))
        found.append(
            replace(
                totals(one, tier=seen_as.tier, governed=seen_as.governed),
                held_kb=draw(st.integers(0, 4096)),
                cpu_percent=draw(st.sampled_from([0.0, 0.5, 100.0, math.nan, math.inf])),
            )
        )
    ids = [one.container.id for one in found]
    return found, frozenset(draw(st.lists(st.sampled_from(ids)))) if ids else NOBODY


settings_of_any_kind = st.builds(
    PolicySettings, keep_low=st.integers(0, 5), keep_high=st.integers(0, 5)
)


def is_running(one: ContainerTotals) -> bool:
    return one.container.state in {
        ContainerState.RUNNING,
        ContainerState.PAUSED,
        ContainerState.RESTARTING,
    }


def hunger(one: ContainerTotals) -> tuple[float, float, int]:
    """The order, written down once more: whole MB, CPU, age."""
    cpu = one.cpu_percent if math.isfinite(one.cpu_percent) else 0.0
    return (math.floor(one.held_kb / 1024 + 0.5), cpu, one.container.created_ns)


@given(hosts(), settings_of_any_kind)
def test_the_floor_holds_and_only_sure_governed_unprotected_ones_go(
    host: tuple[list[ContainerTotals], frozenset[str]], settings: PolicySettings
) -> None:
    everything, disputed = host
    gone = {one.container_id for one in decide(everything, disputed, settings)}
    assert not gone & disputed
    for one in everything:
        if one.container.id in gone:
            assert one.governed
            assert one.container.labels.get("so1.protect") != "true"
            assert "grafana" not in one.container.name + one.container.image
    for tier, keep in ((Tier.LOW, settings.keep_low), (Tier.HIGH, settings.keep_high)):
        before = [one for one in everything if one.tier is tier and is_running(one)]
        after = [one for one in before if one.container.id not in gone]
        assert len(after) >= min(keep, len(before))
        if not disputed:
            assert len(after) == min(keep, len(before))


@given(hosts(), settings_of_any_kind)
def test_nobody_who_goes_is_less_hungry_than_a_sure_one_of_its_tier_who_stays(
    host: tuple[list[ContainerTotals], frozenset[str]], settings: PolicySettings
) -> None:
    everything, disputed = host
    gone = {one.container_id for one in decide(everything, disputed, settings)}
    for tier in (Tier.LOW, Tier.HIGH):
        rivals = [
            one
            for one in everything
            if one.tier is tier and is_running(one) and one.container.id not in disputed
        ]
        went = [hunger(one) for one in rivals if one.container.id in gone]
        stayed = [hunger(one) for one in rivals if one.container.id not in gone]
        assert not went or not stayed or min(went) >= max(stayed)


@given(hosts(), settings_of_any_kind, st.randoms())
def test_the_order_in_which_containers_come_changes_nothing(
    host: tuple[list[ContainerTotals], frozenset[str]],
    settings: PolicySettings,
    random: Random,
) -> None:
    everything, disputed = host
    shuffled = random.sample(everything, len(everything))
    once, again = decide(everything, disputed, settings), decide(shuffled, disputed, settings)
    assert once == again
    assert [one.rank for one in once] == list(range(1, len(once) + 1))


@given(hosts(), settings_of_any_kind)
def test_a_pass_that_was_carried_out_leaves_nothing_to_decide(
    host: tuple[list[ContainerTotals], frozenset[str]], settings: PolicySettings
) -> None:
    everything, disputed = host
    gone = {one.container_id for one in decide(everything, disputed, settings)}
    left = [one for one in everything if one.container.id not in gone]
    assert decide(left, disputed, settings) == ()


@given(hosts(), settings_of_any_kind, st.integers(0, 4096), st.integers(0, 17))
def test_who_goes_would_go_whatever_a_doubtful_one_really_holds(
    host: tuple[list[ContainerTotals], frozenset[str]],
    settings: PolicySettings,
    true_kb: int,
    which: int,
) -> None:
    everything, _ = host
    if which >= len(everything):
        return
    disputed = everything[which]
    cautious = decide(everything, frozenset({disputed.container.id}), settings)
    true = [replace(one, held_kb=true_kb) if one is disputed else one for one in everything]
    informed = decide(true, NOBODY, settings)
    assert {one.container_id for one in cautious} <= {one.container_id for one in informed}
