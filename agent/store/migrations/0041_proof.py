"""What the budgets remember, and when the policy was armed and disarmed, and why."""

from __future__ import annotations

from typing import Any

_TABLES = (
    """
    CREATE TABLE proof_state (
        name TEXT NOT NULL PRIMARY KEY,
        payload TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE policy_arming (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL,
        armed INTEGER NOT NULL,
        why TEXT NOT NULL
    )
    """,
)


def up(_migrator: Any, database: Any) -> None:
    for statement in _TABLES:
        database.execute_sql(statement)
