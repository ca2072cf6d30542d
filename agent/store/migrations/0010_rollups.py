"""The history by buckets of 5 minutes, 1 hour and 1 day: tables of closed ones, views of all.

A table `rollup_…` holds closed buckets, which never change; a row's `timestamp` is where its bucket
begins. The view beside it goes on where they end, with rows of the next finer level and at last of
ticks (`…_ticks`), in the same columns: who adds them up by time has the open bucket too.
`rollup_until` has, for each level, the moment up to which buckets are closed.
"""

from __future__ import annotations

from typing import Any

_LEVELS = (("5m", 300_000, ""), ("1h", 3_600_000, "5m"), ("1d", 86_400_000, "1h"))
"""Name, milliseconds, and the level that it is made from; the first is made from ticks."""

_WHOLE, _PART = "INTEGER", "REAL"

_SURE = {
    "total_ram": _WHOLE,
    "free_ram": _WHOLE,
    "used_ram": _WHOLE,
    "available_ram": _WHOLE,
    "cpu_usage": _PART,
    "cpu_count": _WHOLE,
    "load1": _PART,
    "process_count": _WHOLE,
    "tick_ms": _WHOLE,
}
_UNSURE = {"container_count": _WHOLE, "psi_memory": _PART, "psi_cpu": _PART}
_CHECKS = ("agree", "conflict", "unverified", "added", "strayed", "moved", "dropped")

_Columns = list[tuple[str, str, str]]

# Each column: its type, and what it is of a single tick.
_HOST: _Columns = [
    ("first_ms", "INTEGER NOT NULL", "timestamp"),
    ("last_ms", "INTEGER NOT NULL", "timestamp"),
    ("ticks", "INTEGER NOT NULL", "1"),
    ("deleted_count", "INTEGER NOT NULL", "deleted_count"),
    ("source", "TEXT NOT NULL", "source"),
    ("psutil_ticks", "INTEGER NOT NULL", "source = 'psutil'"),
]
for _name, _type in _SURE.items():
    _HOST += [(f"{_name}_{_fold}", f"{_type} NOT NULL", _name) for _fold in ("sum", "min", "max")]
for _name, _type in _UNSURE.items():
    _HOST.append((f"{_name}_n", "INTEGER NOT NULL", f"{_name} IS NOT NULL"))
    _HOST += [(f"{_name}_{_fold}", _type, _name) for _fold in ("sum", "min", "max")]
_HOST.append(("checks_n", "INTEGER NOT NULL", "agree IS NOT NULL"))
for _name in _CHECKS:
    _HOST += [(f"{_name}_{_fold}", _WHOLE, _name) for _fold in ("sum", "max")]
_HOST += [
    ("conflict_ticks", _WHOLE, "conflict > 0"),
    ("unverified_ticks", _WHOLE, "unverified > 0"),
    ("events_lost", _WHOLE, "events_lost"),
]
_HOST_LAST = {**{name: f"{kind} NOT NULL" for name, kind in _SURE.items()}, **_UNSURE}

_CONTAINER: _Columns = [
    ("ticks", "INTEGER NOT NULL", "1"),
    ("held_mb_sum", "REAL NOT NULL", "held_mb"),
    ("held_mb_max", "REAL NOT NULL", "held_mb"),
    ("rss_mb_sum", "REAL NOT NULL", "rss_mb"),
    ("rss_mb_max", "REAL NOT NULL", "rss_mb"),
    ("cache_mb_n", "INTEGER NOT NULL", "cache_mb IS NOT NULL"),
    ("cache_mb_sum", "REAL", "cache_mb"),
    ("cpu_usage_sum", "REAL NOT NULL", "cpu_usage"),
    ("cpu_usage_max", "REAL NOT NULL", "cpu_usage"),
    ("cpu_short_lived_n", "INTEGER NOT NULL", "cpu_short_lived IS NOT NULL"),
    ("cpu_short_lived_sum", "REAL", "cpu_short_lived"),
    ("cpu_unexplained_n", "INTEGER NOT NULL", "cpu_unexplained IS NOT NULL"),
    ("cpu_unexplained_sum", "REAL", "cpu_unexplained"),
    ("processes_max", "INTEGER NOT NULL", "processes"),
    ("starts", _WHOLE, "starts"),
    ("exits", _WHOLE, "exits"),
    ("oom_kills", _WHOLE, "oom_kills"),
]
_CONTAINER_LAST = {"held_mb": _PART, "cpu_usage": _PART}

_PROCESS: _Columns = [
    ("ticks", "INTEGER NOT NULL", "1"),
    ("ram_usage_sum", "REAL NOT NULL", "ram_usage"),
    ("ram_usage_max", "REAL NOT NULL", "ram_usage"),
    ("cpu_usage_sum", "REAL NOT NULL", "cpu_usage"),
    ("cpu_usage_max", "REAL NOT NULL", "cpu_usage"),
]
_PROCESS_LAST = {"ram_usage": _PART, "cpu_usage": _PART}

_REMOVALS = [("removals", "INTEGER NOT NULL", "1")]

