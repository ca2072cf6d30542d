"""Which level of the history a query reads: ticks in short ranges, buckets in long ones.

The CTE `nivel` chooses a level and says from when on each table is read: from the range's begin on
in the level itself, from where its closed buckets end in the finer ones, never in the coarser. So
what comes out is always added up by time. A level is chosen where the range is short enough for it,
and where its rows reach back as far as those of the coarser one: ticks are kept for days, buckets
of 5 minutes for months.

SQLite expands a CTE wherever it is named, and from 3.54 on refuses a query of a thousand cursors: a
test counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

RANGE = "timestamp BETWEEN $__from AND $__to"

_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
BUCKETS_MS = {"5m": 300_000, "1h": _HOUR_MS, "1d": _DAY_MS}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a query reads, and the longest range that each level is read for, in milliseconds."""

    name: str
    ticks: str
    """The table of its ticks."""
    kept: tuple[str, str]
    """The tables that tell how far back its ticks and buckets reach."""
    ticks_ms: int
    fine_ms: int
    hour_ms: int


_ALL = ("metrics", "rollup_host")

HOST = Kind("host", "metrics", _ALL, 2 * _DAY_MS, 31 * _DAY_MS, 800 * _DAY_MS)
"""One row a tick or bucket."""

CONTAINERS = Kind("container", "container_totals", _ALL, _DAY_MS // 2, 7 * _DAY_MS, 62 * _DAY_MS)
"""Some twenty rows a bucket."""

PROCESSES = Kind(
    "process",
    "process_stats",
    ("process_stats", "rollup_process"),
    _DAY_MS // 4,
    7 * _DAY_MS,
    62 * _DAY_MS,
)
"""Hundreds of rows a tick, some twenty a bucket."""

REMOVALS = Kind("removals", "deletions", _ALL, 2 * _DAY_MS, 7 * _DAY_MS, 62 * _DAY_MS)
"""Some ten rows a bucket, by tier, outcome and reason."""


NEVER = 2**63 - 1

BUCKET = "(SELECT cubo FROM nivel)"
"""The chosen level's bucket in milliseconds, 0 for ticks."""

POINT = "(SELECT punto FROM nivel)"
"""The time that one point of the panel stands for, never shorter than a bucket."""


def level(kind: Kind, interval: str = "$__interval_ms") -> str:
    """CTE `nivel`: one row with `cubo`, `punto`, and where each table is read from, as `de_…`.

    `desde` is where the range begins, or the history where that is later: the oldest row of the
    finest level that reaches as far back as the coarser ones. A variable's query has no interval.
    """
    ticks, buckets = kind.kept
    return f"""nivel AS MATERIALIZED (
  SELECT cubo, max({interval}, cubo) AS punto,
    CASE cubo WHEN 86400000 THEN $__from - 86399999 ELSE {NEVER} END AS de_1d,
    CASE cubo WHEN 86400000 THEN max($__from - 3599999, hasta_1d)
      WHEN 3600000 THEN $__from - 3599999 ELSE {NEVER} END AS de_1h,
    CASE cubo WHEN 300000 THEN $__from - 299999 WHEN 0 THEN {NEVER}
      ELSE max($__from - 299999, hasta_1h) END AS de_5m,
    CASE cubo WHEN 0 THEN {NEVER} ELSE max($__from, hasta_5m) END AS de_ticks
  FROM (SELECT hasta_5m, hasta_1h, hasta_1d, CASE
    WHEN $__to - desde <= {kind.ticks_ms} AND crudo <= desde THEN 0
    WHEN $__to - desde <= {kind.fine_ms} AND cinco <= desde THEN 300000
    WHEN $__to - desde <= {kind.hour_ms} AND hora <= desde THEN 3600000
    WHEN dia IS NULL THEN 0 ELSE 86400000 END AS cubo
  FROM (SELECT *, max($__from, CASE
    WHEN NOT coalesce(hora < dia + 86400000, 0) THEN dia
    WHEN NOT coalesce(cinco < hora + 3600000, 0) THEN hora
    WHEN NOT coalesce(crudo < cinco + 300000, 0) THEN cinco ELSE crudo END) AS desde
  FROM (SELECT *, coalesce(dia_1, hora) AS dia
  FROM (SELECT *, coalesce(hora_1, cinco) AS hora
  FROM (SELECT *, coalesce(cinco_1, crudo) AS cinco
  FROM (SELECT (SELECT min(timestamp) FROM {ticks}) AS crudo,
    (SELECT min(timestamp) FROM {buckets}_5m) AS cinco_1,
    (SELECT min(timestamp) FROM {buckets}_1h) AS hora_1,
    (SELECT min(timestamp) FROM {buckets}_1d) AS dia_1,
    max(until) FILTER (WHERE bucket_ms = 300000) AS hasta_5m,
    max(until) FILTER (WHERE bucket_ms = 3600000) AS hasta_1h,
    max(until) FILTER (WHERE bucket_ms = 86400000) AS hasta_1d FROM rollup_until))))))
)"""


_NAMES = {
    "container": " CROSS JOIN rollup_containers c ON c.id = container",
    "process": " CROSS JOIN rollup_names n ON n.id = name_id",
}


def closed(kind: str, bucket: str) -> str:
    """The closed buckets of a kind, with what they are of."""
    return f"rollup_{kind}_{bucket}{_NAMES.get(kind, '')}"


def rows(kind: str, columns: str, where: str = "1") -> str:
    """All rows of a range with `timestamp` and `columns`, as a subquery; none where ticks are read.

    A bucket counts where any of it lies in the range.
    """
    tables = {name: closed(kind, name) for name in BUCKETS_MS} | {"ticks": f"{kind}_ticks"}
    return (
        "(\n    "
        + "\n    UNION ALL ".join(
            f"SELECT timestamp, {columns} FROM {table}"
            f" WHERE timestamp BETWEEN (SELECT de_{name} FROM nivel) AND $__to AND {where}"
            for name, table in tables.items()
        )
        + ")"
    )
