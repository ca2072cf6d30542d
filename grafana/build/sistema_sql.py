"""The queries of «Monitor de Sistema» that are more than a call of `sql`."""

from __future__ import annotations

from grafana.build import sql

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
WITH {sql.spacing()},
puntos AS (
  SELECT min(timestamp) AS t, max(source) AS fuente FROM metrics
  WHERE {sql.by_tick("metrics")} GROUP BY timestamp / $__interval_ms
),
{sql.gaps()}
SELECT t / 1000.0 AS time, fuente AS "Fuente" FROM puntos
UNION ALL SELECT t / 1000.0, 'sin-ticks' FROM huecos
ORDER BY time
"""
"""'psutil' sorts after 'modules': an interval that had both shows the worse."""

ACTIVE = f"""
WITH RECURSIVE {sql.ticks(1)},
vistos AS (
  SELECT t FROM tics WHERE t IS NOT NULL
  AND EXISTS (SELECT 1 FROM process_stats WHERE timestamp = t)
)
SELECT {PROCESS} AS proceso, CAST(sum(cpu_usage) / (SELECT count(*) FROM vistos) AS REAL) AS "CPU"
FROM vistos CROSS JOIN process_stats ON timestamp = t
GROUP BY pid, name ORDER BY 2 DESC, 1 LIMIT max(8, $top)
"""

PROCESS_LIST = f"""
SELECT {PROCESS} AS __text, pid AS __value FROM process_stats
WHERE timestamp = {sql.LAST} ORDER BY ram_usage DESC, pid LIMIT 500
"""

CHOSEN = "('*' IN (${proceso:sqlstring}) OR pid IN (${proceso:sqlstring}))"


def ranking(value: str) -> str:
    return f"""
SELECT {PROCESS} AS nombre, CAST({value} AS REAL) AS valor FROM process_stats
WHERE timestamp = {sql.LAST} ORDER BY {value} DESC, pid LIMIT $top
"""


def now(columns: dict[str, str]) -> str:
    shown = ", ".join(f'CAST({value} AS REAL) AS "{name}"' for name, value in columns.items())
    return f"SELECT {shown} FROM metrics WHERE timestamp = {sql.LAST}"
