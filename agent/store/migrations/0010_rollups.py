"""The history by buckets of 5 minutes, 1 hour and 1 day: tables of closed ones, views of all.

A table `rollup_…` holds closed buckets, which never change; a row's `timestamp` is where its bucket
begins. The view beside it adds the bucket that is still open, reckoned from the next finer level at
each reading. `rollup_until` has, for each level, the moment up to which buckets are closed.
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

# Each column: its type, how it is made from ticks, how it is folded from the finer level.
_HOST: list[tuple[str, str, str, str]] = [
    ("first_ms", "INTEGER NOT NULL", "min(timestamp)", "min"),
    ("last_ms", "INTEGER NOT NULL", "max(timestamp)", "max"),
    ("ticks", "INTEGER NOT NULL", "count(*)", "sum"),
    ("deleted_count", "INTEGER NOT NULL", "sum(deleted_count)", "sum"),
    ("source", "TEXT NOT NULL", "max(source)", "max"),
    ("psutil_ticks", "INTEGER NOT NULL", "sum(source = 'psutil')", "sum"),
]
for _name, _type in _SURE.items():
    _HOST += [
        (f"{_name}_{_fold}", f"{_type} NOT NULL", f"{_fold}({_name})", _fold)
        for _fold in ("sum", "min", "max")
    ]
for _name, _type in _UNSURE.items():
    _HOST.append((f"{_name}_n", "INTEGER NOT NULL", f"count({_name})", "sum"))
    _HOST += [
        (f"{_name}_{_fold}", _type, f"{_fold}({_name})", _fold) for _fold in ("sum", "min", "max")
    ]
_HOST.append(("checks_n", "INTEGER NOT NULL", "count(agree)", "sum"))
for _name in _CHECKS:
    _HOST += [(f"{_name}_{_fold}", _WHOLE, f"{_fold}({_name})", _fold) for _fold in ("sum", "max")]
_HOST += [
    ("conflict_ticks", _WHOLE, "sum(conflict > 0)", "sum"),
    ("unverified_ticks", _WHOLE, "sum(unverified > 0)", "sum"),
    ("events_lost", _WHOLE, "sum(events_lost)", "sum"),
]
_HOST_LAST = {**{name: f"{kind} NOT NULL" for name, kind in _SURE.items()}, **_UNSURE}

_CONTAINER: list[tuple[str, str, str, str]] = [
    ("ticks", "INTEGER NOT NULL", "count(*)", "sum"),
    ("held_mb_sum", "REAL NOT NULL", "sum(held_mb)", "sum"),
    ("held_mb_max", "REAL NOT NULL", "max(held_mb)", "max"),
    ("rss_mb_sum", "REAL NOT NULL", "sum(rss_mb)", "sum"),
    ("rss_mb_max", "REAL NOT NULL", "max(rss_mb)", "max"),
    ("cache_mb_n", "INTEGER NOT NULL", "count(cache_mb)", "sum"),
    ("cache_mb_sum", "REAL", "sum(cache_mb)", "sum"),
    ("cpu_usage_sum", "REAL NOT NULL", "sum(cpu_usage)", "sum"),
    ("cpu_usage_max", "REAL NOT NULL", "max(cpu_usage)", "max"),
    ("cpu_short_lived_n", "INTEGER NOT NULL", "count(cpu_short_lived)", "sum"),
    ("cpu_short_lived_sum", "REAL", "sum(cpu_short_lived)", "sum"),
    ("cpu_unexplained_n", "INTEGER NOT NULL", "count(cpu_unexplained)", "sum"),
    ("cpu_unexplained_sum", "REAL", "sum(cpu_unexplained)", "sum"),
    ("processes_max", "INTEGER NOT NULL", "max(processes)", "max"),
    ("starts", _WHOLE, "sum(starts)", "sum"),
    ("exits", _WHOLE, "sum(exits)", "sum"),
    ("oom_kills", _WHOLE, "sum(oom_kills)", "sum"),
]
_CONTAINER_LAST = {"held_mb": _PART, "cpu_usage": _PART}

_PROCESS: list[tuple[str, str, str, str]] = [
    ("ticks", "INTEGER NOT NULL", "count(*)", "sum"),
    ("ram_usage_sum", "REAL NOT NULL", "sum(ram_usage)", "sum"),
    ("ram_usage_max", "REAL NOT NULL", "max(ram_usage)", "max"),
    ("cpu_usage_sum", "REAL NOT NULL", "sum(cpu_usage)", "sum"),
    ("cpu_usage_max", "REAL NOT NULL", "max(cpu_usage)", "max"),
]
_PROCESS_LAST = {"ram_usage": _PART, "cpu_usage": _PART}

_REMOVALS = [("removals", "INTEGER NOT NULL", "count(*)", "sum")]

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


def _table(kind: str, level: str, key: list[str], columns: list[str]) -> list[str]:
    name = f"rollup_{kind}_{level}"
    listed = ["id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL", "timestamp INTEGER NOT NULL"]
    return [
        f"CREATE TABLE {name} ({', '.join(listed + key + columns)})",
        f"CREATE INDEX {name}_timestamp ON {name} (timestamp)",
    ]


def _view(
    kind: str,
    level: tuple[str, int, str],
    key: tuple[str, ...],
    columns: list[tuple[str, str, str, str]],
    closed: str,
    raw: str,
) -> str:
    """`closed` joins the names to the closed buckets, `raw` is where ticks come from."""
    name, bucket_ms, finer = level
    if finer:
        source, figures = f"{kind}_{finer}", [f"{fold}({one})" for one, _, _, fold in columns]
    else:
        source, figures = raw, [made for _, _, made, _ in columns]
    listed = ", ".join((*key, *(one for one, *_ in columns)))
    open_ones = ", ".join((*key, *figures))
    return f"""
        CREATE VIEW {kind}_{name} (timestamp, {listed}) AS
        SELECT timestamp, {listed} FROM {closed.format(level=name)}
        UNION ALL
        SELECT timestamp / {bucket_ms} * {bucket_ms}, {open_ones} FROM {source}
        WHERE timestamp >= (SELECT until FROM rollup_until WHERE bucket_ms = {bucket_ms})
        GROUP BY {", ".join(["1", *key])}
    """  # noqa: S608


def _plain(columns: list[tuple[str, str, str, str]], last: dict[str, str]) -> list[str]:
    return [f"{name} {kind}" for name, kind, *_ in columns] + [
        f"{name}_last {kind}" for name, kind in last.items()
    ]


def up(_migrator: Any, database: Any) -> None:
    statements = list(_NAMES)
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
        statements += [
            _view(
                "host", level, (), _HOST, "rollup_host_{level}",
                "metrics LEFT JOIN attribution_checks USING (timestamp)",
            ),
            _view(
                "container", level, _OF_CONTAINER, _CONTAINER,
                "rollup_container_{level} JOIN rollup_containers c ON c.id = container",
                "container_totals",
            ),
            _view(
                "process", level, ("pid", "name"), _PROCESS,
                "rollup_process_{level} JOIN rollup_names n ON n.id = name_id", "process_stats",
            ),
            _view(
                "removals", level, _OF_REMOVAL, _REMOVALS, "rollup_removals_{level}", "deletions"
            ),
        ]  # fmt: skip
    for statement in statements:
        database.execute_sql(statement)
