"""What the probes tell beside: three numbers besides `events_lost`, and short-lived commands."""

from __future__ import annotations

from typing import Any

_TABLE = """
    CREATE TABLE short_lived (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        parent_name TEXT NOT NULL,
        process_name TEXT NOT NULL,
        count INTEGER NOT NULL,
        cpu_ms REAL NOT NULL,
        peak_rss_mb REAL
    )
"""


def up(_migrator: Any, database: Any) -> None:
    for column in ("events_corrected", "events_late", "events_missed"):
        database.execute_sql(
            f"ALTER TABLE attribution_checks ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
        )
    database.execute_sql(_TABLE)
    database.execute_sql("CREATE INDEX short_lived_timestamp ON short_lived (timestamp)")
