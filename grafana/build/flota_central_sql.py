"""What «Monitor de Flota» asks of the centre itself: breaks, sizes, growth."""

from __future__ import annotations

from grafana.build.flota_sql import NAMES, PICKED

BREAKS = f"""
WITH {NAMES},
todas AS (
  SELECT installation, began_at AS cuando, reason AS que, '' AS flujo,
    NULL::bigint AS primera, NULL::bigint AS ultima
  FROM so1.epochs WHERE reason <> 'first'
  UNION ALL
  SELECT installation, noticed_at, 'hueco', stream, first_id, last_id FROM so1.gaps
)
SELECT cuando AS time, equipo AS "Equipo", que AS "Qué", flujo AS "Flujo",
  primera::float8 AS "Primera fila", ultima::float8 AS "Última fila",
  (ultima - primera + 1)::float8 AS "Filas que faltan", installation AS "Id"
FROM todas JOIN nombres USING (installation)
WHERE {PICKED} ORDER BY cuando DESC, equipo, flujo, primera LIMIT 200
"""

_PARTS = """partes AS (
  SELECT r.stream, r.step_ms, regexp_replace(c.relname, '^.*_', '')::bigint * 86400000 AS desde,
    pg_total_relation_size(c.oid) AS bytes
  FROM so1.ranges r JOIN pg_inherits i ON i.inhparent = ('so1.' || r.stream)::regclass
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r'
)"""

GROWTH = f"""
WITH {_PARTS}
SELECT to_timestamp(desde / 1000.0) AS time, stream AS metric,
  (bytes / (step_ms / 86400000))::float8 AS value
FROM partes WHERE desde BETWEEN $__from - step_ms AND $__to
  AND desde <= extract(epoch FROM clock_timestamp()) * 1000 ORDER BY 1, 2
"""

SIZES = f"""
WITH {_PARTS},
flujos AS (
  SELECT stream, sum(bytes) AS bytes FROM partes GROUP BY 1
),
apartes AS (SELECT stream, count(*) AS n FROM so1.out_of_range GROUP BY 1)
SELECT r.stream AS "Flujo", coalesce(bytes, 0)::float8 AS "Tamaño",
  ((r.end_ms - r.first_ms) / 86400000)::float8 AS "Días",
  coalesce(apartes.n, 0)::float8 AS "Fuera de plazo"
FROM so1.ranges r LEFT JOIN flujos USING (stream) LEFT JOIN apartes USING (stream)
ORDER BY 2 DESC, 1
"""
