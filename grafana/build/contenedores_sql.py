"""The queries of «Monitor de Contenedores» that are more than a call of `sql`."""

from __future__ import annotations

from grafana.build import sql

NONE = "Ningún contenedor"

CONTAINER_LIST = f"""
WITH RECURSIVE tics(t) AS (
  SELECT {sql.LAST}
  UNION ALL
  SELECT (SELECT max(timestamp) FROM metrics
          WHERE timestamp <= tics.t - max(1, ($__to - $__from) / 60) AND timestamp >= $__from)
  FROM tics WHERE t IS NOT NULL
)
SELECT container_name AS __text, container_id AS __value
FROM tics CROSS JOIN container_totals c ON c.timestamp = tics.t
GROUP BY container_id ORDER BY max(t) DESC, max(held_mb) DESC LIMIT 500
"""
"""Those of sixty ticks across the range: the policy lets thousands live for seconds in a day."""

HERE = f"timestamp = {sql.LAST} AND {sql.CONTAINERS}"
"""Rows of `container_totals` at the last tick."""

NOTHING_HERE = f"""
  FROM metrics WHERE timestamp = {sql.LAST}
    AND NOT EXISTS (SELECT 1 FROM container_totals WHERE {HERE})
"""
"""One row where the last tick has no container to show: «nothing there», which is not «no data»."""

WHY_NOTHING = f"""CASE WHEN container_count IS NULL THEN 'Docker no respondió'
    WHEN EXISTS (SELECT 1 FROM container_totals WHERE timestamp = {sql.LAST})
    THEN '{NONE} con este filtro' ELSE '{NONE}' END"""

LIST = f"""
WITH veredictos AS (
  SELECT container_id AS cual, count(*) AS n, sum(verified = 'conflict') AS conflictos,
         sum(verified = 'unverified') AS dudas, sum(basis <> 'cgroup') AS raros
  FROM container_stats WHERE timestamp = {sql.LAST} GROUP BY 1
)
SELECT container_name AS "Contenedor", tier AS "Nivel", image AS "Imagen",
       CAST(processes AS REAL) AS "Procesos", CAST(held_mb AS REAL) AS "Retenida",
       CAST(rss_mb AS REAL) AS "RSS", CAST(cache_mb AS REAL) AS "Caché",
       CAST(cpu_usage AS REAL) AS "CPU",
       CASE WHEN processes = 0 THEN 'sin-procesos' WHEN n IS NULL THEN 'caducado'
            WHEN conflictos > 0 THEN 'conflict' WHEN dudas > 0 THEN 'unverified'
            ELSE 'agree' END AS "Verificado",
       CAST(coalesce(raros, 0) AS REAL) AS "Especiales", container_id AS "Id"
FROM container_totals LEFT JOIN veredictos ON cual = container_id WHERE {HERE}
UNION ALL
SELECT {WHY_NOTHING}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
{NOTHING_HERE}
ORDER BY 5 DESC
"""

ENDING = "CASE WHEN outcome = 'gone' AND error <> '' THEN 'left' ELSE outcome END"
"""One that is `gone` for a reason is not the one decided on any more, and there still."""

REMOVED = f"""
SELECT timestamp / 1000.0 AS time, container_name AS "Contenedor", tier AS "Nivel",
       CAST(rank AS REAL) AS "Orden", reason AS "Motivo", CAST(held_mb AS REAL) AS "Retenida",
       CAST(cpu_usage AS REAL) AS "CPU", {ENDING} AS "Resultado",
       CAST(duration_ms AS REAL) AS "Duración",
       CAST(available_before_mb AS REAL) AS "Disponible antes",
       CAST(available_after_mb AS REAL) AS "Disponible después",
       decision AS "Decisión", error AS "Error"
FROM (
  SELECT * FROM deletions WHERE {sql.RANGE} AND {sql.CONTAINERS}
  ORDER BY timestamp DESC, id LIMIT 200
)
UNION ALL
SELECT NULL, 'Ninguna en este rango',
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM metrics WHERE timestamp = {sql.LAST}
  AND NOT EXISTS (SELECT 1 FROM deletions WHERE {sql.RANGE} AND {sql.CONTAINERS})
"""

REMOVAL_KIND = """CASE outcome WHEN 'failed' THEN 4 WHEN 'removed' THEN
      CASE reason WHEN 'excess-low' THEN 0 WHEN 'excess-high' THEN 1 WHEN 'exited' THEN 2
                  WHEN 'stop' THEN 3 ELSE 7 END
    ELSE 7 END"""

