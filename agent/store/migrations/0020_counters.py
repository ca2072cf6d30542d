"""The counters that `/metrics` shows, as they stood after the last tick."""

from __future__ import annotations

from typing import Any

_TABLES = (
    """
    CREATE TABLE container_counters (
        container_id TEXT NOT NULL PRIMARY KEY,
        living_ns INTEGER NOT NULL,
        short_lived_ns INTEGER NOT NULL,
        unexplained_ns INTEGER NOT NULL,
        starts INTEGER NOT NULL,
        exits INTEGER NOT NULL,
        pending_ns INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE host_counters (
        name TEXT NOT NULL PRIMARY KEY,
        value INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)


def up(_migrator: Any, database: Any) -> None:
    for statement in _TABLES:
        database.execute_sql(statement)
