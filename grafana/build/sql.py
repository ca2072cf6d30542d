"""The SQL that the panels share: which ticks a panel looks at, and how gaps stay gaps.

`$__from` and `$__to` are milliseconds, `$__interval_ms` is the time that one point of the panel
stands for. A panel that reads a row a tick averages all of them; one that reads a row a container
or a process looks at up to eight ticks a point instead, so that thirty days are as quick as one.
The plugin's macro pattern reads `$__name(`, which none of this contains.
"""

from __future__ import annotations

RANGE = "timestamp BETWEEN $__from AND $__to"

LAST = f"(SELECT max(timestamp) FROM metrics WHERE {RANGE})"
"""The last tick of the range; NULL where the range has none."""

GAP_INTERVALS = 3
"""So many points or ticks without a row are a gap, and the line breaks."""

CONTAINERS = (
    "('*' IN (${contenedor:sqlstring}) OR container_id IN (${contenedor:sqlstring}))"
    " AND tier IN (${nivel:sqlstring})"
)
"""Rows of `container_totals` that the dashboard's two variables let through."""


def spacing(ticks_per_point: int = 4) -> str:
    """CTE `malla`: one row with `cada`, the range's mean time from tick to tick, and `paso`.

    `paso` is the time from one tick that is looked at to the next, a part of the panel's interval.
    """
    return f"""malla(cada, paso) AS MATERIALIZED (
  SELECT max(1, (max(timestamp) - min(timestamp)) / max(1, count(*) - 1)),
         max(1, $__interval_ms / {ticks_per_point})
  FROM metrics WHERE {RANGE} HAVING count(*) > 0
)"""


def ticks(ticks_per_point: int = 4) -> str:
    """CTEs `malla`, `tics(t)`: all ticks of the range, or one in each step where those are many.

    The place within a step moves (golden section): the generator runs each minute, and ticks that
    always fell on the same second of it would show a number of containers that is never true.
    Needs WITH RECURSIVE. The last row's `t` is NULL.
    """
    return f"""{spacing(ticks_per_point)},
tics(t) AS (
  SELECT min(timestamp) FROM metrics WHERE {RANGE}
  UNION ALL
  SELECT (
    SELECT min(m.timestamp) FROM metrics m
    WHERE m.timestamp > tics.t AND m.timestamp <= $__to
      AND m.timestamp >= (tics.t / paso + 1) * paso
        + max(0, paso - cada) * ((tics.t / paso + 1) * 61803 % 100000) / 100000
  ) FROM tics, malla WHERE t IS NOT NULL
)"""


def sampled(ticks_per_point: int = 4) -> str:
    """As `ticks`, and `puntos(g, n, t)`: each point of the panel with its number of ticks.

    Points are whole intervals since the epoch, so that a moving range does not shift them.
    """
    return f"""{ticks(ticks_per_point)},
puntos(g, n, t) AS (
  SELECT t / $__interval_ms, count(*), min(t) FROM tics WHERE t IS NOT NULL GROUP BY 1
)"""


def gaps(points: str = "puntos") -> str:
    """CTE `huecos(t)`: just behind each point that none follows soon. Needs `malla`, `points`."""
    return f"""huecos(t) AS (
  SELECT t + 1 FROM (SELECT t, lead(t) OVER (ORDER BY t) AS sigue FROM {points}), malla
  WHERE sigue - t > {GAP_INTERVALS} * max(cada, $__interval_ms)
)"""


def by_tick(table: str) -> str:
    """The range of a table, walked along its ids.

    They rise with time, since the agent only ever appends, and then this takes half as long as a
    walk along the index of timestamps that looks up each row. In a database that was merged or
    restored by hand they need not: the ids are then more than the range, and the rows are still
    those of the range. The `+` keeps SQLite from the other index.
    """
    return f"""id BETWEEN
    (SELECT min(id) FROM {table} WHERE {RANGE}) AND (SELECT max(id) FROM {table} WHERE {RANGE})
    AND +{RANGE}"""


def averages(columns: dict[str, str], table: str = "metrics", broken: bool = True) -> str:
    """A time series query of one row a tick: SQL aggregates by their names, point by point.

    `broken` breaks lines at gaps. Bars do not want it: the nearest two points set their width.
    """
    inner = ", ".join(f"CAST({sql} AS REAL) AS v{n}" for n, sql in enumerate(columns.values()))
    outer = ", ".join(f'v{n} AS "{name}"' for n, name in enumerate(columns))
    nothing = ", ".join("NULL" for _ in columns)
    points = f"""puntos AS (
  SELECT min(timestamp) AS t, {inner} FROM {table}
  WHERE {by_tick(table)} GROUP BY timestamp / $__interval_ms
)"""
    if not broken:
        return f"""WITH {points}
SELECT t / $__interval_ms * $__interval_ms / 1000.0 AS time, {outer} FROM puntos ORDER BY time"""
    return f"""WITH {spacing()},
{points},
{gaps()}
SELECT t / 1000.0 AS time, {outer} FROM puntos
UNION ALL SELECT t / 1000.0, {nothing} FROM huecos
ORDER BY time"""


