"""The queries of «Monitor de Flota», of a centre's PostgreSQL.

Short ranges are read from buckets of 5 minutes, longer ones from hours and days (`Kind`); what is
not closed yet comes from the finer rows of the range's end. `$__from`, `$__to` and `$__interval_ms`
are put in by the browser; no macro of the plugin is used.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR_MS, DAY_MS = 3_600_000, 86_400_000

EVERYBODY = "'*' IN (${equipo:sqlstring})"


@dataclass(frozen=True, slots=True)
class Kind:
    """A table of each level, and the longest ranges that are read from 5 minutes and from hours.

    Of a thousand hosts a day has three million rows of 5 minutes; of one, three thousand: where
    hosts are chosen, the ranges are longer.
    """

    name: str
    fine_ms: int
    hours_ms: int

    @property
    def fine(self) -> str:
        return _limit(self.fine_ms, FEW_FINE_MS)

    @property
    def hours(self) -> str:
        return _limit(self.hours_ms, FEW_HOURS_MS)


FEW_FINE_MS, FEW_HOURS_MS = DAY_MS, 31 * DAY_MS
HOST = Kind("host", DAY_MS, 14 * DAY_MS)
CONTAINER = Kind("container", 2 * HOUR_MS, 2 * DAY_MS)


def _limit(all_ms: int, few_ms: int) -> str:
    if all_ms == few_ms:
        return str(all_ms)
    return f"CASE WHEN {EVERYBODY} THEN {all_ms} ELSE {few_ms} END"


SILENT_S = 900
"""Three flushes as they are by default."""

SPAN = "($__to - $__from)"


def point(kind: Kind) -> str:
    """The time that one point stands for, in milliseconds; never shorter than a bucket."""
    return (
        f"greatest($__interval_ms, CASE WHEN {SPAN} > {kind.hours} THEN {DAY_MS}"
        f" WHEN {SPAN} > {kind.fine} THEN {HOUR_MS} ELSE 300000 END)"
    )


RANGE = "timestamp BETWEEN $__from AND $__to"

PICKED = f"({EVERYBODY} OR installation IN (${{equipo:sqlstring}}))"

NAMES = """nombres AS (
  SELECT *, CASE count(*) OVER (PARTITION BY name) WHEN 1 THEN name
    ELSE name || ' ' || left(installation, 8) END AS equipo
  FROM so1.hosts
)"""
"""CTE: two hosts of one name are told apart by their ids."""


def _open(until: str, most_ms: int) -> str:
    """From when on finer rows may be needed: else all of the last hours would be read for some."""
    return (
        f"coalesce((SELECT min({until}) FROM so1.closed WHERE {until} > $__to - {most_ms}), $__to)"
    )


def rows(kind: Kind, columns: str, like: Kind | None = None) -> str:
    """All rows of the range with `installation`, `timestamp` and `columns`, as a subquery.

    At the level of `like` where that is another. An hour or a day that is not closed is read from
    what is finer, and only near the range's end: a host that fell silent in the middle of an hour
    has the rest of it in short ranges only.
    """
    fine, hours = (like or kind).fine, (like or kind).hours
    read = f"SELECT installation, timestamp, {columns} FROM so1.{kind.name}"
    closed = "LEFT JOIN so1.closed USING (installation)"
    return f"""(
    {read}_1d
    WHERE {SPAN} > {hours} AND timestamp BETWEEN $__from - {DAY_MS - 1} AND $__to AND {PICKED}
    UNION ALL
    {read}_1h {closed}
    WHERE {SPAN} > {fine} AND timestamp BETWEEN greatest($__from - {HOUR_MS - 1},
        CASE WHEN {SPAN} > {hours} THEN {_open("until_1d", 2 * DAY_MS)} ELSE 0 END)
        AND $__to AND {PICKED}
      AND ({SPAN} <= {hours} OR timestamp >= coalesce(until_1d, 0))
    UNION ALL
    {read}_5m {closed}
    WHERE timestamp BETWEEN greatest($__from - 299999,
        CASE WHEN {SPAN} > {fine} THEN {_open("until_1h", 3 * HOUR_MS)} ELSE 0 END)
        AND $__to AND {PICKED}
      AND ({SPAN} <= {fine} OR timestamp >= coalesce(until_1h, 0))
  ) AS filas"""


def points(kind: Kind) -> str:
    one = point(kind)
    return f"""puntos AS (
  SELECT generate_series($__from / {one}, $__to / {one}) AS g
)"""


HOST_LIST = f"""
WITH {NAMES}
SELECT equipo AS __text, installation AS __value FROM nombres ORDER BY equipo
"""

AGE = "extract(epoch FROM clock_timestamp() - seen_at)"
