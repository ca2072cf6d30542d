"""When a bucket is closed, what stays in it, and when it goes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent.errors import StoreError
from agent.store import database as sqlite
from agent.store import rollups
from agent.store.rollup_tables import KINDS, LEVELS, promised
from agent.store.rollups import stops_of
from tests.unit.store.buckets import LENGTHS, a_history
from tests.unit.store.builders import (
    DAY_NS,
    HOUR_NS,
    ID_B,
    SECOND_NS,
    START_NS,
    FakeClock,
    a_container,
    a_pass,
    a_removal,
    a_tick,
    ask,
    open_store,
    totals,
)
from tests.unit.store.rollup_support import path

__all__ = ["path"]

BEGIN = START_NS - START_NS % DAY_NS + DAY_NS


def test_a_tick_at_the_end_of_a_bucket_is_the_nexts(path: Path) -> None:
    with open_store(path) as store:
        for after_ms in (0, 299_999, 300_000, 600_000):
            store.write_tick(a_tick(BEGIN + after_ms * 10**6))

    begin = BEGIN // 10**6
    assert ask(path, "SELECT timestamp, ticks, first_ms, last_ms FROM rollup_host_5m") == [
        (begin, 2, begin, begin + 299_999),
        (begin + 300_000, 1, begin + 300_000, begin + 300_000),
    ]
    assert ask(path, "SELECT timestamp, ticks FROM host_5m") == [
        (begin, 2),
        (begin + 300_000, 1),
        (begin + 600_000, 1),
    ]


def test_a_bucket_is_closed_by_the_first_tick_behind_it_and_all_levels_at_once(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(BEGIN + DAY_NS - 20 * SECOND_NS))
        assert ask(path, "SELECT count(*) FROM rollup_host_5m") == [(0,)]
        store.write_tick(a_tick(BEGIN + DAY_NS + 1))
        for level in LENGTHS:
            assert ask(path, f"SELECT ticks FROM rollup_host_{level}") == [(1,)]


def test_an_hour_before_a_stop_is_closed_when_the_agent_is_back(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(BEGIN + 12 * 60 * SECOND_NS))
        store.write_tick(a_tick(BEGIN + 5 * HOUR_NS))

    assert ask(path, "SELECT timestamp, ticks FROM rollup_host_1h") == [(BEGIN // 10**6, 1)]
    assert ask(path, "SELECT timestamp, ticks FROM host_1h ORDER BY 1") == [
        (BEGIN // 10**6, 1),
        ((BEGIN + 5 * HOUR_NS) // 10**6, 1),
    ]


def test_a_clock_that_jumps_ahead_and_back_closes_each_bucket_once(path: Path) -> None:
    clock = FakeClock(wall=BEGIN)
    far = 10 * 365 * DAY_NS
    with open_store(path, clock) as store:
        for wall in (BEGIN, BEGIN + 20 * SECOND_NS, BEGIN + far, BEGIN + 40 * SECOND_NS):
            clock.wall = wall
            store.write_tick(a_tick(wall))
        # Numbered a millisecond apart behind the far one: that bucket stays open.
        assert ask(path, "SELECT timestamp, ticks FROM rollup_host_5m") == [(BEGIN // 10**6, 2)]
        store.write_tick(a_tick(BEGIN + far + 301 * SECOND_NS))

    assert ask(path, "SELECT ticks FROM rollup_host_5m ORDER BY timestamp") == [(2,), (2,)]
    assert ask(path, "SELECT sum(ticks) FROM host_1d") == [(5,)]


def test_a_removal_in_a_time_without_ticks_is_counted(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(BEGIN))
        store.write_removals(a_pass(a_removal(1)), BEGIN + 310 * SECOND_NS)
        store.write_tick(a_tick(BEGIN + HOUR_NS))
        store.write_tick(a_tick(BEGIN + 2 * HOUR_NS))

    at = BEGIN // 10**6
    assert ask(path, "SELECT timestamp, outcome, removals FROM rollup_removals_5m") == [
        (at + 300_000, "removed", 1)
    ]
    assert ask(path, "SELECT timestamp, removals FROM rollup_removals_1h") == [(at, 1)]


def test_a_container_is_named_once_however_many_buckets_it_is_in(path: Path) -> None:
    renamed = a_container("other")
    with open_store(path) as store:
        for number in range(12):
            both = (totals(), totals(a_container("job", ID_B)))
            listed = both if number < 9 else (totals(renamed),)
            store.write_tick(a_tick(BEGIN + number * 300 * SECOND_NS, totals=listed))

    names = ask(path, "SELECT container_name FROM rollup_containers ORDER BY id")
    assert sorted(names) == [("job",), ("other",), ("so1_contenedor_1",)]
    assert ask(path, "SELECT count(*) FROM rollup_container_5m") == [(9 * 2 + 2,)]


def test_what_could_not_be_closed_leaves_its_tick_stored_and_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with open_store(path) as store:
        store.write_tick(a_tick(BEGIN))
        with monkeypatch.context() as full:
            full.setattr(rollups, "_insert", fails)
            store.write_tick(a_tick(BEGIN + 400 * SECOND_NS))
        assert "full" in store.state.retention
        assert store.state.ok
        assert ask(path, "SELECT count(*) FROM metrics") == [(2,)]
        assert ask(path, "SELECT count(*) FROM rollup_host_5m") == [(0,)]
        store.write_tick(a_tick(BEGIN + 420 * SECOND_NS))
        assert store.state.retention == ""

    assert ask(path, "SELECT ticks FROM rollup_host_5m") == [(1,)]


def test_rows_of_ticks_stay_until_their_bucket_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(wall=BEGIN)
    monkeypatch.setattr(rollups, "BUCKETS_A_TICK", 1)
    with open_store(path, clock, raw_hours=1, history_days=1) as store:
        for _ in range(70):
            store.write_tick(a_tick(clock.wall, 3))
            clock.pass_time(HOUR_NS)
        until = ask(path, "SELECT until FROM rollup_until WHERE bucket_ms = 300000")[0][0]
        oldest = ask(path, "SELECT min(timestamp) FROM process_stats")[0][0]

    assert oldest <= until
    assert ask(path, "SELECT sum(ticks) FROM host_1d") == [(70,)]


def test_buckets_go_after_their_days_and_names_that_nothing_is_of_go_with_them(path: Path) -> None:
    clock = FakeClock(wall=BEGIN)
    with open_store(path, clock, history_days=1, rollup_5min_days=2, rollup_days=4) as store:
        for number in range(24 * 6):
            listed = tuple(
                totals(a_container(f"n{number}-{one}", f"{number:04x}{one:04x}" * 8), 1000 + one)
                for one in range(30)
            )
            store.write_tick(a_tick(clock.wall, 1, totals=listed))
            clock.pass_time(HOUR_NS)
    now = BEGIN // 10**6 + (24 * 6 - 1) * 3_600_000

    day = 86_400_000
    for table, days in (("rollup_host_5m", 2), ("rollup_host_1h", 4), ("rollup_container_1d", 4)):
        oldest = ask(path, f"SELECT min(timestamp) FROM {table}")[0][0]
        assert now - (days + 1) * day <= oldest <= now - (days - 1) * day, table
    of = " UNION ".join(f"SELECT container FROM rollup_container_{level}" for level in LENGTHS)
    assert ask(path, f"SELECT count(*) FROM rollup_containers WHERE id NOT IN ({of})") == [(0,)]
    assert ask(path, f"SELECT count(*) FROM ({of})") == ask(
        path, "SELECT count(*) FROM rollup_containers"
    )


TICKS = [(20 * number, 0.2) for number in range(40)]


@pytest.mark.parametrize(
    ("then", "stops"),
    [
        ([(800, 0.2), (820, 0.2)], []),
        ([(900, 0.2), (920, 0.2)], [(780, 900)]),
        ([(785, 0.2), (805, 0.2)], [(780, 785)]),
        ([(814, 14), (820, 0.2)], []),
        ([(855, 55), (895, 35), (900, 0.2)], []),
    ],
    ids=["regular", "stopped", "restarted", "late", "slow"],
)
def test_a_stop_is_told_by_the_rhythm_and_a_late_tick_is_none(
    then: list[tuple[float, float]], stops: list[tuple[int, int]]
) -> None:
    ticks = [(int(at * 1000), int(took * 1000)) for at, took in (*TICKS, *then)]
    assert stops_of(ticks) == [(a * 1000, b * 1000) for a, b in stops]


def test_a_stop_is_kept_once_with_the_bucket_that_it_ends_in(path: Path) -> None:
    with open_store(path) as store:
        for at in (*range(0, 280, 20), *range(4000, 4700, 20), 9000):
            store.write_tick(a_tick(BEGIN + at * SECOND_NS))

    begin = BEGIN // 10**6
    assert ask(path, "SELECT timestamp, until FROM agent_stops") == [
        (begin + 260_000, begin + 4_000_000),
    ]


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of 1.0.0: the first two migrations, and a day of ticks."""
    directory = tmp_path / "1.0"
    directory.mkdir()
    for script in sqlite.MIGRATIONS.glob("000[12]*.py"):
        (directory / script.name).write_bytes(script.read_bytes())
    path = tmp_path / "old" / "metrics.db"
    with monkeypatch.context() as before:
        before.setattr(sqlite, "MIGRATIONS", directory)
        before.setattr(sqlite, "_missing", lambda _database: "")
        a_history(path, 9, hours=24)
    return path


