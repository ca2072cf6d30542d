"""BPF's four numbers in the host's buckets of a database that kept only the first of them there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from peewee import SqliteDatabase
from playhouse.migrations import Runner

from agent.store import database as sqlite
from agent.store import spans
from agent.store.files import APPLICATION_ID
from tests.unit.store.builders import ask
from tests.unit.store.rollup_support import path

__all__ = ["path"]

FIVE, HOUR = 300_000, 3_600_000
GONE, CLOSED = 10 * HOUR, 11 * HOUR
LOSSES = "events_lost, events_corrected, events_late, events_missed"


@pytest.fixture
def older(path: Path, tmp_path: Path) -> Path:
    """One with a bucket whose ticks are gone, one whose ticks are there, and an open one."""
    before = tmp_path / "migrations"
    before.mkdir()
    for script in sqlite.MIGRATIONS.glob("00[0-6]*.py"):
        (before / script.name).write_bytes(script.read_bytes())
    database = SqliteDatabase(str(path))
    database.pragma("application_id", APPLICATION_ID, permanent=True)
    Runner(database, directory=str(before), table_name=sqlite.HISTORY_TABLE).up()
    database.close()
    connection = sqlite3.connect(path)
    for level in ("5m", "1h"):
        for begin in (GONE, CLOSED):
            given: dict[str, object] = {
                "timestamp": begin,
                "first_ms": begin + 1,
                "last_ms": begin + 60_000,
            }
            given |= {"source": "modules", "checks_n": 2, "events_lost": 9}
            _insert(connection, f"rollup_host_{level}", given)
    connection.execute("UPDATE rollup_until SET until = ?", (CLOSED + FIVE,))
    for at, numbers in ((1, (2, 3, 4, 5)), (60_000, (7, 0, 1, 0)), (FIVE, (0, 6, 0, 8))):
        columns = dict(zip(LOSSES.split(", "), numbers, strict=True))
        _insert(connection, "attribution_checks", {"timestamp": CLOSED + at, **columns})
        _insert(connection, "metrics", {"timestamp": CLOSED + at, "source": "modules"})
    connection.commit()
    connection.close()
    return path


def _insert(connection: sqlite3.Connection, table: str, given: dict[str, object]) -> None:
    """A row of which every other column that has to be there is 0."""
    for _, name, _, is_needed, default, is_key in connection.execute(f"PRAGMA table_info({table})"):
        if is_needed and default is None and not is_key:
            given.setdefault(name, 0)
    marks = ", ".join("?" * len(given))
    connection.execute(
        f"INSERT INTO {table} ({', '.join(given)}) VALUES ({marks})", tuple(given.values())
    )


def opened(path: Path) -> None:
    database, _ = sqlite.open_database(path, 0)
    sqlite.leave(database, path, wait=False)


@pytest.mark.parametrize("level", ["5m", "1h"])
def test_closed_buckets_get_what_their_ticks_still_say_and_older_ones_do_not_know(
    older: Path, level: str
) -> None:
    opened(older)
    found = ask(older, f"SELECT {LOSSES} FROM rollup_host_{level} ORDER BY timestamp")
    assert found == [(9, None, None, None), (9, 3, 5, 5)]


def test_the_views_go_on_with_the_open_bucket_in_the_same_columns(older: Path) -> None:
    opened(older)
    for view in ("host_5m", "host_1h", "host_1d"):
        found = ask(older, f"SELECT {LOSSES} FROM {view} ORDER BY timestamp DESC LIMIT 1")
        assert found == [(0, 6, 0, 8)], view
    assert ask(older, f"SELECT {LOSSES} FROM host_ticks LIMIT 1") == [(2, 3, 4, 5)]


def test_a_span_says_them_only_where_all_of_it_knows(older: Path) -> None:
    opened(older)
    until = CLOSED + HOUR

    def verdicts(since: int) -> tuple[object, ...]:
        return ask(older, spans.verdicts(since, until))[0][-4:]

    assert verdicts(CLOSED) == (9, 9, 5, 13)
    assert verdicts(GONE - 1) == (18, None, None, None)


def test_a_second_start_leaves_them_as_they_are(older: Path) -> None:
    opened(older)
    before = ask(older, "SELECT * FROM rollup_host_5m"), ask(older, "SELECT * FROM host_1d")
    opened(older)
    assert (ask(older, "SELECT * FROM rollup_host_5m"), ask(older, "SELECT * FROM host_1d")) == (
        before
    )
