"""The SQL that the panels share: which ticks a panel looks at, and how gaps stay gaps.

`$__from` and `$__to` are milliseconds, `$__interval_ms` is the time that one point of the panel
stands for. In short ranges a panel that reads a row a tick averages all of them; one that reads a
row a container or a process looks at up to eight ticks a point instead. Long ranges are read from
buckets (`levels`). The plugin's macro pattern reads `$__name(`, which none of this contains.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grafana.build import levels
from grafana.build.levels import BUCKET, POINT, Kind, rows

RANGE = levels.RANGE

LAST = f"(SELECT max(timestamp) FROM metrics WHERE {RANGE})"
"""The last tick of the range; NULL where the range has none."""

GAP_INTERVALS = 3
"""So many points or ticks without a row are a gap, and the line breaks."""

ANY_CONTAINER = "'*' IN (${contenedor:sqlstring})"

TIERS = "tier IN (${nivel:sqlstring})"

CONTAINERS = f"""({ANY_CONTAINER} OR container_id IN (${{contenedor:sqlstring}}))
    AND {TIERS}"""
"""Rows of containers that the dashboard's two variables let through."""


ENGINES = f"""motores(varios) AS MATERIALIZED (
  SELECT (SELECT min(engine) FROM rollup_containers) < (SELECT max(engine) FROM rollup_containers)
    OR (SELECT min(engine) < max(engine) FROM container_totals WHERE timestamp = {LAST})
)"""
"""CTE: whether the history knows containers of several engines, by an index and the last tick.

One answer for the whole dashboard, whatever its variables choose: a container keeps its name.
"""

NAME = """CASE WHEN (SELECT varios FROM motores) THEN engine || ': ' || container_name
  ELSE container_name END"""
"""A container's name, with its engine where there are several. Needs `motores`."""

NAMED_IF_ANY = f"CASE container_name WHEN '' THEN '' ELSE {NAME} END"
"""Of rows that need not be any container's."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a point: SQL over ticks, and over buckets."""

    ticks: str
    buckets: str


def mean(column: str, count: str = "ticks") -> Figure:
    return Figure(f"avg({column})", f"sum({column}_sum) * 1.0 / sum({count})")


def mean_known(column: str) -> Figure:
    """Of a column that may be NULL."""
    return mean(column, f"{column}_n")


def highest(column: str) -> Figure:
    return Figure(f"max({column})", f"max({column}_max)")


def total(column: str) -> Figure:
    return Figure(f"sum({column})", f"sum({column})")


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
    Needs WITH RECURSIVE and `nivel`. The last row's `t` is NULL; the only one's where buckets are
    read.
    """
    return f"""{spacing(ticks_per_point)},
tics(t) AS (
  SELECT min(timestamp) FROM metrics WHERE {BUCKET} = 0 AND {RANGE}
  UNION ALL
  SELECT (
    SELECT min(m.timestamp) FROM metrics m
    WHERE m.timestamp > tics.t AND m.timestamp <= $__to
      AND m.timestamp >= (tics.t / paso + 1) * paso
        + max(0, paso - cada) * ((tics.t / paso + 1) * 61803 % 100000) / 100000
  ) FROM tics, malla WHERE t IS NOT NULL
)"""


def sampled(ticks_per_point: int = 4) -> str:
    """As `ticks`, and `puntos(g, n, t, docker)`: each point with its number of ticks.

    Points are whole intervals since the epoch, so that a moving range does not shift them. `docker`
    is 0 where it did not answer.
    """
    return f"""{ticks(ticks_per_point)},
