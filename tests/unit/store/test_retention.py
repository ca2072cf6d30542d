"""What retention deletes, and what it must not whatever the clocks say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import RetentionSettings
from agent.store.retention import (
    EVIDENCE_MS,
    JUMP_NS,
    ClockWatch,
    confirmed_before,
    cutoffs,
    take_evidence,
)
from tests.unit.store.builders import (
    DAY_NS,
    HOUR_NS,
    SECOND_NS,
    START_NS,
    FakeClock,
    a_pass,
    ask,
    open_store,
    totals,
)
from tests.unit.store.retention_support import clock, path, run_for, ticks

__all__ = ["clock", "path"]

HOUR_MS = 3_600_000


NOW_MS = START_NS // 10**6


histories = st.lists(st.integers(1, 400 * HOUR_MS), max_size=60).map(
    lambda gaps: [NOW_MS - sum(gaps[: number + 1]) for number in range(len(gaps))]
)


"""Timestamps of ticks, newest first, with gaps of a millisecond to weeks."""


def recorded_after(history: list[int], timestamp: int) -> int:
    """Recorded time after a row by the definition: steps of an hour at most, from row to row."""
    later = sorted(one for one in history if one >= timestamp)
    return sum(min(b - a, HOUR_MS) for a, b in pairwise(later))


@given(
    history=histories,
    running=st.integers(0, 100 * HOUR_MS),
    raw_hours=st.integers(1, 300),
    history_days=st.integers(1, 60),
)
@settings(max_examples=300, deadline=None)
def test_a_row_goes_only_when_it_is_old_by_the_clock_and_by_what_was_recorded_since(
    history: list[int], running: int, raw_hours: int, history_days: int
) -> None:
    rule = RetentionSettings(raw_hours=raw_hours, history_days=history_days)
    now_ms = NOW_MS + running
    due = cutoffs(now_ms, rule, take_evidence(history), running)

    for cutoff, bound in (
        (due.raw_before_ms, raw_hours * HOUR_MS),
        (due.history_before_ms, history_days * 24 * HOUR_MS),
    ):
        needed = min(bound, EVIDENCE_MS)
        for row in history:
            old = now_ms - row > bound
            seen = recorded_after(history, row) + running >= needed
            assert (row < cutoff) == (old and seen)


@given(history=histories, running=st.integers(0, 30 * HOUR_MS))
@settings(max_examples=200, deadline=None)
def test_no_clock_however_wrong_lets_the_last_day_recorded_go(
    history: list[int], running: int
) -> None:
    rule = RetentionSettings(raw_hours=24, history_days=30)
    for now_ms in (NOW_MS + 10 * 365 * 24 * HOUR_MS, 10**15):
        due = cutoffs(now_ms, rule, take_evidence(history), running)
        for row in history:
            if recorded_after(history, row) + running < EVIDENCE_MS:
                assert row >= due.raw_before_ms
                assert row >= due.history_before_ms


@given(st.lists(st.integers(1, 10 * HOUR_MS), max_size=200))
@settings(deadline=None)
def test_evidence_taken_is_a_beginning_and_all_that_is_needed(gaps: list[int]) -> None:
    history = [NOW_MS - sum(gaps[:number]) for number in range(len(gaps) + 1)]
    taken = take_evidence(iter(history))

    assert taken == history[: len(taken)]
    for needed in (1, HOUR_MS, EVIDENCE_MS):
        assert confirmed_before(taken, 0, needed) == confirmed_before(history, 0, needed)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 10**13), st.integers(-3 * JUMP_NS, 3 * JUMP_NS)), max_size=20
    )
)
def test_a_jump_is_told_once_and_stays_told(steps: list[tuple[int, int]]) -> None:
    wall, boot, offset = START_NS, 10**12, 0
    watch = ClockWatch(wall, boot)
    expected = False
    told = 0
    for passed, step in steps:
        expected |= abs(step) > JUMP_NS or abs(offset + step) > JUMP_NS
        offset += step
        wall, boot = wall + passed + step, boot + passed
        told += watch.look(wall, boot)
        assert bool(watch.jumped_ns) == bool(watch.suspended) == expected
    assert told == expected


def test_raw_rows_stay_their_hours_and_all_others_their_days(path: Path, clock: FakeClock) -> None:
    with open_store(path, clock, raw_hours=2, history_days=1) as store:
        run_for(store, clock, 30 * HOUR_NS, 600 * SECOND_NS, passes=(a_pass(),))
        now_ms = clock.wall_ns() // 10**6

    for table, hours in (
        ("process_stats", 2),
        ("container_stats", 2),
        ("metrics", 24),
        ("container_totals", 24),
        ("deletions", 24),
        ("attribution_checks", 24),
    ):
        expected = [now_ms - number * 600_000 for number in range(hours * 6, -1, -1)]
        assert ticks(path, table) == expected, table


def test_history_that_is_still_to_be_shipped_waits_and_process_rows_do_not(
    path: Path, clock: FakeClock
) -> None:
    began_ms = clock.wall_ns() // 10**6
    held = began_ms + HOUR_MS
    with open_store(path, clock, raw_hours=2, history_days=1) as store:
        store.hold_ms = lambda: held
        run_for(store, clock, 30 * HOUR_NS, 600 * SECOND_NS, passes=(a_pass(),))
        now_ms = clock.wall_ns() // 10**6
        assert ticks(path, "deletions") == list(range(held, now_ms + 1, 600_000))
        assert ticks(path) == ticks(path, "deletions")
        assert ticks(path, "process_stats")[0] == now_ms - 2 * HOUR_MS
        # Shipped: from now on age alone counts.
        held = now_ms
        run_for(store, clock, HOUR_NS, 600 * SECOND_NS)
        assert ticks(path)[0] == clock.wall_ns() // 10**6 - 24 * HOUR_MS


def test_the_size_bound_knows_no_hold(path: Path, clock: FakeClock) -> None:
    many = tuple(totals() for _ in range(900))
    with open_store(path, clock, max_database_mb=16) as store:
        store.hold_ms = lambda: 0
        run_for(store, clock, 130 * 20 * SECOND_NS, 20 * SECOND_NS, processes=40, totals=many)
    assert 0 < len(ticks(path, "container_totals")) < 130


def test_a_tick_goes_whole_and_never_in_part(path: Path, clock: FakeClock) -> None:
    with open_store(path, clock, raw_hours=1) as store:
        run_for(store, clock, 3 * HOUR_NS, 60 * SECOND_NS, processes=7)
        for _, rows in ask(path, "SELECT timestamp, count(*) FROM process_stats GROUP BY 1"):
            assert rows == 7


def test_after_an_outage_old_rows_stay_until_a_day_has_been_recorded(
    path: Path, clock: FakeClock
) -> None:
    with open_store(path, clock, raw_hours=48, history_days=2) as store:
        run_for(store, clock, 3 * HOUR_NS, 600 * SECOND_NS)
        before = ticks(path)
    clock.pass_time(60 * DAY_NS)
    clock.reboot()
    with open_store(path, clock, raw_hours=48, history_days=2) as store:
        run_for(store, clock, 20 * HOUR_NS, 600 * SECOND_NS)
        assert ticks(path)[: len(before)] == before
        assert ticks(path, "process_stats")[: len(before)] == before
        run_for(store, clock, 5 * HOUR_NS, 600 * SECOND_NS)
        assert ticks(path)[0] > before[-1]
        assert ticks(path, "process_stats")[0] > before[-1]


def test_a_host_that_boots_in_2036_erases_nothing_however_often(
    path: Path, clock: FakeClock
) -> None:
    with open_store(path, clock) as store:
        run_for(store, clock, 5 * HOUR_NS, 600 * SECOND_NS)
    before = ticks(path)
    clock.step_wall(10 * 365 * DAY_NS)
    for _ in range(3):
        clock.reboot()
        clock.pass_time(60 * SECOND_NS)
        with open_store(path, clock) as store:
            run_for(store, clock, 2 * HOUR_NS, 600 * SECOND_NS)

    assert ticks(path)[: len(before)] == before
    assert ticks(path, "process_stats")[: len(before)] == before


def test_a_host_that_boots_in_1970_erases_nothing_and_says_that_the_clock_is_behind(
    path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(path, clock, raw_hours=1, history_days=1) as store:
        run_for(store, clock, 2 * HOUR_NS, 600 * SECOND_NS)
    before = ticks(path), ticks(path, "process_stats")
    clock.wall = 1000 * SECOND_NS
    clock.reboot()
    with open_store(path, clock, raw_hours=1, history_days=1) as store:
        run_for(store, clock, 40 * HOUR_NS, 600 * SECOND_NS)

    assert "clock=behind" in caplog.text
    assert ticks(path)[: len(before[0])] == before[0]
    assert ticks(path, "process_stats")[: len(before[1])] == before[1]
    new = ticks(path)[len(before[0]) :]
    assert new == [before[0][-1] + number + 1 for number in range(240)]


@pytest.mark.parametrize("step", [2 * HOUR_NS, -2 * HOUR_NS, 365 * DAY_NS])
def test_a_jump_in_mid_run_suspends_retention_until_the_next_start_and_is_said_once(
    path: Path, clock: FakeClock, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(path, clock, raw_hours=1) as store:
        run_for(store, clock, HOUR_NS, 600 * SECOND_NS)
        assert store.state.retention == ""
        clock.step_wall(step)
        run_for(store, clock, 30 * HOUR_NS, 600 * SECOND_NS)
        assert "stepped" in store.state.retention
        assert store.state.ok
    assert caplog.text.count("retention=suspended") == 1
    assert len(ticks(path, "process_stats")) == 186

    clock.step_wall(-step)
    clock.pass_time(400 * DAY_NS)
    with open_store(path, clock, raw_hours=1) as store:
        run_for(store, clock, 2 * HOUR_NS, 600 * SECOND_NS)
        assert store.state.retention == ""
    assert len(ticks(path, "process_stats")) == 7


def test_a_step_of_less_than_an_hour_is_no_jump(path: Path, clock: FakeClock) -> None:
    with open_store(path, clock, raw_hours=1) as store:
        run_for(store, clock, HOUR_NS, 600 * SECOND_NS)
        clock.step_wall(HOUR_NS - SECOND_NS)
        run_for(store, clock, 3 * HOUR_NS, 600 * SECOND_NS)
        assert store.state.retention == ""

    assert len(ticks(path, "process_stats")) == 7


def test_a_host_that_runs_eight_hours_a_day_deletes_too(path: Path, clock: FakeClock) -> None:
    for _ in range(12):
        with open_store(path, clock, raw_hours=24, history_days=7) as store:
            run_for(store, clock, 8 * HOUR_NS, 600 * SECOND_NS)
        clock.pass_time(16 * HOUR_NS)
        clock.reboot()

    days = (ticks(path)[-1] - ticks(path)[0]) / (24 * HOUR_MS)
    assert 6 < days <= 7.1
    raw_days = (ticks(path, "process_stats")[-1] - ticks(path, "process_stats")[0]) / (24 * HOUR_MS)
    assert raw_days <= 3.1
