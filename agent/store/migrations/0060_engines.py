"""Whose container each row is of, and the pod that it is in.

A container's id is one engine's word alone. `deletions` has its column from the rules.
"""

from __future__ import annotations

from typing import Any

# Every row of before is of the one engine that there was.
_ENGINE = "engine TEXT NOT NULL DEFAULT 'docker'"
_COLUMNS = (
    ("container_stats", _ENGINE),
    ("container_totals", _ENGINE),
    ("container_totals", "pod TEXT NOT NULL DEFAULT ''"),
    ("short_lived", _ENGINE),
)


def up(_migrator: Any, database: Any) -> None:
    for table, column in _COLUMNS:
        database.execute_sql(f"ALTER TABLE {table} ADD COLUMN {column}")
