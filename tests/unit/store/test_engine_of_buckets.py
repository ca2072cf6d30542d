"""Buckets keep two engines apart, and an older database learns whose its buckets are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peewee
import pytest

from agent.model.container import Container
from agent.store import database as sqlite
from agent.store.queries import History
from tests.unit.store.buckets import LENGTHS
from tests.unit.store.builders import (
    DAY_NS,
    ID_A,
    ID_B,
    START_NS,
    FakeClock,
    a_container,
    a_tick,
    ask,
    open_store,
    totals,
)
from tests.unit.store.rollup_support import path

__all__ = ["path"]

BEGIN = START_NS - START_NS % DAY_NS + DAY_NS
MIGRATION = "0065_engine_of_buckets"
PODMAN = "podman"
RAISED_AT = 40
"""More statements than the migration has."""


def of(engine: str, name: str, identity: str) -> Container:
    return replace(a_container(name, identity), engine=engine)


def two_days(path: Path, *containers: Container) -> None:
    """A tick each two minutes of an hour, and one that closes all of it."""
    with open_store(path, FakeClock(wall=BEGIN)) as store:
        for at in (*range(BEGIN, BEGIN + DAY_NS // 24, 120 * 10**9), BEGIN + 2 * DAY_NS):
            listed = tuple(totals(one, 1024 * (1 + place)) for place, one in enumerate(containers))
            store.write_tick(a_tick(at, totals=listed))


def engines_of(path: Path, level: str) -> list[tuple[Any, ...]]:
    return ask(
        path,
        "SELECT engine, container_id, sum(ticks), max(held_mb_max) FROM rollup_container_"
        f"{level} JOIN rollup_containers c ON c.id = container GROUP BY 1, 2 ORDER BY 1, 2",
    )


@pytest.mark.parametrize("level", LENGTHS)
def test_one_name_and_one_id_of_two_engines_are_two_rows_of_a_bucket(
    path: Path, level: str
) -> None:
    two_days(path, of("docker", "web", ID_A), of(PODMAN, "web", ID_A), of(PODMAN, "web", ID_B))

    assert engines_of(path, level) == [
        ("docker", ID_A[:12], 30, 1.0),
        (PODMAN, ID_A[:12], 30, 2.0),
        (PODMAN, ID_B[:12], 30, 3.0),
    ]
    assert ask(path, f"SELECT engine, sum(ticks) FROM container_{level} GROUP BY 1") == [
        ("docker", 31),
        (PODMAN, 62),
    ]


def test_the_others_are_those_of_one_engine(path: Path) -> None:
    many = [of(engine, f"c{n}", f"{n:064x}") for engine in ("docker", PODMAN) for n in range(20)]
    two_days(path, *many)

    others = ask(path, "SELECT engine, tier FROM rollup_containers WHERE container_id = ''")
    assert sorted(others) == [("docker", "low"), (PODMAN, "low")] or others == [("docker", "low")]
    for engine in ("docker", PODMAN):
        assert ask(path, f"SELECT sum(ticks) FROM container_1h WHERE engine = '{engine}'") == ask(
            path, f"SELECT count(*) FROM container_totals WHERE engine = '{engine}'"
        )


def test_a_report_of_days_has_a_line_for_each(path: Path) -> None:
    two_days(path, of("docker", "web", ID_A), of(PODMAN, "web", ID_A))

    with History.open(path) as history:
        begin, end = BEGIN // 10**6, (BEGIN + 2 * DAY_NS) // 10**6
        long = history.containers_over(begin, end)
        short = history.containers_since(begin)

    for found in (long, short):
        assert [(one.engine, one.container_name, one.max_held_mb) for one in found] == [
            (PODMAN, "web", 2.0),
            ("docker", "web", 1.0),
        ]


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with engines in its ticks and none in its closed buckets.

    Two containers are podman's, one is Docker's, one was merged of both, one is known by its
    buckets alone.
    """
    path = tmp_path / "before" / "metrics.db"
    with monkeypatch.context() as older:
        older.setattr(sqlite, "MIGRATIONS", _scripts(tmp_path, lambda name: name < MIGRATION))
        older.setattr(sqlite, "_missing", lambda _database: "")
        database, _ = sqlite.open_database(path, 0)
        sqlite.leave(database, path, wait=False)
    connection = sqlite3.connect(path)
    with connection:
        applied = connection.execute(
            "SELECT strftime('%s', applied, 'utc') FROM schema_migration WHERE name LIKE '0060%'"
        ).fetchone()
        now = int(applied[0]) * 1000
        rows = [
            (now, "aaa", "docker"), (now, "bbb", PODMAN), (now + 5, "ccc", PODMAN),
            (now, "ddd", PODMAN), (now, "ddd", "docker"),
            # Before there were engines there is nothing to look for.
            (now - 3 * 86_400_000, "eee", PODMAN),
        ]  # fmt: skip
        connection.executemany(
            "INSERT INTO container_totals (timestamp, container_id, container_name, image, tier,"
            " governed, processes, held_mb, held_basis, rss_mb, cpu_usage, engine)"
            " VALUES (?, ?, 'web', 'alpine', 'low', 0, 1, 1.0, 'cgroup2', 1.0, 0.0, ?)",
            rows,
        )
        connection.executemany(
            "INSERT INTO rollup_containers (container_id, container_name, image, tier)"
            " VALUES (?, 'web', 'alpine', 'low')",
            [(one,) for one in ("aaa", "bbb", "ccc", "ddd", "eee", "fff")],
        )
    connection.close()
    return path


