"""Three numbers beside `events_lost`: records corrected, settled late, and runs skipped."""

from __future__ import annotations

from typing import Any


def up(_migrator: Any, database: Any) -> None:
    for column in ("events_corrected", "events_late", "events_missed"):
        database.execute_sql(
            f"ALTER TABLE attribution_checks ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
        )
