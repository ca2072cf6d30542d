"""When the host's memory calls for a pass, and what a decision may go by. Times in seconds."""

from __future__ import annotations

import pytest

from agent.model.host import MemoryReading
from agent.policy.host_watch import (
    GOING,
    LONGEST_PAUSE_NS,
    STALE,
    HostBounds,
    HostWatch,
    PressureBound,
)

SECOND_NS = 10**9
MB = 1024
AT_400 = HostBounds(available_kb=frozenset({400 * MB}))


def at(seconds: float) -> int:
    return round(seconds * SECOND_NS)


def available(seconds: float, mb: float) -> MemoryReading:
    return MemoryReading(at(seconds), available_kb=round(mb * MB))


def pressed(seconds: float, percent: float, stalled_s: float = 0) -> MemoryReading:
    return MemoryReading(at(seconds), 4000 * MB, percent, round(stalled_s * 10**6))


def by_pressure(percent: float = 20, lasting_s: float = 0) -> HostWatch:
    bound = PressureBound(percent, at(lasting_s))
    return HostWatch(HostBounds(pressure=frozenset({bound})))


def test_without_a_rule_of_the_host_nothing_is_ever_read() -> None:
    assert HostWatch().next_read_ns(at(1)) is None
    assert not HostWatch().wants_pressure(at(1))


def test_available_memory_is_read_four_times_a_second_and_pressure_not_at_all() -> None:
    watch = HostWatch(AT_400)
    assert watch.next_read_ns(at(10)) == at(10)
    watch.seen(available(10, 4000))
    assert watch.next_read_ns(at(10)) == at(10.25)
    assert not watch.wants_pressure(at(20))


def test_a_bound_calls_once_when_it_is_passed_and_then_each_second() -> None:
    watch = HostWatch(AT_400)
    watch.seen(available(10, 401))
    assert not watch.is_due(at(10))
    watch.seen(available(10.25, 399))
    assert watch.is_due(at(10.25))
    watch.looked(at(10.3), acted=True)
    watch.seen(available(10.5, 380))
    assert not watch.is_due(at(10.5))
    assert watch.is_due(at(11.3))


def test_exactly_the_bound_is_not_below_it() -> None:
    watch = HostWatch(AT_400)
    watch.seen(available(10, 400))
    assert not watch.is_due(at(10))


def test_memory_that_swings_around_the_bound_calls_no_more_than_one_that_stays_below() -> None:
    watch = HostWatch(AT_400)
    called = []
    for number in range(40):
        now_s = 10 + number / 4
        watch.seen(available(now_s, 399 if number % 2 else 405))
        if watch.is_due(at(now_s)):
            called.append(now_s)
            watch.looked(at(now_s), acted=True)
    assert called == [10.25 + number for number in range(10)]


def test_a_bound_that_was_left_by_far_calls_at_once_again() -> None:
    watch = HostWatch(AT_400)
    watch.seen(available(10, 399))
    watch.looked(at(10), acted=True)
    watch.seen(available(10.25, 421))
    watch.seen(available(10.5, 399))
    assert watch.is_due(at(10.5))


def test_a_second_bound_below_the_first_calls_at_once_too() -> None:
    watch = HostWatch(HostBounds(available_kb=frozenset({400 * MB, 200 * MB})))
    watch.seen(available(10, 399))
    watch.looked(at(10), acted=False)
    watch.seen(available(10.25, 199))
    assert watch.is_due(at(10.25))


def test_passes_that_find_nothing_to_do_come_less_and_less_often() -> None:
    watch = HostWatch(AT_400)
    now_ns, moments = at(10), []
    while now_ns < at(60):
        watch.seen(MemoryReading(now_ns, 100 * MB))
        if watch.is_due(now_ns):
            moments.append(now_ns / SECOND_NS)
            watch.looked(now_ns, acted=False)
        now_ns += at(0.25)
    assert moments == [10, 11, 13, 17, 25, 33, 41, 49, 57]
    assert at(8) == LONGEST_PAUSE_NS


def test_a_start_of_a_container_brings_the_next_pass_within_a_second() -> None:
    watch = HostWatch(AT_400)
    watch.seen(available(10, 100))
    for moment_s in (10, 11, 13):
        watch.looked(at(moment_s), acted=False)
    watch.started(at(14))
    watch.seen(available(14.75, 100))
    assert not watch.is_due(at(14.75))
    assert watch.is_due(at(15))


def test_while_one_is_going_no_pass_is_due_and_nothing_is_to_be_gone_by() -> None:
    watch = HostWatch(AT_400)
    watch.seen(available(10, 399))
    watch.under_way = True
    watch.seen(available(30, 50))
    assert not watch.is_due(at(30))
    assert watch.now(at(30), None).missing == GOING


def test_the_next_one_goes_by_figures_that_were_read_after_the_first_was_gone() -> None:
    watch = HostWatch(AT_400)
    watch.seen(available(10, 399))
    watch.looked(at(10), acted=True)
    watch.gone(at(12))
    assert not watch.is_due(at(12)), "what is known is of before"
    assert watch.now(at(12), None).missing == STALE
    watch.seen(available(12.25, 399))
    assert watch.is_due(at(12.25)), "it is still below, by a fresh reading"
    assert watch.now(at(12.25), None).missing == ""


