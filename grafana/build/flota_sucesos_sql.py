"""What «Monitor de Flota» asks of what happened: removals, OOM kills, stops."""

from __future__ import annotations

from grafana.build.flota_sql import CONTAINER, HOST, NAMES, PICKED, RANGE, point, points, rows

EVENTS = f"""
WITH idas AS (
  SELECT count(*) FILTER (WHERE outcome = 'removed') AS eliminados,
    count(*) FILTER (WHERE outcome = 'failed') AS fallidos
  FROM so1.removals WHERE {RANGE} AND {PICKED}
)
SELECT (SELECT eliminados FROM idas)::float8 AS "Eliminados",
  (SELECT fallidos FROM idas)::float8 AS "Fallidos",
  (SELECT coalesce(sum(oom_kills), 0) FROM {rows(CONTAINER, "oom_kills")})::float8 AS "OOM",
  (SELECT count(*) FROM so1.epochs WHERE {PICKED} AND reason = 'fork'
    AND extract(epoch FROM began_at) * 1000 BETWEEN $__from AND $__to)::float8
    AS "Bifurcaciones",
  (SELECT count(*) FROM so1.gaps WHERE {PICKED}
    AND extract(epoch FROM noticed_at) * 1000 BETWEEN $__from AND $__to)::float8 AS "Huecos"
"""

REMOVALS = f"""
WITH {NAMES}
SELECT equipo AS "Equipo", coalesce(rule, '') AS "Regla", reason AS "Motivo", tier AS "Nivel",
  outcome AS "Resultado", count(*)::float8 AS "Cuántas", sum(held_mb)::float8 AS "Retenida",
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
WITH {NAMES}
SELECT equipo AS "Equipo", container_name AS "Contenedor", image AS "Imagen",
  sum(oom_kills)::float8 AS "OOM", max(held_mb_max)::float8 AS "Retenida (máximo)",
  to_timestamp(max(timestamp) / 1000.0) AS "La última", installation AS "Id"
FROM {rows(CONTAINER, "container_name, image, oom_kills, held_mb_max")}
  JOIN nombres USING (installation)
WHERE oom_kills > 0 GROUP BY equipo, container_name, image, installation
ORDER BY 4 DESC, 1, 2, 3 LIMIT 100
"""

OOM_OVER_TIME = f"""
WITH {points(CONTAINER)},
sumas AS (
  SELECT timestamp / {point(CONTAINER)} AS g, sum(oom_kills) AS v
  FROM {rows(CONTAINER, "oom_kills")} GROUP BY 1
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
  held_mb::float8 AS "Retenida", outcome AS "Resultado", decision AS "Decisión", error AS "Error"
FROM so1.removals JOIN nombres USING (installation)
WHERE {RANGE} AND {PICKED} ORDER BY timestamp DESC, installation, id LIMIT 200
"""