def sums(columns: dict[str, str], table: str, where: str = "1") -> str:
    """A time series query that adds rows up, point by point; ticks without rows make a 0."""
    inner = ", ".join(f"{sql} AS v{n}" for n, sql in enumerate(columns.values()))
    scope = RANGE if table == "container_totals" else by_tick(table)
    return _summed(
        tuple(columns),
        f"""SELECT timestamp / $__interval_ms AS g, {inner} FROM {table}
  WHERE {scope} AND {where} GROUP BY 1""",
    )


def counts(columns: dict[str, int], kind: str, table: str, where: str) -> str:
    """As `sums`, of how many rows are of each kind; `kind` is SQL that gives 0 to 7.

    One number is the key of point and kind together: with hundreds of thousands of rows the
    comparisons of texts, column by column, would be most of the work.
    """
    inner = ", ".join(
        f"sum(cuantos) FILTER (WHERE clave % 8 = {number}) AS v{n}"
        for n, number in enumerate(columns.values())
    )
    return _summed(
        tuple(columns),
        f"""SELECT clave / 8 AS g, {inner} FROM (
    SELECT timestamp / $__interval_ms * 8 + {kind} AS clave, count(*) AS cuantos FROM {table}
    WHERE {by_tick(table)} AND {where} GROUP BY 1
  ) GROUP BY 1""",
    )


def _summed(names: tuple[str, ...], query: str) -> str:
    """`query` gives `g, v0, v1 …`; every point with ticks is there, with 0 where it has no row."""
    outer = ", ".join(
        f'CAST(coalesce(v{n}, 0) AS REAL) AS "{name}"' for n, name in enumerate(names)
    )
    return f"""WITH RECURSIVE {sampled(1)},
sumas AS (
  {query}
)
SELECT g * $__interval_ms / 1000.0 AS time, {outer}
FROM (SELECT g FROM puntos UNION SELECT g FROM sumas) LEFT JOIN sumas USING (g)
ORDER BY time"""


def largest(value: str, table: str, name: str, where: str, keep: str) -> str:
    """A time series query of the processes with the largest sums, each the mean of where it is.

    The label is put together last: for every row of the range it would cost more than all else.
    """
    return f"""WITH RECURSIVE {sampled(1)},
{gaps()},
filas AS MATERIALIZED (
  SELECT tics.t / $__interval_ms AS g, pid, {name} AS nombre, {value} AS v
  FROM tics CROSS JOIN {table} c ON c.timestamp = tics.t WHERE {where}
),
mayores AS MATERIALIZED (
  SELECT pid FROM filas GROUP BY pid ORDER BY sum(v) DESC, pid LIMIT {keep}
)
SELECT puntos.t / 1000.0 AS time, nombre || ' (' || pid || ')' AS metric,
       CAST(avg(v) AS REAL) AS value
FROM filas JOIN puntos USING (g) WHERE pid IN (SELECT pid FROM mayores) GROUP BY g, pid, nombre
UNION ALL
SELECT huecos.t / 1000.0, nombre || ' (' || pid || ')', NULL
FROM huecos, (SELECT * FROM filas WHERE pid IN (SELECT pid FROM mayores) LIMIT 1)
ORDER BY time"""


def stacked(value: str, others: str, table: str, name: str, where: str, keep: str = "12") -> str:
    """A time series query of the names with the largest sums, and of `others` together.

    A value is the mean over the ticks that are looked at, a container counting 0 where it is not
    there, so that the whole is the mean of the whole. Ticks without any row are 0 under «ninguno»;
    ticks at which Docker did not answer, and times without ticks, are gaps.
    """
    return f"""WITH RECURSIVE {sampled(8)},
{gaps()},
filas AS MATERIALIZED (
  SELECT tics.t / $__interval_ms AS g, {name} AS nombre, {value} AS v
  FROM tics CROSS JOIN {table} c ON c.timestamp = tics.t WHERE {where}
),
mayores AS MATERIALIZED (
  SELECT nombre FROM filas GROUP BY nombre ORDER BY sum(v) DESC, nombre LIMIT {keep}
),
series AS (
  SELECT g, nombre, v FROM filas WHERE nombre IN (SELECT nombre FROM mayores)
  UNION ALL
  SELECT g, '{others}', v FROM filas WHERE nombre NOT IN (SELECT nombre FROM mayores)
  UNION ALL
  SELECT g, '{others}', 0 FROM puntos
  WHERE EXISTS (SELECT 1 FROM filas WHERE nombre NOT IN (SELECT nombre FROM mayores))
    AND g IN (SELECT g FROM filas)
  UNION ALL
  SELECT g, 'ninguno', 0 FROM puntos JOIN metrics m ON m.timestamp = puntos.t
  WHERE m.container_count IS NOT NULL AND g NOT IN (SELECT g FROM filas)
),
nada(t) AS (
  SELECT t FROM huecos
  UNION ALL
  SELECT puntos.t FROM puntos JOIN metrics m ON m.timestamp = puntos.t
  WHERE m.container_count IS NULL AND g NOT IN (SELECT g FROM filas)
)
SELECT puntos.t / 1000.0 AS time, nombre AS metric, CAST(sum(v) AS REAL) / n AS value
FROM series JOIN puntos USING (g) GROUP BY g, nombre
UNION ALL
SELECT nada.t / 1000.0, nombre, NULL FROM nada, (SELECT nombre FROM series LIMIT 1)
ORDER BY time"""
