"""The queries of «Monitor de Sistema» that are more than a call of `sql`."""

from __future__ import annotations

from grafana.build import levels, sql
from grafana.build.levels import BUCKET, POINT

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


SOURCES = f"""
WITH {levels.level(levels.HOST)},
{sql.spacing()},
puntos AS (
  SELECT min(timestamp) AS t, max(source) AS fuente FROM metrics
  WHERE {BUCKET} = 0 AND {sql.by_tick("metrics")} GROUP BY timestamp / $__interval_ms
  UNION ALL
  SELECT min(first_ms), max(source) FROM {levels.rows("host", "first_ms, source")}
  GROUP BY timestamp / {POINT}
),
{sql.gaps()}
SELECT t / 1000.0 AS time, fuente AS "Fuente" FROM puntos
UNION ALL SELECT t / 1000.0, 'sin-ticks' FROM huecos
ORDER BY time
"""
"""'psutil' sorts after 'modules': an interval that had both shows the worse."""


REMOVED = f"""
WITH {levels.level(levels.HOST)},
idas AS (
  SELECT deleted_count FROM metrics WHERE {BUCKET} = 0 AND {sql.by_tick("metrics")}
  UNION ALL
  SELECT deleted_count FROM {levels.rows("host", "deleted_count")}
)
SELECT CAST(sum(deleted_count) AS REAL) AS "En el rango",
       (SELECT CAST(sum(deleted_count) AS REAL) FROM host_1d) AS "En total"
FROM idas
"""


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
    SELECT h.ticks FROM {levels.rows("host", "ticks")} h
    WHERE h.timestamp IN (SELECT timestamp FROM {levels.rows("process", "pid")})
  )
),
filas(pid, name, v) AS (
  SELECT pid, name, sum(cpu_usage) FROM vistos CROSS JOIN process_stats ON timestamp = t
  GROUP BY pid, name
  UNION ALL
  SELECT pid, name, sum(cpu_usage_sum)
  FROM {levels.rows("process", "pid, name, cpu_usage_sum", "pid > 0")} GROUP BY pid, name
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
