"""What BPF's records lack, told apart in the host's buckets too.

Where the ticks of a closed bucket are still there its figures are added; older ones stay NULL:
nobody knows them any more.
"""

from __future__ import annotations

import re
from typing import Any

_LEVELS = ("5m", "1h", "1d")
_COLUMNS = ("events_corrected", "events_late", "events_missed")
_LAST_COLUMN = re.compile(r"\bevents_lost(?= FROM\b|\) AS\b)")
"""Of each list of the host's columns in its views; what follows it there is new."""


def up(_migrator: Any, database: Any) -> None:
    for level in _LEVELS:
        table = f"rollup_host_{level}"
        for column in _COLUMNS:
            database.execute_sql(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")
        # A bucket without checks has none of these figures, as it has no `events_lost`.
        sums = ", ".join(f"sum({column})" for column in _COLUMNS)
        database.execute_sql(
            f"UPDATE {table} SET ({', '.join(_COLUMNS)}) = "  # noqa: S608
            f"(SELECT {sums} FROM attribution_checks"
            " WHERE timestamp BETWEEN first_ms AND last_ms)"
            " WHERE first_ms >= (SELECT min(timestamp) FROM attribution_checks)"
        )
    for view in ("host_ticks", *(f"host_{level}" for level in _LEVELS)):
        (made,) = database.execute_sql(
            "SELECT sql FROM sqlite_master WHERE type = 'view' AND name = ?", (view,)
        ).fetchone()
        database.execute_sql(f"DROP VIEW {view}")
        listed = ", ".join(("events_lost", *_COLUMNS))
        database.execute_sql(_LAST_COLUMN.sub(listed, made))
