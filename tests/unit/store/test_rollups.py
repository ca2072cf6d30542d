"""Buckets of 5 minutes, an hour and a day hold what the ticks held, whenever they are closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest

from agent.errors import StoreError
from agent.store import database as sqlite
from agent.store import rollups
from agent.store.rollup_tables import COARSE_TABLES, FINE_TABLES, KINDS, LEVELS, promised
from agent.store.rollups import BUCKETS_A_TICK, Roller, stops_of
from tests.unit.store import buckets
from tests.unit.store.buckets import CONTAINER_KEY, LENGTHS, Row, a_history, by_bucket, read
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

TABLES = (*FINE_TABLES, *COARSE_TABLES)
SPARE = ("id", "timestamp", "container", "name_id")


def still() -> int:
    return 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


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
        assert info == list(columns), table
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
