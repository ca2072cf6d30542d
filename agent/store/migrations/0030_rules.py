"""What was to be done, by which rule, on which engine; and what the rules remember."""

from __future__ import annotations

from typing import Any

# Every row of before is a removal on the one engine that there was.
_COLUMNS = (
    "ALTER TABLE deletions ADD COLUMN action TEXT NOT NULL DEFAULT 'remove'",
    "ALTER TABLE deletions ADD COLUMN rule TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE deletions ADD COLUMN engine TEXT NOT NULL DEFAULT 'docker'",
)
# No history: it is written anew with each tick and has no index, being a few rows.
_STATE = """
    CREATE TABLE policy_state (
        boot_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        engine TEXT NOT NULL,
        container_id TEXT NOT NULL,
        since_ns INTEGER NOT NULL,
        seen_ns INTEGER NOT NULL,
        stages INTEGER NOT NULL,
        value TEXT NOT NULL DEFAULT ''
    )
"""


def up(_migrator: Any, database: Any) -> None:
    for statement in (*_COLUMNS, _STATE):
        database.execute_sql(statement)
