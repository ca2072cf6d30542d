"""What «Monitor de Flota» asks of what happened: removals, OOM kills, stops."""

from __future__ import annotations

from grafana.build.contenedores_sql import ENDING
from grafana.build.flota_sql import CONTAINER, HOST, NAMES, PICKED, RANGE, point, points, rows

# Each kill by its record. A host that has sent none ever (its agent is older, or has no witness but
# the counter) is told by what its containers' cgroups counted.
_KILLS = f"""muertes AS (
  SELECT installation, timestamp, container_name, image, process_name, cause,
    anon_mb + file_mb + shmem_mb AS tenia, 1::bigint AS n
  FROM so1.oom_kills WHERE {RANGE} AND {PICKED}
  UNION ALL
  SELECT installation, timestamp, container_name, image, '', 'unknown', NULL, oom_kills
  FROM {rows(CONTAINER, "container_name, image, oom_kills")}
  WHERE oom_kills > 0 AND installation NOT IN (
    SELECT installation FROM so1.cursors WHERE stream = 'oom_kills' AND last_id > 0
  )
)"""

EVENTS = f"""
WITH idas AS (
  SELECT count(*) FILTER (WHERE outcome = 'removed') AS eliminados,
    count(*) FILTER (WHERE outcome = 'failed') AS fallidos
  FROM so1.removals WHERE {RANGE} AND {PICKED}
),
{_KILLS}
SELECT (SELECT eliminados FROM idas)::float8 AS "Eliminados",
  (SELECT fallidos FROM idas)::float8 AS "Fallidos",
  (SELECT coalesce(sum(n), 0) FROM muertes)::float8 AS "OOM",
  (SELECT count(*) FROM so1.epochs WHERE {PICKED} AND reason = 'fork'
    AND extract(epoch FROM began_at) * 1000 BETWEEN $__from AND $__to)::float8
    AS "Bifurcaciones",
  (SELECT count(*) FROM so1.gaps WHERE {PICKED}
    AND extract(epoch FROM noticed_at) * 1000 BETWEEN $__from AND $__to)::float8 AS "Huecos"
"""

REMOVALS = f"""
WITH {NAMES}
SELECT equipo AS "Equipo", coalesce(rule, '') AS "Regla", reason AS "Motivo", tier AS "Nivel",
  {ENDING} AS "Resultado", count(*)::float8 AS "Cuántas", sum(held_mb)::float8 AS "Retenida",
  to_timestamp(max(timestamp) / 1000.0) AS "La última"
FROM so1.removals JOIN nombres USING (installation)
WHERE {RANGE} AND {PICKED} GROUP BY 1, 2, 3, 4, 5
ORDER BY 6 DESC, 1, 2, 3, 4, 5 LIMIT 200
"""

REMOVALS_OVER_TIME = f"""
WITH {points(HOST)},
sumas AS (
  SELECT timestamp / {point(HOST)} AS g,
    count(*) FILTER (WHERE outcome = 'removed' AND reason = 'excess-low') AS v0,
    count(*) FILTER (WHERE outcome = 'removed' AND reason = 'excess-high') AS v1,
    count(*) FILTER (WHERE outcome = 'removed' AND reason = 'exited') AS v2,
    count(*) FILTER (WHERE outcome = 'removed'
      AND reason NOT IN ('excess-low', 'excess-high', 'exited')) AS v3,
    count(*) FILTER (WHERE outcome = 'failed') AS v4
  FROM so1.removals WHERE {RANGE} AND {PICKED} GROUP BY 1
)
SELECT to_timestamp(g * {point(HOST)} / 1000.0) AS time,
  coalesce(v0, 0)::float8 AS "Exceso bajo", coalesce(v1, 0)::float8 AS "Exceso alto",
  coalesce(v2, 0)::float8 AS "Terminados", coalesce(v3, 0)::float8 AS "Otros motivos",
  coalesce(v4, 0)::float8 AS "Fallidos"
FROM puntos LEFT JOIN sumas USING (g) ORDER BY 1
"""

OOM = f"""
WITH {NAMES},
{_KILLS}
SELECT equipo AS "Equipo", container_name AS "Contenedor", image AS "Imagen",
  process_name AS "Proceso", cause AS "Causa", sum(n)::float8 AS "OOM",
  max(tenia)::float8 AS "Tenía (máximo)", to_timestamp(max(timestamp) / 1000.0) AS "La última",
  installation AS "Id"
FROM muertes JOIN nombres USING (installation)
GROUP BY equipo, container_name, image, process_name, cause, installation
ORDER BY 6 DESC, 1, 2, 3, 4, 5 LIMIT 100
"""

OOM_OVER_TIME = f"""
WITH {points(CONTAINER)},
{_KILLS},
sumas AS (
  SELECT timestamp / {point(CONTAINER)} AS g, sum(n) AS v FROM muertes GROUP BY 1
)
SELECT to_timestamp(g * {point(CONTAINER)} / 1000.0) AS time, coalesce(v, 0)::float8 AS "OOM"
FROM puntos LEFT JOIN sumas USING (g) ORDER BY 1
"""

STOPS = f"""
WITH {NAMES}
SELECT to_timestamp(timestamp / 1000.0) AS time, equipo AS "Equipo",
  ((until - timestamp) / 1000.0)::float8 AS "Duración"
FROM so1.stops JOIN nombres USING (installation)
WHERE {RANGE} AND {PICKED} ORDER BY timestamp DESC, equipo LIMIT 200
"""

LOG = f"""
WITH {NAMES}
SELECT to_timestamp(timestamp / 1000.0) AS time, equipo AS "Equipo",
  container_name AS "Contenedor", tier AS "Nivel", rank::float8 AS "Orden", reason AS "Motivo",
  held_mb::float8 AS "Retenida", {ENDING} AS "Resultado", decision AS "Decisión", error AS "Error"
FROM so1.removals JOIN nombres USING (installation)
WHERE {RANGE} AND {PICKED} ORDER BY timestamp DESC, installation, id LIMIT 200
"""
