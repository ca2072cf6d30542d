"""All tables of the history, with the indexes that their readers need."""

from __future__ import annotations

from typing import Any

_TABLES = (
    """
    CREATE TABLE metrics (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        total_ram INTEGER NOT NULL,
        free_ram INTEGER NOT NULL,
        used_ram INTEGER NOT NULL,
        container_count INTEGER,
        process_count INTEGER NOT NULL,
        deleted_count INTEGER NOT NULL,
        available_ram INTEGER NOT NULL,
        cpu_usage REAL NOT NULL,
        cpu_count INTEGER NOT NULL,
        load1 REAL NOT NULL,
        psi_memory REAL,
        psi_cpu REAL,
        source TEXT NOT NULL,
        tick_ms INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE container_stats (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        pid INTEGER NOT NULL,
        process_name TEXT NOT NULL,
        ram_usage REAL NOT NULL,
        cpu_usage REAL NOT NULL,
        verified TEXT NOT NULL,
        basis TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE process_stats (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        name TEXT NOT NULL,
        ram_usage REAL NOT NULL,
        cpu_usage REAL NOT NULL
    )
    """,
    """
    CREATE TABLE container_totals (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        image TEXT NOT NULL,
        tier TEXT NOT NULL,
        governed INTEGER NOT NULL,
        processes INTEGER NOT NULL,
        held_mb REAL NOT NULL,
        held_basis TEXT NOT NULL,
        rss_mb REAL NOT NULL,
        cache_mb REAL,
        cpu_usage REAL NOT NULL,
        cpu_short_lived REAL,
        cpu_unexplained REAL,
        starts INTEGER,
        exits INTEGER,
        oom_kills INTEGER
    )
    """,
    """
    CREATE TABLE deletions (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        decision TEXT NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        image TEXT NOT NULL,
        tier TEXT NOT NULL,
        rank INTEGER NOT NULL,
        reason TEXT NOT NULL,
        held_mb REAL NOT NULL,
        cpu_usage REAL NOT NULL,
        outcome TEXT NOT NULL,
        duration_ms INTEGER NOT NULL,
        error TEXT NOT NULL,
        available_before_mb REAL NOT NULL,
        available_after_mb REAL NOT NULL
    )
    """,
    """
    CREATE TABLE attribution_checks (
        id INTEGER NOT NULL PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        agree INTEGER NOT NULL,
        conflict INTEGER NOT NULL,
        unverified INTEGER NOT NULL,
        added INTEGER NOT NULL,
        strayed INTEGER NOT NULL,
        moved INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        events_lost INTEGER NOT NULL
    )
    """,
)

# Readers: every panel and report filters by time, retention deletes by it, and the next row's
# timestamp is taken from the newest.
_INDEXES = (
    "CREATE UNIQUE INDEX metrics_timestamp ON metrics (timestamp)",
    "CREATE INDEX container_stats_timestamp ON container_stats (timestamp)",
    "CREATE INDEX process_stats_timestamp ON process_stats (timestamp)",
    "CREATE INDEX container_totals_timestamp ON container_totals (timestamp)",
    "CREATE INDEX deletions_timestamp ON deletions (timestamp)",
    "CREATE UNIQUE INDEX attribution_checks_timestamp ON attribution_checks (timestamp)",
    # One container over time, for `agent report`. An index by name is dear: each container's entry
    # of a tick lands on a page of its own. That is why `container_stats` has none.
    "CREATE INDEX container_totals_name ON container_totals (container_name, timestamp)",
)


def up(_migrator: Any, database: Any) -> None:
    for statement in _TABLES + _INDEXES:
        database.execute_sql(statement)
