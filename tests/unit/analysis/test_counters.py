"""Counters never fall while a container lives, and add up to what its ticks said."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.counters import MAX_SERIES, OTHERS, REMOVALS, ContainerCounters, LastingCounters
from agent.model.accounts import ContainerShare
from agent.model.attribution import AttributionCounts
from agent.model.bpf import CgroupEvents
from agent.model.removal import Outcome
from tests.unit.store.builders import (
    ID_A,
    ID_B,
    KEY_A,
    KEY_B,
    a_container,
    a_removal,
    a_tick,
    totals,
)


def share(
    living: int = 0, ended: int = 0, short: int = 0, unexplained: int = 0, forks: int = 0
) -> ContainerShare:
    usage = living + ended + short + unexplained
    events = CgroupEvents(forks=forks, exits=forks)
    return ContainerShare(usage, living, ended, short, unexplained, events)


PARTS = st.integers(-(10**12), 10**12)
SHARES = st.lists(st.builds(share, PARTS, PARTS, st.integers(0, 10**12), PARTS), max_size=20)


@given(SHARES)
def test_a_counter_never_falls_and_misses_nothing_for_good(shares: list[ContainerShare]) -> None:
    counters = ContainerCounters()
    for one in shares:
        after = counters.plus(one)
        assert after.living_ns >= counters.living_ns
        assert after.short_lived_ns >= counters.short_lived_ns
        counters = after
    seen = sum(one.living_ns + one.ended_ns for one in shares)
    assert counters.living_ns + counters.pending_ns == seen
    assert counters.unexplained_ns == sum(one.unexplained_ns for one in shares)


def test_what_one_tick_takes_back_the_next_ones_make_up_for() -> None:
    counters = ContainerCounters().plus(share(living=100)).plus(share(ended=-30))
    assert counters.living_ns == 100
    assert counters.plus(share(living=20)).living_ns == 100
    assert counters.plus(share(living=50)).living_ns == 120


def test_a_container_that_docker_no_longer_lists_is_forgotten() -> None:
    both = (totals(a_container("a", ID_A)), totals(a_container("b", ID_B)))
    shares = {KEY_A: share(living=5, forks=2), KEY_B: share(living=7)}
    counters = LastingCounters().after(a_tick(totals=both, shares=shares))
    assert counters.containers[KEY_A] == ContainerCounters(living_ns=5, starts=2, exits=2)

    counters = counters.after(a_tick(totals=both[:1], shares={KEY_A: share(living=1)}))

    assert set(counters.containers) == {KEY_A}
    assert counters.containers[KEY_A].living_ns == 6


def test_while_docker_is_away_no_container_is_forgotten() -> None:
    counters = LastingCounters().after(a_tick(shares={KEY_A: share(living=5)}))
    away = a_tick(container_count=None, totals=(), container_processes=())
    assert counters.after(away).containers == counters.containers


def test_a_share_of_a_container_that_docker_does_not_list_is_not_counted() -> None:
    assert LastingCounters().after(a_tick(shares={KEY_B: share(living=5)})).containers == {}


def test_ticks_losses_and_kills_add_up() -> None:
    lossy = a_tick(checks=AttributionCounts(events_lost=3))
    counters = LastingCounters().after(lossy).after(lossy).after(a_tick())
    assert counters.host == {("ticks",): 3, ("bpf_events_lost",): 6, ("oom_kills",): 0}


def test_removals_count_by_rule_reason_and_outcome() -> None:
    ended = [a_removal(1), a_removal(2), a_removal(3, Outcome.FAILED, "no")]
    mine = replace(ended[0], decision=replace(ended[0].decision, rule="mine"))
    counters = LastingCounters().with_removals([*ended, mine])
    assert counters.host == {
        (REMOVALS, "original", "excess-high", "removed"): 2,
        (REMOVALS, "original", "excess-high", "failed"): 1,
        (REMOVALS, "mine", "excess-high", "removed"): 1,
    }


def test_rules_without_end_end_in_one_series() -> None:
    counters = LastingCounters()
    for number in range(MAX_SERIES + 5):
        one = a_removal()
        decision = replace(one.decision, rule=f"rule-{number}")
        counters = counters.with_removals([replace(one, decision=decision)])
    assert len(counters.host) == MAX_SERIES + 1
    assert counters.host[(REMOVALS, OTHERS, "excess-high", "removed")] == 5
