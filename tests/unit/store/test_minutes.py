"""Buckets of a minute: they hold what ticks held, begin when asked for, and go when shipped."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.config import Config
from agent.config_outlets import FleetSettings
from agent.daemon.outlets import Outlets
from agent.store import database as sqlite
from agent.store.minutes import BUCKETS_A_TICK, Minutes
from agent.util.undo import UndoStack
from tests.unit.store import buckets
from tests.unit.store.buckets import CONTAINER_KEY, a_history, by_bucket, keyed, read
from tests.unit.store.builders import SECOND_NS, FakeClock, a_tick, ask, open_store
from tests.unit.store.rollup_support import path

__all__ = ["path"]

MINUTE_MS = 60_000
HOUR_NS = 3600 * SECOND_NS


def still() -> int:
    return 0


def test_a_minute_holds_what_its_ticks_held(path: Path) -> None:
    stamps = a_history(path, 11, hours=4)
    database, _ = sqlite.open_database(path, 0)
    minutes = Minutes(still)
    for at in stamps:
        minutes.run(database, at)
    sqlite.leave(database, path, wait=False)

    with sqlite3.connect(path) as connection:
        ticks = by_bucket(read(connection, "metrics"), MINUTE_MS)
        checks = by_bucket(read(connection, "attribution_checks"), MINUTE_MS)
        containers = by_bucket(read(connection, "container_totals"), MINUTE_MS)
        hosts = read(connection, "rollup_host_1m")
        named = by_bucket(
            read(
                connection, "rollup_container_1m r JOIN rollup_containers c ON c.id = r.container"
            ),
            MINUTE_MS,
        )
    closed = [begin for begin in sorted(ticks) if begin + MINUTE_MS <= stamps[-1]]
    assert [row["timestamp"] for row in hosts] == closed
    assert len(closed) > 50
    for row in hosts:
        expected = buckets.host(ticks[row["timestamp"]], checks[row["timestamp"]])
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert named
    for begin in closed:
        wanted = keyed(containers[begin], *CONTAINER_KEY)
        found = keyed(named[begin], *CONTAINER_KEY)
        assert found.keys() == wanted.keys()
        for key, (row,) in found.items():
            expected = buckets.container(wanted[key])
            assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_the_first_minute_is_the_newest_ticks_and_later_ones_are_caught_up_with(
    path: Path,
) -> None:
    stamps = a_history(path, 12, hours=2)
    database, _ = sqlite.open_database(path, 0)
    minutes = Minutes(still)
    half = stamps[len(stamps) // 2]
    connection = sqlite.plain_connection(database)

    assert Minutes(still).run(database, stamps[-1]) == 0
    assert connection.execute("SELECT count(*) FROM rollup_host_1m").fetchone() == (0,)

    # As after a day without `[fleet]`: from where it was, a few at each tick.
    connection.execute("UPDATE rollup_until SET until = ? WHERE bucket_ms = ?", (half, MINUTE_MS))
    assert minutes.run(database, stamps[-1]) == BUCKETS_A_TICK
    while minutes.run(database, stamps[-1]):
        pass
    found = [at for (at,) in connection.execute("SELECT timestamp FROM rollup_host_1m ORDER BY id")]
    begins = {at // MINUTE_MS * MINUTE_MS for at in stamps if at >= half}
    assert found == sorted(one for one in begins if one + MINUTE_MS <= stamps[-1])
    slow = iter(range(0, 10**15, 60_000_000))
    connection.execute("UPDATE rollup_until SET until = 1 WHERE bucket_ms = ?", (MINUTE_MS,))
    assert Minutes(lambda: next(slow)).run(database, stamps[-1]) == 1
    sqlite.leave(database, path, wait=False)


def test_minutes_that_are_shipped_go_with_raw_rows_and_others_wait(path: Path) -> None:
    clock = FakeClock()
    held = began_ms = clock.wall_ns() // 10**6
    with open_store(path, clock, raw_hours=2) as store:
        store.minutes = Minutes(clock.boot_ns)
        store.hold_ms = lambda: held
        for _ in range(24 * 6):
            store.write_tick(a_tick(clock.wall_ns()))
            clock.pass_time(600 * SECOND_NS)
        oldest = "SELECT min(timestamp) FROM rollup_host_1m"
        assert ask(path, oldest) == [(began_ms // MINUTE_MS * MINUTE_MS,)]
        held = clock.wall_ns() // 10**6
        store.write_tick(a_tick(clock.wall_ns()))
        now_ms = clock.wall_ns() // 10**6
    ((left,),) = ask(path, oldest)
    assert now_ms - 2 * HOUR_NS // 10**6 <= left < now_ms - 3600_000
    assert ask(path, "SELECT count(*) FROM rollup_containers") == [(1,)]


@pytest.mark.parametrize(("resolution", "wanted"), [("60s", True), ("5m", False)])
def test_nobody_makes_minutes_unless_the_fleet_asks_for_them(
    path: Path, resolution: str, wanted: bool
) -> None:
    clock = FakeClock()
    settings = FleetSettings(dsn="host=/x", resolution=resolution)  # type: ignore[arg-type]
    with open_store(path, clock) as store:
        Outlets().start(Config(fleet=settings), None, store, clock, UndoStack())
        assert (store.minutes is not None) == wanted
