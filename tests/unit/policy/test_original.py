"""The built-in rules and 1.0.0's policy, which is frozen beside this, decide alike."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import PolicySettings, Scope
from agent.model.container import DOCKER, Container, ContainerKey, ContainerState
from agent.model.removal import Action
from agent.policy import decide, governance, original
from agent.policy.conditions import HostMoment
from tests.unit.policy import policy_1_0_0
from tests.unit.policy.containers import OURS, container, ids_in_turn, totals

if TYPE_CHECKING:
    from agent.model.container import ContainerTotals

OTHERS = "f" * 32


@st.composite
def containers(draw: st.DrawFn) -> list[Container]:
    return [
        container(
            number,
            name=draw(st.sampled_from(["so1_contenedor_1", "so1_contenedor_", "db", "grafana"])),
            image=draw(
                st.sampled_from(["alpine", "alpine:3", "x/alpine@sha256:0", "polinux/stress", ""])
            ),
            state=draw(st.sampled_from([*ContainerState, *[ContainerState.RUNNING] * 12])),
            created_ns=draw(st.integers(0, 2)),
            labels=draw(st.sampled_from([{}, {}, {}, {"so1.protect": "true"}])),
            own_installation=draw(st.sampled_from(["", OURS, OTHERS])),
        )
        for number in range(draw(st.integers(0, 20)))
    ]


figures = st.tuples(st.integers(0, 4096), st.sampled_from([0.0, 0.5, 100.0, math.nan, math.inf]))


@given(
    st.data(),
    containers(),
    st.sampled_from(list(Scope)),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 10**12),
)
def test_the_built_in_rules_and_the_policy_of_1_0_0_decide_alike(
    data: st.DataObject,
    everything: list[Container],
    scope: Scope,
    keep_low: int,
    keep_high: int,
    now_ns: int,
) -> None:
    settings = PolicySettings(keep_low=keep_low, keep_high=keep_high, scope=scope)
    rules = original.rule_set(settings)
    before: list[ContainerTotals] = []
    after: list[ContainerTotals] = []
    for one in everything:
        held_kb, cpu = data.draw(figures)
        old = policy_1_0_0.classify(one, OURS, scope)
        new = governance.claim(one, rules, OURS)
        assert (new.tier, new.governed, new.protected) == (old.tier, old.governed, old.protected)
        seen = replace(totals(one), held_kb=held_kb, cpu_percent=cpu)
        before.append(replace(seen, tier=old.tier, governed=old.governed))
        after.append(replace(seen, tier=new.tier, governed=new.governed, rule=new.rule))
    ids = [one.id for one in everything]
    doubtful = frozenset(data.draw(st.lists(st.sampled_from(ids))) if ids else [])
    old_ones = policy_1_0_0.decide(before, doubtful, settings, ids_in_turn())
    disputed = frozenset(ContainerKey(DOCKER, one) for one in doubtful)
    new_ones = decide.decide(after, disputed, settings, ids_in_turn(), HostMoment(now_ns=now_ns))
    assert {one.action for one in new_ones} <= {Action.REMOVE}
    assert [replace(one, rule="") for one in new_ones] == list(old_ones)


@pytest.mark.parametrize("scope", list(Scope))
def test_the_built_in_rules_claim_each_container_by_its_tier_and_the_ended_ones_apart(
    scope: Scope,
) -> None:
    rules = original.rule_set(PolicySettings(scope=scope))
    found = [
        governance.claim(one, rules, OURS).rule
        for one in (
            container(1),
            container(2, image="nginx"),
            container(3, state=ContainerState.DEAD),
        )
    ]
    assert found == ["original-low", "original-high", "original-exited"]