def _scripts(tmp_path: Path, wanted: Callable[[str], bool]) -> Path:
    directory = tmp_path / "scripts"
    directory.mkdir()
    for script in sqlite.MIGRATIONS.glob("0*.py"):
        if wanted(script.stem):
            (directory / script.name).write_bytes(script.read_bytes())
    return directory


def learnt(path: Path) -> dict[str, str]:
    return dict(ask(path, "SELECT container_id, engine FROM rollup_containers"))


EXPECTED = {"aaa": "docker", "bbb": PODMAN, "ccc": PODMAN} | dict.fromkeys(
    ("ddd", "eee", "fff"), "docker"
)


def test_an_older_database_learns_whose_its_buckets_are(before: Path) -> None:
    assert "engine" not in [row[1] for row in ask(before, "PRAGMA table_info(rollup_containers)")]
    with open_store(before) as store:
        assert store.quarantined is None
    assert learnt(before) == EXPECTED
    for view in ("ticks", *LENGTHS):
        assert "engine" in [row[1] for row in ask(before, f"PRAGMA table_info(container_{view})")]
    assert "engine" in [row[1] for row in ask(before, "PRAGMA table_info(oom_kills)")]


def test_wherever_the_migration_ends_the_next_start_does_all_of_it(
    before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_database = peewee.SqliteDatabase.execute_sql
    for wanted in range(1, RAISED_AT):
        seen = [0]

        def ends(self: Any, sql: str, *rest: Any, seen: Any = seen, wanted: int = wanted) -> Any:
            # All of the migration's statements come after the first of them.
            seen[0] += bool(seen[0]) or ("rollup_containers" in sql and "ADD COLUMN" in sql)
            if seen[0] == wanted and "ROLLBACK" not in sql.upper():
                raise peewee.OperationalError("database or disk is full")
            return ask_database(self, sql, *rest)

        with monkeypatch.context() as full:
            full.setattr(peewee.SqliteDatabase, "execute_sql", ends)
            try:
                open_store(before).close()
            except Exception:  # noqa: BLE001 - whatever it was, the next start is what counts
                found = ask(before, "PRAGMA table_info(rollup_containers)")
                done = ask(before, f"SELECT 1 FROM schema_migration WHERE name = '{MIGRATION}'")
                assert ("engine" in [row[1] for row in found]) == bool(done)
                continue
        break
    assert wanted > 8
    with open_store(before) as store:
        assert store.quarantined is None
    assert learnt(before) == EXPECTED
