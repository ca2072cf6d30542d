"""Buckets of 5 minutes, an hour and a day hold what the ticks held, whenever they are closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest

from agent.store import database as sqlite
from agent.store import rollups
from agent.store.rollup_tables import COARSE_TABLES, FINE_TABLES, promised
from agent.store.rollups import BUCKETS_A_TICK, Roller
from tests.unit.store import buckets
from tests.unit.store.buckets import CONTAINER_KEY, LENGTHS, Row, a_history, by_bucket, read
from tests.unit.store.builders import (
    ask,
)
from tests.unit.store.rollup_support import path

__all__ = ["path"]

TABLES = (*FINE_TABLES, *COARSE_TABLES)


SPARE = ("id", "timestamp", "container", "name_id")


def still() -> int:
    return 0


def opened(path: Path) -> peewee.SqliteDatabase:
    database, _ = sqlite.open_database(path, 0)
    database.pragma("synchronous", 0)
    return database


def roll_all(path: Path, newest: int) -> int:
    """Closes all that is due, and gives how many calls it took."""
    database = opened(path)
    roller = Roller(database, still)
    calls = 0
    while roller.run(newest):
        calls += 1
    sqlite.leave(database, path, wait=False)
    return calls


@pytest.fixture(scope="module", params=[(1, 8), (2, 30)], ids=["few", "crowd"])
def rolled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sqlite3.Connection]:
    """A day and a quarter, all closed; in the crowd most are among the others."""
    seed, crowd = request.param
    path = tmp_path_factory.mktemp("rolled") / "metrics.db"
    stamps = a_history(path, seed, crowd=crowd)
    roll_all(path, stamps[-1])
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def closed_until(connection: sqlite3.Connection, level: str) -> int:
    query = "SELECT until FROM rollup_until WHERE bucket_ms = ?"
    return int(connection.execute(query, (LENGTHS[level],)).fetchone()[0])


def same(found: Row, expected: Row) -> None:
    assert {name: found[name] for name in expected} == {
        name: value if value is None or isinstance(value, str) else pytest.approx(value, rel=1e-9)
        for name, value in expected.items()
    }
    assert set(expected) == set(found) - set(SPARE) - set(CONTAINER_KEY) - {"pid", "name"}


@pytest.mark.parametrize("level", LENGTHS)
def test_a_bucket_of_the_host_holds_what_its_ticks_held(
    rolled: sqlite3.Connection, level: str
) -> None:
    ticks = by_bucket(read(rolled, "metrics"), LENGTHS[level])
    checks = by_bucket(read(rolled, "attribution_checks"), LENGTHS[level])
    until = closed_until(rolled, level)
    found = {row["timestamp"]: row for row in read(rolled, f"rollup_host_{level}")}

    assert set(found) == {begin for begin in ticks if begin + LENGTHS[level] <= until}
    assert found
    for begin, row in found.items():
        same(row, buckets.host(ticks[begin], checks[begin]))


@pytest.mark.parametrize("level", LENGTHS)
def test_a_bucket_has_the_largest_containers_and_the_others_together(
    rolled: sqlite3.Connection, level: str
) -> None:
    ticks = read(rolled, "container_totals")
    expected = buckets.named(ticks, level, CONTAINER_KEY, "held_mb", "cpu_usage")
    until = closed_until(rolled, level)
    table = f"rollup_container_{level} r JOIN rollup_containers c ON c.id = container"
    found = by_bucket(read(rolled, table), LENGTHS[level])

    assert set(found) == {begin for begin in expected if begin + LENGTHS[level] <= until}
    for begin, rows in found.items():
        by_key = {tuple(row[one] for one in CONTAINER_KEY): row for row in rows}
        assert set(by_key) == set(expected[begin])
        assert len([one for one in rows if one["container_name"] != "(others)"]) <= 20
        for key, row in by_key.items():
            wanted = buckets.container(expected[begin][key])
            if "(others)" in key:
                wanted |= {"held_mb_last": None, "cpu_usage_last": None}
            same(row, wanted)


@pytest.mark.parametrize("level", LENGTHS)
def test_a_bucket_has_the_largest_processes_and_the_others_together(
    rolled: sqlite3.Connection, level: str
) -> None:
    ticks = read(rolled, "process_stats")
    expected = buckets.named(ticks, level, ("pid", "name"), "ram_usage", "cpu_usage")
    table = f"rollup_process_{level} r JOIN rollup_names n ON n.id = name_id"
    found = by_bucket(read(rolled, table), LENGTHS[level])

    assert found
    for begin, rows in found.items():
        by_key = {(row["pid"], row["name"]): row for row in rows}
        assert set(by_key) == set(expected[begin])
        for key, row in by_key.items():
            wanted = buckets.process(expected[begin][key])
            if "(others)" in key:
                wanted |= {"ram_usage_last": None, "cpu_usage_last": None}
            same(row, wanted)


@pytest.mark.parametrize("level", LENGTHS)
def test_removals_are_counted_by_tier_outcome_and_reason(
    rolled: sqlite3.Connection, level: str
) -> None:
    until = closed_until(rolled, level)
    expected: dict[tuple[Any, ...], int] = {}
    for row in read(rolled, "deletions"):
        begin = row["timestamp"] - row["timestamp"] % LENGTHS[level]
        if begin + LENGTHS[level] <= until:
            key = (begin, row["tier"], row["outcome"], row["reason"])
            expected[key] = expected.get(key, 0) + 1

    found = read(rolled, f"rollup_removals_{level}")

    assert {
        (row["timestamp"], row["tier"], row["outcome"], row["reason"]): row["removals"]
        for row in found
    } == expected


SUMS = {
    "host": ("metrics", "sum(ticks)", "count(*)"),
    "container": ("container_totals", "round(sum(held_mb_sum), 3)", "round(sum(held_mb), 3)"),
    "process": ("process_stats", "round(sum(cpu_usage_sum), 3)", "round(sum(cpu_usage), 3)"),
    "removals": ("deletions", "sum(removals)", "count(*)"),
}


@pytest.mark.parametrize("share", [0.0, 0.37, 1.0], ids=["unrolled", "half-way", "rolled"])
def test_a_view_is_whole_at_every_moment_of_catching_up(path: Path, share: float) -> None:
    stamps = a_history(path, 3, hours=9, crowd=25)
    database = opened(path)
    roller = Roller(database, still)
    for _ in range(int(9 * share)):
        roller.run(stamps[-1])
    connection = sqlite.plain_connection(database)

    for kind, (table, folded, raw) in SUMS.items():
        for level, length in LENGTHS.items():
            expected = connection.execute(
                f"SELECT timestamp / {length} * {length}, {raw} FROM {table} GROUP BY 1"
            ).fetchall()
            found = connection.execute(
                f"SELECT timestamp / {length} * {length}, {folded} FROM {kind}_{level} GROUP BY 1"
            ).fetchall()
            assert found == [(at, pytest.approx(value)) for at, value in expected], (kind, level)
    sqlite.leave(database, path, wait=False)


def rows_without_ids(path: Path) -> dict[str, list[Any]]:
    found = {}
    for table in TABLES:
        columns = [one for one in promised()[table] if one not in SPARE[:1] + SPARE[2:]]
        join = ""
        if "container" in promised()[table]:
            columns, join = (
                [*columns, *CONTAINER_KEY],
                " JOIN rollup_containers c ON c.id=container",
            )
        if "name_id" in promised()[table]:
            columns, join = [*columns, "name"], " JOIN rollup_names n ON n.id = name_id"
        found[table] = sorted(
            ask(path, f"SELECT {', '.join(columns)} FROM {table}{join}"), key=repr
        )
    return found


def test_a_history_that_is_caught_up_with_equals_one_closed_tick_by_tick(tmp_path: Path) -> None:
    late, live = tmp_path / "late" / "metrics.db", tmp_path / "live" / "metrics.db"
    stamps = a_history(late, 4, crowd=22)
    a_history(live, 4, crowd=22)

    assert roll_all(late, stamps[-1]) > 10
    database = opened(live)
    roller = Roller(database, still)
    for at in stamps:
        # Of what came later nothing may be in a bucket that is closed now.
        roller.run(at)
    sqlite.leave(database, live, wait=False)

    assert rows_without_ids(late) == rows_without_ids(live)


def test_closed_buckets_never_change(path: Path) -> None:
    stamps = a_history(path, 5, hours=6)
    database = opened(path)
    roller = Roller(database, still)
    connection = sqlite.plain_connection(database)
    seen: dict[str, list[Any]] = {table: [] for table in TABLES}
    for at in stamps:
        if roller.run(at):
            for table in TABLES:
                now = connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()
                assert now[: len(seen[table])] == seen[table]
                seen[table] = now
    assert all(seen[table] for table in FINE_TABLES)
    sqlite.leave(database, path, wait=False)


def test_ids_rise_with_time_and_are_never_given_twice(path: Path) -> None:
    stamps = a_history(path, 6)
    roll_all(path, stamps[-1])
    for table in (*FINE_TABLES, *COARSE_TABLES):
        times = [row[0] for row in ask(path, f"SELECT timestamp FROM {table} ORDER BY id")]
        assert times == sorted(times), table
    known = {row[0] for row in ask(path, "SELECT name FROM sqlite_sequence")}
    assert known >= set(FINE_TABLES)


def test_closing_buckets_costs_no_more_where_a_year_of_names_is_known(tmp_path: Path) -> None:
    few, many = (steps_of_closing(tmp_path / f"{names}.db", names) for names in (0, 20_000))
    assert few > 0
    assert many < 1.2 * few


def steps_of_closing(path: Path, names: int) -> int:
    """Thousands of steps of SQLite's machine that an hour's buckets take."""
    stamps = a_history(path, 7, hours=1)
    database = opened(path)
    connection = sqlite.plain_connection(database)
    with sqlite.transaction(database):
        connection.executemany(
            "INSERT INTO rollup_containers (container_id,container_name,image,tier,engine)"
            " VALUES (?,'gone','image','low','docker')",
            [(f"{number:012x}",) for number in range(names)],
        )
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    connection.set_progress_handler(count, 1000)
    Roller(database, still).run(stamps[-1])
    connection.set_progress_handler(None, 0)
    sqlite.leave(database, path, wait=False)
    return steps[0]


def test_catching_up_is_bounded_by_buckets_and_by_time(path: Path) -> None:
    stamps = a_history(path, 7, hours=12)
    database = opened(path)
    assert BUCKETS_A_TICK <= Roller(database, still).run(stamps[-1]) <= BUCKETS_A_TICK + 12
    slow = iter(range(0, 10**15, 60_000_000))
    before = sqlite.rows(database, "SELECT count(*) FROM rollup_host_5m")[0][0]

    Roller(database, lambda: next(slow)).run(stamps[-1])

    assert sqlite.rows(database, "SELECT count(*) FROM rollup_host_5m")[0][0] == before + 1
    sqlite.leave(database, path, wait=False)


def test_a_kill_in_the_middle_of_catching_up_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole" / "metrics.db", tmp_path / "killed" / "metrics.db"
    stamps = a_history(whole, 8, hours=8)
    a_history(killed, 8, hours=8)
    roll_all(whole, stamps[-1])
    real, calls = rollups._insert, iter(range(10**6))

    def dies(*given: Any) -> None:
        if next(calls) % 30 == 29:
            raise sqlite3.OperationalError("disk I/O error")
        real(*given)

    monkeypatch.setattr(rollups, "_insert", dies)
    database = opened(killed)
    for _ in range(40):
        try:
            Roller(database, still).run(stamps[-1])
        except sqlite3.OperationalError:
            monkeypatch.setattr(rollups, "BUCKETS_A_TICK", 3)
    sqlite.leave(database, killed, wait=False)

    assert rows_without_ids(killed) == rows_without_ids(whole)
