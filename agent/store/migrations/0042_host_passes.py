"""What a pass for the host's sake rested on: a few rows each time that memory was short."""

from __future__ import annotations

from typing import Any

_SAMPLES = """
    CREATE TABLE host_samples (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL,
        before_ms INTEGER NOT NULL,
        available_mb REAL,
        psi_memory REAL
    )
"""
_CONTAINERS = """
    CREATE TABLE pass_containers (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        rule TEXT NOT NULL,
        state TEXT NOT NULL,
        held_mb REAL NOT NULL,
        cpu_usage REAL,
        disputed INTEGER NOT NULL,
        decision TEXT NOT NULL
    )
"""


def up(_migrator: Any, database: Any) -> None:
    for table, statement in (("host_samples", _SAMPLES), ("pass_containers", _CONTAINERS)):
        database.execute_sql(statement)
        database.execute_sql(f"CREATE INDEX {table}_timestamp ON {table} (timestamp)")
