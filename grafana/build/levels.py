"""Which level of the history a query reads: ticks in short ranges, buckets in long ones.

The views `host_5m`, `container_1h`, … have a row for each closed bucket and go on with finer ones,
at last with ticks, so what is read from them is always added up by time. A query has an arm for each
level, and the CTE `nivel` leaves all but one of them empty before it reads a row. A level is read
where the range is short enough for it, and where its rows reach back as far as those of the coarser
one: ticks are kept for days, buckets of 5 minutes for months.
"""

from __future__ import annotations

from collections.abc import Callable
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

CONTAINERS = Kind("container", "container_totals", _ALL, _DAY_MS // 2, 7 * _DAY_MS, 93 * _DAY_MS)
"""Some twenty rows a bucket."""

PROCESSES = Kind(
    "process",
    "process_stats",
    ("process_stats", "rollup_process"),
    _DAY_MS // 4,
    7 * _DAY_MS,
    93 * _DAY_MS,
)
"""Hundreds of rows a tick, some twenty a bucket."""

REMOVALS = Kind("removals", "deletions", _ALL, 2 * _DAY_MS, 31 * _DAY_MS, 800 * _DAY_MS)


def level(kind: Kind) -> str:
    """CTE `nivel`: one row with `cubo`, the bucket in milliseconds (0: ticks), and `punto`.

    `punto` is the time that one point of the panel stands for, never shorter than a bucket.
    """
    ticks, buckets = kind.kept
    crudo, cinco, hora, dia = (
        f"(SELECT min(timestamp) FROM {table})"
        for table in (ticks, *(f"{buckets}_{name}" for name in BUCKETS_MS))
    )
    return f"""nivel(cubo, punto) AS MATERIALIZED (
  SELECT cubo, max($__interval_ms, cubo) FROM (SELECT CASE
    WHEN $__to - max($__from, dia) <= {kind.ticks_ms}
      AND (crudo <= $__from OR crudo < cinco + 300000) THEN 0
    WHEN $__to - max($__from, dia) <= {kind.fine_ms}
      AND (cinco <= $__from OR cinco < hora + 3600000) THEN 300000
    WHEN $__to - max($__from, dia) <= {kind.hour_ms}
      AND (hora <= $__from OR hora < dia + 86400000) THEN 3600000
    WHEN dia IS NULL THEN 0 ELSE 86400000 END AS cubo
  FROM (SELECT {crudo} AS crudo, coalesce({cinco}, {crudo}) AS cinco,
    coalesce({hora}, {cinco}, {crudo}) AS hora, coalesce({dia}, {hora}, {cinco}, {crudo}) AS dia))
)"""


def arms(view: str, arm: Callable[[str, str], str]) -> str:
    """`arm` for each level of buckets, of the view's name and the condition that is its range's.

    A bucket counts where any of it lies in the range. The view has to come after `nivel`.
    """
    return "\n  UNION ALL\n  ".join(
        arm(
            f"{view}_{name}",
            f"cubo = {bucket_ms} AND timestamp > $__from - {bucket_ms} AND timestamp <= $__to",
        )
        for name, bucket_ms in BUCKETS_MS.items()
    )
