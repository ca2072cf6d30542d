"""The queries of «Monitor de Sistema» that are more than a call of `sql`."""

from __future__ import annotations

from grafana.build import levels, sql

PROCESS = "name || ' (' || pid || ')'"

AGENT = """
WITH ultimos AS (
  SELECT timestamp AS t, source,
         timestamp - lead(timestamp) OVER (ORDER BY timestamp DESC) AS desde
  FROM (
    SELECT timestamp, source FROM metrics WHERE timestamp <= $__to ORDER BY timestamp DESC LIMIT 9
  )
), ritmo AS (
  SELECT coalesce((
    SELECT desde FROM ultimos WHERE desde IS NOT NULL ORDER BY desde
    LIMIT 1 OFFSET (SELECT count(desde) / 2 FROM ultimos)
  ), 20000) AS cada
), ahora AS (
  SELECT max(0, $__to - t) / 1000.0 AS edad, cada / 1000.0 AS cada, source
  FROM ultimos, ritmo ORDER BY t DESC LIMIT 1
)
SELECT CASE WHEN edad > 6 * cada + 5 THEN 'detenido' WHEN edad > 2 * cada + 5 THEN 'atrasado'
            ELSE 'al-dia' END AS "Agente",
       CAST(edad AS REAL) AS "Último tick", source AS "Fuente"
FROM ahora
"""
"""Stale is told by the median time between the last ticks, whatever the interval is set to."""


def _worst_source(view: str, within: str) -> str:
    return f"""SELECT min(first_ms), max(source) FROM nivel CROSS JOIN {view}
  WHERE {within} GROUP BY timestamp / punto"""


SOURCES = f"""
WITH {levels.level(levels.HOST)},
{sql.spacing()},
puntos AS (
  SELECT min(timestamp) AS t, max(source) AS fuente FROM nivel CROSS JOIN metrics
  WHERE cubo = 0 AND {sql.by_tick("metrics")} GROUP BY timestamp / $__interval_ms
  UNION ALL
  {levels.arms("host", _worst_source)}
),
{sql.gaps()}
SELECT t / 1000.0 AS time, fuente AS "Fuente" FROM puntos
UNION ALL SELECT t / 1000.0, 'sin-ticks' FROM huecos
ORDER BY time
"""
"""'psutil' sorts after 'modules': an interval that had both shows the worse."""


def _removed(view: str, within: str) -> str:
    return f"SELECT deleted_count FROM nivel CROSS JOIN {view} WHERE {within}"


REMOVED = f"""
WITH {levels.level(levels.HOST)},
idas AS (
  SELECT deleted_count FROM nivel CROSS JOIN metrics WHERE cubo = 0 AND {sql.by_tick("metrics")}
  UNION ALL
  {levels.arms("host", _removed)}
)
SELECT CAST(sum(deleted_count) AS REAL) AS "En el rango",
       (SELECT CAST(sum(deleted_count) AS REAL) FROM host_1d) AS "En total"
FROM idas
"""


def _active(view: str, within: str) -> str:
    return f"""SELECT pid, name, sum(cpu_usage_sum) FROM nivel CROSS JOIN {view}
  WHERE {within} AND pid > 0 GROUP BY 1, 2"""


def _seen(view: str, within: str) -> str:
    bucket = view.removeprefix("host_")
    return f"""SELECT ticks FROM nivel CROSS JOIN {view} h
  WHERE {within} AND EXISTS (SELECT 1 FROM process_{bucket} p WHERE p.timestamp = h.timestamp)"""


ACTIVE = f"""
WITH RECURSIVE {levels.level(levels.PROCESSES)},
{sql.ticks(1)},
vistos AS (
  SELECT t FROM tics WHERE t IS NOT NULL
  AND EXISTS (SELECT 1 FROM process_stats WHERE timestamp = t)
),
cuantos(n) AS (
  SELECT sum(n) FROM (
    SELECT count(*) AS n FROM vistos
    UNION ALL
    {levels.arms("host", _seen)}
  )
),
filas(pid, name, v) AS (
  SELECT pid, name, sum(cpu_usage) FROM vistos CROSS JOIN process_stats ON timestamp = t
  GROUP BY pid, name
  UNION ALL
  {levels.arms("process", _active)}
)
SELECT {PROCESS} AS proceso, CAST(v / (SELECT n FROM cuantos) AS REAL) AS "CPU"
FROM filas ORDER BY 2 DESC, 1 LIMIT max(8, $top)
"""

PROCESS_LIST = f"""
SELECT {PROCESS} AS __text, pid AS __value FROM process_stats
WHERE timestamp = {sql.LAST} ORDER BY ram_usage DESC, pid LIMIT 500
"""

CHOSEN = "('*' IN (${proceso:sqlstring}) OR pid IN (${proceso:sqlstring}))"


def largest(value: str) -> str:
    """The chosen processes over time."""
    return sql.largest(value, "process_stats", "name", CHOSEN, "$top", rolled=True)


def ranking(value: str) -> str:
    return f"""
SELECT {PROCESS} AS nombre, CAST({value} AS REAL) AS valor FROM process_stats
WHERE timestamp = {sql.LAST} ORDER BY {value} DESC, pid LIMIT $top
"""


def now(columns: dict[str, str]) -> str:
    shown = ", ".join(f'CAST({value} AS REAL) AS "{name}"' for name, value in columns.items())
    return f"SELECT {shown} FROM metrics WHERE timestamp = {sql.LAST}"