PROCESSES = f"""
SELECT process_name AS "Proceso", CAST(pid AS REAL) AS "PID", container_name AS "Contenedor",
       CAST(ram_usage AS REAL) AS "RAM", CAST(cpu_usage AS REAL) AS "CPU",
       verified AS "Verificado", basis AS "Base"
FROM container_stats s WHERE timestamp = {sql.LAST}
  AND ('*' IN (${{contenedor:sqlstring}}) OR container_id IN (${{contenedor:sqlstring}}))
  AND coalesce((
    SELECT tier FROM container_totals t
    WHERE t.timestamp = s.timestamp AND t.container_id = s.container_id
  ), 'none') IN (${{nivel:sqlstring}})
UNION ALL
SELECT 'Ningún proceso de contenedor', NULL, NULL, NULL, NULL, NULL, NULL
FROM metrics WHERE timestamp = {sql.LAST}
  AND NOT EXISTS (
    SELECT 1 FROM container_stats WHERE timestamp = {sql.LAST}
    AND ('*' IN (${{contenedor:sqlstring}}) OR container_id IN (${{contenedor:sqlstring}}))
  )
ORDER BY 4 DESC
"""

PICKED = "('*' IN (${contenedor:sqlstring}) OR c.container_id IN (${contenedor:sqlstring}))"

SHARES = {
    "Procesos vivos": "cpu_usage - coalesce(cpu_short_lived, 0) - coalesce(cpu_unexplained, 0)",
    "Vida corta": "coalesce(cpu_short_lived, 0)",
    "Sin explicar": "coalesce(cpu_unexplained, 0)",
}
"""How a container's CPU splits. Without BPF all of it counts as the living processes'."""

SHARE_MEANS = [
    f"""CASE WHEN v{n} IS NOT NULL THEN max(0.0, v{n}) / n
       WHEN m.container_count IS NOT NULL THEN 0.0 END AS "{name}\""""
    for n, name in enumerate(SHARES)
]
"""0 without containers, NULL where Docker did not answer."""

SHARES_OVER_TIME = f"""
WITH RECURSIVE {sql.sampled(8)},
{sql.gaps()},
filas AS (
  SELECT tics.t / $__interval_ms AS g,
         {", ".join(f"sum({share}) AS v{n}" for n, share in enumerate(SHARES.values()))}
  FROM tics CROSS JOIN container_totals c ON c.timestamp = tics.t
  WHERE {sql.CONTAINERS} GROUP BY 1
)
SELECT puntos.t / 1000.0 AS time,
       {", ".join(SHARE_MEANS)}
FROM puntos JOIN metrics m ON m.timestamp = puntos.t LEFT JOIN filas USING (g)
UNION ALL SELECT t / 1000.0, NULL, NULL, NULL FROM huecos
ORDER BY time
"""

EVENTS = sql.sums(
    {"Arranques": "sum(starts)", "Salidas": "sum(exits)", "OOM": "sum(oom_kills)"},
    "container_totals",
    f"(starts > 0 OR exits > 0 OR oom_kills > 0) AND {sql.CONTAINERS}",
)
"""The first condition is that of an index: nearly all rows have none of the three."""


def now(value: str) -> str:
    """All containers of the last tick by `value`; a single row says when there are none."""
    return f"""
SELECT container_name AS nombre, CAST({value} AS REAL) AS valor FROM container_totals WHERE {HERE}
UNION ALL
SELECT {WHY_NOTHING}, 0.0 {NOTHING_HERE}
ORDER BY 2 DESC LIMIT 15
"""


def top(value: str) -> str:
    """The first of the range by `value`, over up to 200 ticks."""
    return f"""
WITH RECURSIVE {sql.ticks(1)},
filas AS (
  SELECT container_name, held_mb, cpu_usage
  FROM tics CROSS JOIN container_totals c ON c.timestamp = tics.t WHERE {sql.CONTAINERS}
)
SELECT container_name AS nombre, CAST({value} AS REAL) AS valor FROM filas
GROUP BY container_name
UNION ALL
SELECT '{NONE}', 0.0 FROM metrics WHERE timestamp = {sql.LAST}
  AND NOT EXISTS (SELECT 1 FROM filas)
ORDER BY 2 DESC, 1 LIMIT $top
"""
