"""Buckets of a minute, for a fleet that asks for them: as those of 5 minutes, and a queue alone.

They are empty without `[fleet] resolution = "60s"`.
"""

from __future__ import annotations

from typing import Any

_TABLES = ("rollup_host", "rollup_container")


def up(_migrator: Any, database: Any) -> None:
    for table in _TABLES:
        query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        ((made,),) = database.execute_sql(query, (f"{table}_5m",)).fetchall()
        database.execute_sql(made.replace(f"{table}_5m", f"{table}_1m", 1))
        database.execute_sql(f"CREATE INDEX {table}_1m_timestamp ON {table}_1m (timestamp)")
    # What a name is still used by, when an older bucket goes.
    database.execute_sql(
        "CREATE INDEX rollup_container_1m_container ON rollup_container_1m (container, timestamp)"
    )
    database.execute_sql("INSERT OR IGNORE INTO rollup_until VALUES (60000, 0)")
