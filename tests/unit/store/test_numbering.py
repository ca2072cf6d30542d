"""The migration that gives `deletions` ids which never come twice, over a database of 1.0."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.store import database as sqlite
from tests.unit.store.builders import ask, open_store

COLUMNS = """decision, container_id, container_name, image, tier, rank, reason, held_mb, cpu_usage,
    outcome, duration_ms, error, available_before_mb, available_after_mb"""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database as version 1.0 left it, with removals in it."""
    path = tmp_path / "metrics.db"
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    for one in ("0001_history.py", "0002_container_events.py"):
        (migrations / one).write_bytes((sqlite.MIGRATIONS / one).read_bytes())
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "MIGRATIONS", migrations)
        patched.setattr(sqlite, "_missing", lambda _database: "")
        database, _ = sqlite.open_database(path, 0)
        sqlite.leave(database, path, wait=False)
    with sqlite3.connect(path) as connection:
        for number in (3, 4, 9):
            connection.execute(
                f"INSERT INTO deletions (id, timestamp, {COLUMNS}) VALUES"
                " (?, ?, 'd', 'c', 'n', 'i', 'low', 1, 'exited', 1, 2, 'removed', 3, '', 4, 5)",
                (number, number * 1000),
            )
        connection.execute("CREATE VIEW mine AS SELECT * FROM deletions")
    return path


def test_rows_and_ids_stay_and_none_comes_twice(old: Path) -> None:
    before = ask(old, "SELECT * FROM deletions ORDER BY id")
    open_store(old).close()
    with_rules = [(*row, "remove", "", "docker") for row in before]
    assert ask(old, "SELECT * FROM deletions ORDER BY id") == with_rules
    assert ask(old, "SELECT * FROM mine ORDER BY id") == with_rules
    indexes = ask(old, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")
    assert {("deletions_timestamp",), ("deletions_container",)} <= set(indexes)
    assert ask(old, "SELECT sum(removals) FROM removals_1d") == [(3,)]
    with sqlite3.connect(old) as connection:
        connection.execute("DELETE FROM deletions")
        connection.execute(
            f"INSERT INTO deletions (timestamp, {COLUMNS}) VALUES"
            " (1, 'd', 'c', 'n', 'i', 'low', 1, 'exited', 1, 2, 'removed', 3, '', 4, 5)"
        )
    assert ask(old, "SELECT id FROM deletions") == [(10,)]


@pytest.mark.parametrize("step", ["CREATE TABLE", "INSERT INTO", "DROP TABLE", "ALTER TABLE"])
def test_cut_off_anywhere_the_table_is_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = ask(old, "SELECT * FROM deletions ORDER BY id")
    whole = sqlite.WriterDatabase.execute_sql

    def fails(self: object, sql: str, *more: object) -> object:
        if (
            sql.startswith(step)
            and "deletions" in sql
            and "numbered" in sql + " numbered" * (step == "DROP TABLE")
        ):
            raise sqlite3.OperationalError("database or disk is full")
        return whole(self, sql, *more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(sqlite.WriterDatabase, "execute_sql", fails)
        with pytest.raises((StoreError, sqlite3.OperationalError)):
            open_store(old)
    assert ask(old, "SELECT * FROM deletions ORDER BY id") == before
    assert ask(old, "SELECT name FROM sqlite_master WHERE name LIKE '%numbered%'") == []
    open_store(old).close()
    with_rules = [(*row, "remove", "", "docker") for row in before]
    assert ask(old, "SELECT * FROM deletions ORDER BY id") == with_rules
    assert (
        "AUTOINCREMENT" in ask(old, "SELECT sql FROM sqlite_master WHERE name = 'deletions'")[0][0]
    )
