"""What retention does within its bounds: batches, the bound of the file's size, failures."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.store import retention
from tests.unit.store.builders import (
    HOUR_NS,
    SECOND_NS,
    FakeClock,
    a_container_process,
    a_tick,
    ask,
    count,
    open_store,
    totals,
)
from tests.unit.store.retention_support import clock, path, run_for, ticks

__all__ = ["clock", "path"]


def test_much_that_is_due_goes_in_batches_that_hold_no_tick_long(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_MIN_BATCH_ROWS", 500)
    with open_store(path, clock, raw_hours=48) as store:
        run_for(store, clock, 26 * HOUR_NS, 600 * SECOND_NS, processes=50)
    left = [count(path, "process_stats")]
    with open_store(path, clock, raw_hours=1) as store:
        for _ in range(20):
            run_for(store, clock, 10 * SECOND_NS, 10 * SECOND_NS, processes=10)
            left.append(count(path, "process_stats"))

    steps = [before - after for before, after in pairwise(left)]
    assert left[0] == 156 * 50
    assert left[-1] < 600
    # 10 new ones each time; a batch ends after the tick that fills it.
    assert max(steps) <= 500 + 51 - 10


def used_mb(path: Path) -> float:
    pages, free, size = (
        ask(path, f"PRAGMA {what}")[0][0] for what in ("page_count", "freelist_count", "page_size")
    )
    return float((pages - free) * size / 2**20)


def test_the_size_bound_holds_and_takes_process_rows_first_and_the_oldest(
    path: Path, clock: FakeClock
) -> None:
    with open_store(path, clock, max_database_mb=16) as store:
        run_for(store, clock, 150 * 20 * SECOND_NS, 20 * SECOND_NS, processes=2500)
        assert used_mb(path) <= 12.5
        assert path.stat().st_size <= 14 * 2**20

    raw, rest = ticks(path, "process_stats"), ticks(path)
    assert len(rest) == 150
    assert 0 < len(raw) < 150
    assert raw == rest[-len(raw) :]
    assert ticks(path, "container_stats") == raw


def test_the_size_bound_takes_history_only_when_no_process_rows_are_left(
    path: Path, clock: FakeClock
) -> None:
    many = tuple(totals() for _ in range(1000))
    left: list[int] = []
    with open_store(path, clock, max_database_mb=16) as store:
        run_for(store, clock, 20 * SECOND_NS, 20 * SECOND_NS, processes=40, totals=many)
        for _ in range(129):
            oldest = ticks(path)[0]
            run_for(store, clock, 20 * SECOND_NS, 20 * SECOND_NS, processes=40, totals=many)
            if ticks(path)[0] != oldest:
                left.append(len(ticks(path, "process_stats")))
        assert used_mb(path) <= 12.5

    # Each time history was taken, the tick that had just been written alone had rows a process.
    assert left
    assert set(left) == {1}
    rest = ticks(path, "container_totals")
    assert 0 < len(rest) < 130
    assert ticks(path) == ticks(path, "attribution_checks") == rest


def test_the_size_bound_holds_also_while_the_clock_is_not_trusted(
    path: Path, clock: FakeClock
) -> None:
    with open_store(path, clock, max_database_mb=16) as store:
        run_for(store, clock, 20 * SECOND_NS, 20 * SECOND_NS)
        clock.step_wall(5 * HOUR_NS)
        run_for(store, clock, 120 * 20 * SECOND_NS, 20 * SECOND_NS, processes=2500)
        assert store.state.retention
        assert used_mb(path) <= 12.5


def test_one_tick_larger_than_the_bound_is_kept(path: Path, clock: FakeClock) -> None:
    with open_store(path, clock, max_database_mb=16) as store:
        clock.pass_time(SECOND_NS)
        store.write_tick(a_tick(clock.wall_ns(), processes=300_000))

    assert count(path, "process_stats") == 300_000


def test_free_space_goes_back_to_the_disk_and_the_file_stays_sound(
    path: Path, clock: FakeClock
) -> None:
    rows = tuple(a_container_process(pid) for pid in range(1500))
    with open_store(path, clock, raw_hours=1) as store:
        run_for(store, clock, HOUR_NS, 60 * SECOND_NS, processes=3000, container_processes=rows)
        full = path.stat().st_size
        run_for(store, clock, 3 * HOUR_NS, 60 * SECOND_NS, processes=1)
        ask_free = ask(path, "PRAGMA freelist_count")[0][0]
    small = path.stat().st_size

    assert full > 15 * 2**20
    assert small < full / 5
    assert ask_free <= 256
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_in_a_steady_state_the_file_does_not_grow(path: Path, clock: FakeClock) -> None:
    sizes = []
    with open_store(path, clock, raw_hours=1, history_days=1) as store:
        for _ in range(6):
            run_for(store, clock, HOUR_NS, 60 * SECOND_NS, processes=200)
            sizes.append(path.stat().st_size)

    assert max(sizes[2:]) - min(sizes[2:]) <= 2**20


def test_a_failure_while_deleting_costs_no_tick_and_is_said_once(
    path: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with open_store(path, clock) as store:

        def fail(*_: object, **__: object) -> int:
            raise sqlite3.OperationalError("no")

        with monkeypatch.context() as broken:
            broken.setattr(retention.Pruner, "run", fail)
            run_for(store, clock, 3 * SECOND_NS, SECOND_NS)
            assert store.state.ok
            assert "cannot be deleted" in store.state.retention
        run_for(store, clock, SECOND_NS, SECOND_NS)
        assert store.state.retention == ""

    assert count(path, "metrics") == 4
    assert caplog.text.count("retention=failing") == 1


def test_damage_found_while_deleting_sets_the_file_aside_at_once(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_damage(*_: object, **__: object) -> int:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with open_store(path, clock) as store:
        with monkeypatch.context() as broken:
            broken.setattr(retention.Pruner, "run", find_damage)
            run_for(store, clock, SECOND_NS, SECOND_NS)
        assert store.quarantined is not None
        assert path.exists()
        run_for(store, clock, 2 * SECOND_NS, SECOND_NS)
        assert store.state.ok

    assert count(path, "metrics") == 2
    assert count(store.quarantined, "metrics") == 1


def test_a_tick_that_fails_does_not_hide_a_jump_of_the_clock(path: Path, clock: FakeClock) -> None:
    with open_store(path, clock) as store:
        clock.step_wall(3 * HOUR_NS)
        with pytest.raises(StoreError):
            store.write_tick(a_tick(clock.wall_ns(), container_count=2**70))
        clock.step_wall(-3 * HOUR_NS)
        store.write_tick(a_tick(clock.wall_ns()))
        assert "+10800 s" in store.state.retention
