"""Swap, and the part of held memory that is an estimate, in each container's rows."""

from __future__ import annotations

from typing import Any

_COLUMNS = (
    "ALTER TABLE container_totals ADD COLUMN swap_mb REAL",
    "ALTER TABLE container_totals ADD COLUMN held_estimated_mb REAL",
)


def up(_migrator: Any, database: Any) -> None:
    for sql in _COLUMNS:
        database.execute_sql(sql)
