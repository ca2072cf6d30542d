"""What is notified and not delivered yet, the alerts that last, and how much was given up."""

from __future__ import annotations

from typing import Any

# States and no history: they have no timestamp and no retention.
_TABLES = (
    """
    CREATE TABLE outbox (
        receiver TEXT NOT NULL,
        message TEXT NOT NULL,
        dedup_key TEXT NOT NULL,
        state TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        next_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        delivered INTEGER NOT NULL,
        payload TEXT NOT NULL,
        PRIMARY KEY (receiver, message)
    )
    """,
    """
    CREATE TABLE alerts (
        dedup_key TEXT NOT NULL PRIMARY KEY,
        payload TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE outbox_dropped (
        receiver TEXT NOT NULL PRIMARY KEY,
        count INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)


def up(_migrator: Any, database: Any) -> None:
    for statement in _TABLES:
        database.execute_sql(statement)