def test_time_lost_counts_before_the_kernels_mean_follows() -> None:
    """As measured where 100 MB/s went into swap that was full after 4.2 s."""
    watch = by_pressure(20, lasting_s=2)
    trace = ((13, 1.6, 0.13), (14, 1.6, 0.17), (15, 3.9, 0.44), (16, 3.9, 0.82), (17, 11.0, 1.26))
    due = []
    for now_s, average, stalled_s in trace:
        watch.alert(at(13))
        watch.seen(pressed(now_s, average, stalled_s))
        due.append(watch.is_due(at(now_s)))
    assert due == [False, False, False, True, True]
    assert watch.now(at(17), 11.0).pressure == pytest.approx(44)
    assert watch.now(at(17), 11.0).since_ns == {20: at(14)}


def test_time_lost_over_a_long_while_is_not_of_this_moment() -> None:
    watch = by_pressure(20)
    watch.seen(pressed(10, 1, 0))
    watch.seen(pressed(40, 1, 9))
    assert not watch.is_due(at(40))


def test_pressure_calls_once_it_has_been_above_for_its_time() -> None:
    watch = by_pressure(20, lasting_s=3)
    for now_s, percent in ((10, 25), (11, 25), (12, 25), (13, 25)):
        assert not watch.is_due(at(now_s))
        watch.seen(pressed(now_s, percent))
    assert watch.is_due(at(13))
    assert watch.now(at(13), 25).since_ns == {20: at(10)}


def test_pressure_that_breaks_off_begins_anew() -> None:
    watch = by_pressure(20, lasting_s=3)
    for now_s, percent in ((10, 25), (11, 25), (12, 20), (13, 25), (14.9, 25)):
        watch.seen(pressed(now_s, percent))
    assert not watch.is_due(at(14.9))
    assert watch.now(at(15), 25).since_ns == {20: at(12)}


def test_without_a_trigger_pressure_is_read_each_second() -> None:
    watch = by_pressure()
    assert watch.wants_pressure(at(10))
    watch.seen(pressed(10, 0))
    assert watch.next_read_ns(at(10)) == at(11)
    assert not watch.wants_pressure(at(10.5))


def test_with_a_trigger_nothing_is_read_until_it_fires_and_then_for_a_while() -> None:
    watch = by_pressure()
    watch.has_trigger = True
    watch.seen(pressed(10, 0))
    assert watch.next_read_ns(at(10)) is None
    watch.alert(at(60))
    assert watch.next_read_ns(at(60)) == at(11)
    assert watch.wants_pressure(at(60))
    watch.seen(pressed(75, 0))
    assert watch.next_read_ns(at(75)) is None


def test_pressure_of_before_one_went_does_not_cost_the_next() -> None:
    """`avg10` decays for half a minute; what was really lost since then counts at most."""
    watch = by_pressure(20)
    watch.seen(pressed(10, 80, stalled_s=5))
    assert watch.is_due(at(10))
    watch.gone(at(11))
    decaying = [(11.25, 75), (12.25, 70), (13.25, 65), (15.25, 53), (18, 40), (25, 21), (31, 21)]
    for now_s, percent in decaying:
        watch.seen(pressed(now_s, percent, stalled_s=6))
        assert not watch.is_due(at(now_s)), now_s
        assert (watch.now(at(now_s), percent).pressure or 0) <= 20, now_s


def test_pressure_that_goes_on_after_one_went_costs_the_next() -> None:
    watch = by_pressure(20)
    watch.seen(pressed(10, 80, stalled_s=5))
    watch.gone(at(11))
    due = []
    for now_s in (11.5, 12.5, 13.5, 14.5, 15.5, 16.5):
        watch.seen(pressed(now_s, 80, stalled_s=5 + 0.8 * (now_s - 10)))
        if watch.is_due(at(now_s)):
            due.append(now_s)
    assert due[0] == 15.5, "two seconds to settle, two to measure"


def test_samples_of_each_second_are_kept_from_where_a_bound_comes_near() -> None:
    watch = HostWatch(AT_400)
    for number in range(41):
        watch.seen(available(10 + number / 4, 1200 - 20 * number))
    kept = [(one.read_ns / SECOND_NS, one.available_kb) for one in watch.samples]
    assert kept[0] == (15.25, 780 * MB), "below twice the bound"
    assert kept[1:] == [(16.25, 700 * MB), (17.25, 620 * MB), (18.25, 540 * MB), (19.25, 460 * MB)]


def test_what_cannot_be_read_calls_for_nothing() -> None:
    watch = HostWatch(HostBounds(frozenset({400 * MB}), frozenset({PressureBound(20, 0)})))
    watch.seen(MemoryReading(at(10)))
    assert not watch.is_due(at(10))


def test_rules_that_are_swapped_forget_bounds_that_are_gone() -> None:
    watch = HostWatch(AT_400)
    watch.seen(available(10, 399))
    watch.use(HostBounds())
    assert not watch.is_due(at(10))
    assert watch.next_read_ns(at(10)) is None
