"""Who goes, on hosts of every kind: the floor, the order, what a doubtful one may cost others."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from agent.config import PolicySettings, Scope
from agent.model.container import (
    ContainerState,
    ContainerTotals,
    Tier,
)
from agent.policy import governance

if TYPE_CHECKING:
    from random import Random
from tests.unit.policy.containers import NOBODY, OURS, container, decide, totals


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
