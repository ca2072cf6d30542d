"""OOM kills, which are kept as long as history, and processes that ended, kept as raw rows are."""

from __future__ import annotations

from typing import Any

_OOM_KILLS = """
    CREATE TABLE oom_kills (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        process_name TEXT NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        image TEXT NOT NULL,
        cgroup TEXT NOT NULL,
        cause TEXT NOT NULL,
        limit_cgroup TEXT NOT NULL,
        limit_container TEXT NOT NULL,
        limit_mb REAL,
        used_mb REAL,
        anon_mb REAL,
        file_mb REAL,
        shmem_mb REAL,
        swap_mb REAL,
        oom_score_adj INTEGER,
        trigger_pid INTEGER,
        trigger_name TEXT NOT NULL,
        trigger_container TEXT NOT NULL,
        grower_pid INTEGER,
        grower_name TEXT NOT NULL,
        grower_container TEXT NOT NULL,
        grown_mb REAL,
        grown_s REAL,
        beside TEXT NOT NULL,
        witnesses TEXT NOT NULL
    )
"""

_ENDED = """
    CREATE TABLE ended_processes (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        started INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        process_name TEXT NOT NULL,
        parent_pid INTEGER NOT NULL,
        parent_name TEXT NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        status INTEGER NOT NULL,
        oom INTEGER NOT NULL,
        cpu_ms REAL NOT NULL,
        peak_rss_mb REAL NOT NULL
    )
"""


def up(_migrator: Any, database: Any) -> None:
    for table, name in ((_OOM_KILLS, "oom_kills"), (_ENDED, "ended_processes")):
        database.execute_sql(table)
        database.execute_sql(f"CREATE INDEX {name}_timestamp ON {name} (timestamp)")
    database.execute_sql("CREATE INDEX ended_processes_pid ON ended_processes (pid, timestamp)")