puntos(g, n, t, docker) AS (
  SELECT g, n, t, container_count IS NOT NULL
  FROM (SELECT t / $__interval_ms AS g, count(*) AS n, min(t) AS t FROM tics
        WHERE t IS NOT NULL GROUP BY 1)
  CROSS JOIN metrics ON timestamp = t
  UNION ALL
  SELECT timestamp / {POINT}, sum(ticks), min(first_ms), sum(container_count_n) > 0
  FROM {rows("host", "ticks, first_ms, container_count_n")} GROUP BY 1
)"""


def gaps(points: str = "puntos") -> str:
    """CTE `huecos(t)`: just behind each point that none follows soon. Needs `malla`, `points`."""
    return f"""huecos(t) AS (
  SELECT t + 1 FROM (SELECT t, lead(t) OVER (ORDER BY t) AS sigue FROM {points}), nivel
  WHERE sigue - t > {GAP_INTERVALS} * max(punto, coalesce((SELECT cada FROM malla), 1))
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


def averages(figures: dict[str, Figure], table: str = "metrics", broken: bool = True) -> str:
    """A time series query of one row a tick: figures by their names, point by point.

    `broken` breaks lines at gaps. Bars do not want it: the nearest two points set their width.
    """
    every = list(figures.values())
    inner = ", ".join(f"CAST({one.ticks} AS REAL) AS v{n}" for n, one in enumerate(every))
    folded = ", ".join(f"CAST({one.buckets} AS REAL)" for one in every)
    outer = ", ".join(f'v{n} AS "{name}"' for n, name in enumerate(figures))
    nothing = ", ".join("NULL" for _ in figures)
    read = sorted({name for one in every for name in re.findall(r"\((\w+)\)", one.buckets)})
    points = f"""{levels.level(levels.HOST)},
puntos AS (
  SELECT min(timestamp) AS t, {inner} FROM {table}
  WHERE {BUCKET} = 0 AND {by_tick(table)} GROUP BY timestamp / $__interval_ms
  UNION ALL
  SELECT min(first_ms), {folded}
  FROM {rows("host", ", ".join(("first_ms", *read)))} GROUP BY timestamp / {POINT}
)"""
    if not broken:
        return f"""WITH {points}
SELECT t / punto * punto / 1000.0 AS time, {outer} FROM puntos, nivel ORDER BY time"""
    return f"""WITH {points},
{spacing()},
{gaps()}
SELECT t / 1000.0 AS time, {outer} FROM puntos
UNION ALL SELECT t / 1000.0, {nothing} FROM huecos
ORDER BY time"""


def sums(columns: dict[str, str], kind: Kind, where: str = "1", few: str = "1") -> str:
    """A time series query that adds rows up, point by point; ticks without rows make a 0.

    `few` is a condition that only rows of ticks need: an index finds them by it.
    """
    inner = ", ".join(f"sum({one}) AS v{n}" for n, one in enumerate(columns.values()))
    scope = RANGE if kind is levels.CONTAINERS else by_tick(kind.ticks)
    read = ", ".join(columns.values())
    return _summed(
        kind,
        tuple(columns),
        f"""SELECT timestamp / $__interval_ms AS g, {inner} FROM {kind.ticks}
  WHERE {BUCKET} = 0 AND {scope} AND {few} AND {where} GROUP BY 1
  UNION ALL
  SELECT timestamp / {POINT}, {inner} FROM {rows(kind.name, read, where)} GROUP BY 1""",
    )


def removals(columns: dict[str, int], number: str) -> str:
    """As `sums`, of how many removals are of each kind; `number` is SQL that gives 0 to 7.

    One number is the key of point and kind together: with hundreds of thousands of rows the
    comparisons of texts, column by column, would be most of the work. Buckets do not know which
    containers went; those of a few are looked up by an index of their own.
    """
    inner = ", ".join(
        f"sum(cuantos) FILTER (WHERE clave % 8 = {one}) AS v{n}"
        for n, one in enumerate(columns.values())
    )
    buckets = rows("removals", "outcome, reason, removals", f"{ANY_CONTAINER} AND {TIERS}")
    return _summed(
        levels.REMOVALS,
        tuple(columns),
        f"""SELECT clave / 8 AS g, {inner} FROM (
    SELECT timestamp / {POINT} * 8 + {number} AS clave, count(*) AS cuantos
    FROM deletions
    WHERE {BUCKET} = 0 AND {ANY_CONTAINER} AND {by_tick("deletions")}
      AND {TIERS} GROUP BY 1
    UNION ALL
    SELECT timestamp / {POINT} * 8 + {number}, count(*) FROM deletions
    WHERE {OF_FEW} AND {TIERS} GROUP BY 1
    UNION ALL
    SELECT timestamp / {POINT} * 8 + {number}, sum(removals) FROM {buckets} GROUP BY 1
  ) GROUP BY 1""",
    )


OF_FEW = f"""NOT ({ANY_CONTAINER}) AND container_id IN (${{contenedor:sqlstring}}) AND {RANGE}"""
"""Rows of `deletions` of the chosen containers, by the index of those; none where all are."""


def _summed(kind: Kind, names: tuple[str, ...], query: str) -> str:
    """`query` gives `g, v0, v1 …`; every point with ticks is there, with 0 where it has no row."""
    outer = ", ".join(
        f'CAST(coalesce(v{n}, 0) AS REAL) AS "{name}"' for n, name in enumerate(names)
    )
    zeros = ", ".join("0" for _ in names)
    added = ", ".join(f"sum(v{n}) AS v{n}" for n, _ in enumerate(names))
    return f"""WITH RECURSIVE {levels.level(kind)},
{sampled(1)},
sumas AS (
  {query}
)
SELECT g * punto / 1000.0 AS time, {outer} FROM (
  SELECT g, {added} FROM (SELECT * FROM sumas UNION ALL SELECT g, {zeros} FROM puntos) GROUP BY g
), nivel ORDER BY time"""


NO_LEVELS = f"""nivel AS (
  SELECT 0 AS cubo, $__interval_ms AS punto,
    {", ".join(f"{levels.NEVER} AS de_{one}" for one in (*levels.BUCKETS_MS, "ticks"))}
)"""
"""`nivel` of what there are no buckets of."""


def largest(value: str, table: str, name: str, where: str, keep: str, rolled: bool = False) -> str:
    """A time series query of the processes with the largest sums, each the mean of where it is.

    The label is put together last: for every row of the range it would cost more than all else.
    `rolled` reads long ranges from the buckets of the host's processes.
    """
    read = rows("process", f"pid, name, {value}_sum, ticks", f"pid > 0 AND {where}")
    buckets = (
        f"""UNION ALL
  SELECT timestamp / {POINT}, pid, name, {value}_sum, ticks FROM {read}"""
        if rolled
        else ""
    )
    return f"""WITH RECURSIVE {levels.level(levels.PROCESSES) if rolled else NO_LEVELS},
{sampled(1)},
{gaps()},
filas(g, pid, nombre, v, veces) AS MATERIALIZED (
  SELECT tics.t / $__interval_ms, pid, {name}, c.{value}, 1
  FROM tics CROSS JOIN {table} c ON c.timestamp = tics.t WHERE {where}
  {buckets}
),
mayores AS MATERIALIZED (
  SELECT pid, min(nombre) || ' (' || pid || ')' AS una FROM filas
  GROUP BY pid ORDER BY sum(v) DESC, pid LIMIT {keep}
)
SELECT puntos.t / 1000.0 AS time, nombre || ' (' || pid || ')' AS metric,
       CAST(sum(v) AS REAL) / sum(veces) AS value
FROM filas JOIN puntos USING (g) WHERE pid IN (SELECT pid FROM mayores) GROUP BY g, pid, nombre
UNION ALL
SELECT huecos.t / 1000.0, una, NULL FROM huecos, (SELECT una FROM mayores LIMIT 1)
ORDER BY time"""


def stacked(value: str, others: str, keep: str = "12") -> str:
    """A time series query of the containers with the largest sums by name, and of `others`.

    A value is the mean over the ticks that are looked at, a container counting 0 where it is not
    there, so that the whole is the mean of the whole. Ticks without any row are 0 under «ninguno»;
    ticks at which Docker did not answer, and times without ticks, are gaps.
    """
    read = rows("container", f"engine, container_id, container_name, {value}_sum", CONTAINERS)
    return f"""WITH RECURSIVE {levels.level(levels.CONTAINERS)},
{ENGINES},
{sampled(8)},
{gaps()},
filas(g, nombre, v) AS MATERIALIZED (
  SELECT tics.t / $__interval_ms, {NAME}, c.{value}
  FROM tics CROSS JOIN container_totals c ON c.timestamp = tics.t WHERE {CONTAINERS}
  UNION ALL
  SELECT timestamp / {POINT},
    CASE container_id WHEN '' THEN '{others}' ELSE {NAME} END, {value}_sum FROM {read}
),
mayores AS MATERIALIZED (
  SELECT nombre FROM filas WHERE nombre <> '{others}'
  GROUP BY nombre ORDER BY sum(v) DESC, nombre LIMIT {keep}
),
uno(una) AS (SELECT coalesce(min(nombre), 'ninguno') FROM mayores),
cuentas AS (
  SELECT g, clave, sum(v) AS v, sum(fila) AS filas FROM (
    SELECT g, CASE WHEN nombre IN (SELECT nombre FROM mayores) THEN nombre ELSE '{others}' END
      AS clave, v, 1 AS fila FROM filas
    UNION ALL SELECT g, '{others}', 0, 0 FROM puntos
  ) GROUP BY g, clave
),
series AS (
  SELECT g, v, clave, sum(filas) OVER (PARTITION BY g) AS aqui,
         sum(CASE clave WHEN '{others}' THEN filas END) OVER () AS otros
  FROM cuentas
)
SELECT puntos.t / 1000.0 AS time,
       CASE WHEN aqui > 0 THEN clave WHEN docker THEN 'ninguno' ELSE una END AS metric,
       CASE WHEN aqui > 0 OR docker THEN CAST(v AS REAL) / n END AS value
FROM series JOIN puntos USING (g), uno
WHERE clave <> '{others}' OR aqui = 0 OR otros > 0
UNION ALL
SELECT huecos.t / 1000.0, una, NULL FROM huecos, uno
ORDER BY time"""