# Which container or process a row is of is kept once: a busy host has thousands of names a day.
_OF_CONTAINER = ("container_id", "container_name", "image", "tier")
_OF_REMOVAL = ("tier", "outcome", "reason")

_NAMES = (
    """
    CREATE TABLE rollup_containers (
        id INTEGER PRIMARY KEY NOT NULL,
        container_id TEXT NOT NULL,
        container_name TEXT NOT NULL,
        image TEXT NOT NULL,
        tier TEXT NOT NULL
    )
    """,
    "CREATE INDEX rollup_containers_id ON rollup_containers (container_id)",
    "CREATE TABLE rollup_names (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE rollup_until (bucket_ms INTEGER PRIMARY KEY NOT NULL, until INTEGER NOT NULL)",
    "INSERT INTO rollup_until VALUES (300000, 0), (3600000, 0), (86400000, 0)",
    """
    CREATE TABLE agent_stops (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        timestamp INTEGER NOT NULL,
        until INTEGER NOT NULL
    )
    """,
    "CREATE INDEX agent_stops_timestamp ON agent_stops (timestamp)",
    # The removals of a few containers over months, without looking at all the others'.
    "CREATE INDEX deletions_container ON deletions (container_id, timestamp)",
)


_VIEWS = (
    ("host", (), _HOST, "", "metrics LEFT JOIN attribution_checks USING (timestamp)"),
    (
        "container", _OF_CONTAINER, _CONTAINER,
        " JOIN rollup_containers c ON c.id = container", "container_totals",
    ),
    (
        "process", ("pid", "name"), _PROCESS,
        " JOIN rollup_names n ON n.id = name_id", "process_stats",
    ),
    ("removals", _OF_REMOVAL, _REMOVALS, "", "deletions"),
)  # fmt: skip


def _table(kind: str, level: str, key: list[str], columns: list[str]) -> list[str]:
    name = f"rollup_{kind}_{level}"
    listed = ["id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL", "timestamp INTEGER NOT NULL"]
    return [
        f"CREATE TABLE {name} ({', '.join(listed + key + columns)})",
        f"CREATE INDEX {name}_timestamp ON {name} (timestamp)",
    ]


def _of_ticks(key: tuple[str, ...], columns: _Columns, ticks: str) -> str:
    made = (f"{made} AS {one}" for one, _, made in columns)
    return f"SELECT {', '.join(('timestamp', *key, *made))} FROM {ticks}"  # noqa: S608


def _view(
    kind: str, level: tuple[str, int, str], key: tuple[str, ...], columns: _Columns, names: str
) -> str:
    """`names` joins what a row is of to closed buckets."""
    listed = ", ".join((*key, *(one for one, *_ in columns)))
    arms = []
    since = "0"
    while True:
        name, bucket_ms, finer = level
        table = f"rollup_{kind}_{name}{names}"
        arms.append(f"SELECT timestamp, {listed} FROM {table} WHERE timestamp >= {since}")  # noqa: S608
        since = f"(SELECT until FROM rollup_until WHERE bucket_ms = {bucket_ms})"  # noqa: S608
        if not finer:
            break
        level = next(one for one in _LEVELS if one[0] == finer)
    arms.append(f"SELECT timestamp, {listed} FROM {kind}_ticks WHERE timestamp >= {since}")  # noqa: S608
    return " UNION ALL ".join(arms)


def _plain(columns: _Columns, last: dict[str, str]) -> list[str]:
    return [f"{name} {kind}" for name, kind, *_ in columns] + [
        f"{name}_last {kind}" for name, kind in last.items()
    ]


def up(_migrator: Any, database: Any) -> None:
    statements = list(_NAMES)
    for kind, key, columns, _, ticks in _VIEWS:
        statements.append(f"CREATE VIEW {kind}_ticks AS {_of_ticks(key, columns, ticks)}")
    for level in _LEVELS:
        name = level[0]
        statements += _table("host", name, [], _plain(_HOST, _HOST_LAST))
        statements += _table(
            "container",
            name,
            ["container INTEGER NOT NULL"],
            _plain(_CONTAINER, _CONTAINER_LAST),
        )
        statements += _table(
            "process",
            name,
            ["pid INTEGER NOT NULL", "name_id INTEGER NOT NULL"],
            _plain(_PROCESS, _PROCESS_LAST),
        )
        statements += _table(
            "removals", name, [f"{one} TEXT NOT NULL" for one in _OF_REMOVAL], _plain(_REMOVALS, {})
        )
        # What a name is still used by, when an older bucket goes.
        statements.append(
            f"CREATE INDEX rollup_container_{name}_container"
            f" ON rollup_container_{name} (container, timestamp)"
        )
        for kind, key, columns, names, _ in _VIEWS:
            listed = ", ".join(("timestamp", *key, *(one for one, *_ in columns)))
            statements.append(
                f"CREATE VIEW {kind}_{name} ({listed}) AS "
                + _view(kind, level, key, columns, names)
            )
    for statement in statements:
        database.execute_sql(statement)