def test_a_database_of_1_0_opens_and_its_history_is_caught_up_with(older: Path) -> None:
    ticks = ask(older, "SELECT count(*), max(timestamp) FROM metrics")[0]
    assert not ask(older, "SELECT name FROM sqlite_master WHERE name LIKE 'rollup%'")
    with open_store(older, FakeClock(wall=ticks[1] * 10**6)) as store:
        for number in range(40):
            store.write_tick(a_tick((ticks[1] + 20_000 * (number + 1)) * 10**6))

    assert ask(older, "SELECT sum(ticks) FROM host_1d") == [(ticks[0] + 40,)]
    ((until,),) = ask(older, "SELECT until FROM rollup_until WHERE bucket_ms = 300000")
    newest = ask(older, "SELECT max(timestamp) FROM metrics")[0][0]
    assert until == newest - newest % 300_000


def test_an_older_database_can_be_closed_and_opened_while_it_is_caught_up_with(
    older: Path,
) -> None:
    newest = ask(older, "SELECT max(timestamp) FROM metrics")[0][0]
    for number in range(40):
        with open_store(older, FakeClock(wall=newest * 10**6)) as store:
            store.write_tick(a_tick((newest + 20_000 * (number + 1)) * 10**6))

    times = [row[0] for row in ask(older, "SELECT timestamp FROM rollup_host_5m ORDER BY id")]
    assert times == sorted(set(times))
    assert ask(older, "SELECT sum(ticks) FROM host_5m") == ask(
        older, "SELECT count(*) FROM metrics"
    )


def test_the_description_says_what_the_migration_made(path: Path) -> None:
    open_store(path).close()
    for table, columns in promised().items():
        info = [row[1] for row in ask(path, f"PRAGMA table_info({table})")]
        assert sorted(info) == sorted(columns), table  # later ones stand at a table's end
    for kind in KINDS:
        for level in LEVELS:
            view = [row[1] for row in ask(path, f"PRAGMA table_info({kind.name}_{level.name})")]
            assert view == ["timestamp", *kind.key, *(one.name for one in kind.columns)]


def test_a_damaged_index_of_buckets_is_not_mistaken_for_a_newer_version(path: Path) -> None:
    open_store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE rollup_until")
    connection.commit()
    connection.close()

    with open_store(path) as store:
        assert store.quarantined is not None
        try:
            store.write_tick(a_tick())
        except StoreError:
            pytest.fail("the new database takes no ticks")
