"""What replaying a decision needs beside a tick's figures: whose, in what state, by which rules."""

from __future__ import annotations

from typing import Any

# Every row of before counted as of the one engine that there was.
_ENGINE = "ALTER TABLE pass_containers ADD COLUMN engine TEXT NOT NULL DEFAULT 'docker'"
_STATES = """
    CREATE TABLE container_states (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL,
        engine TEXT NOT NULL,
        container_id TEXT NOT NULL,
        state TEXT NOT NULL,
        health TEXT NOT NULL,
        created INTEGER NOT NULL,
        started INTEGER NOT NULL,
        disputed INTEGER NOT NULL
    )
"""
# A row for each change of the rules: a few in a year, and the newest one may be of long ago.
_RULES = """
    CREATE TABLE policy_rules (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        timestamp INTEGER NOT NULL,
        rules TEXT NOT NULL
    )
"""


def up(_migrator: Any, database: Any) -> None:
    for statement in (_ENGINE, _STATES, _RULES):
        database.execute_sql(statement)
    database.execute_sql("CREATE INDEX container_states_timestamp ON container_states (timestamp)")
