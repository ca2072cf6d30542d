"""Whose container a bucket is of: an id, and a name even more, is one engine's word alone.

Who is killed for lack of memory is one engine's too. The rows of buckets stay as they are: which
container a row is of is kept once, in `rollup_containers`, and only that grows a column.
"""

from __future__ import annotations

import re
from typing import Any

_ENGINE = "engine TEXT NOT NULL DEFAULT 'docker'"
_VIEWS = ("container_ticks", "container_5m", "container_1h", "container_1d")

# Rows of before `0060_engines` are all of the one engine that there was: of months of ticks only
# those since then are looked through, and of a database of 1.0 none. A day more, for clocks.
_SINCE = """
    SELECT coalesce(max(strftime('%s', applied, 'utc') - 86400), 0) * 1000
    FROM schema_migration WHERE name = '0060_engines'
"""
# Two engines with one id were one row of a bucket: it stays Docker's.
_KNOWN = """
    SELECT min(engine), container_id FROM container_totals WHERE timestamp >= ?
    GROUP BY container_id HAVING min(engine) = max(engine) AND min(engine) <> 'docker'
"""


def up(_migrator: Any, database: Any) -> None:
    for table in ("rollup_containers", "oom_kills"):
        database.execute_sql(f"ALTER TABLE {table} ADD COLUMN {_ENGINE}")
    ((since,),) = database.execute_sql(_SINCE).fetchall()
    for engine, container_id in database.execute_sql(_KNOWN, (since,)).fetchall():
        database.execute_sql(
            "UPDATE rollup_containers SET engine = ? WHERE container_id = ?", (engine, container_id)
        )
    # The first and the last name of all, which say whether there are several.
    database.execute_sql("CREATE INDEX rollup_containers_engine ON rollup_containers (engine)")
    for view in _VIEWS:
        query = "SELECT sql FROM sqlite_master WHERE type = 'view' AND name = ?"
        ((made,),) = database.execute_sql(query, (view,)).fetchall()
        changed, places = re.subn(r"\bimage, tier\b", "image, tier, engine", made)
        if not places:
            raise ValueError(f"the view {view} is not as a migration made it")
        database.execute_sql(f"DROP VIEW {view}")
        database.execute_sql(changed)
