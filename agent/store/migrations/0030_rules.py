"""What was to be done, by which rule and on which engine, for each decision."""

from __future__ import annotations

from typing import Any

# Every row of before is a removal on the one engine that there was.
_COLUMNS = (
    "ALTER TABLE deletions ADD COLUMN action TEXT NOT NULL DEFAULT 'remove'",
    "ALTER TABLE deletions ADD COLUMN rule TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE deletions ADD COLUMN engine TEXT NOT NULL DEFAULT 'docker'",
)


def up(_migrator: Any, database: Any) -> None:
    for statement in _COLUMNS:
        database.execute_sql(statement)
