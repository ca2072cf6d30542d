"""The queries of «Monitor de Contenedores» that are more than a call of `sql`."""

from __future__ import annotations

from grafana.build import levels, sql
from grafana.build.levels import BUCKET, POINT

NONE = "Ningún contenedor"


def _sixty(name: str, bucket_ms: int) -> str:
    """The containers of sixty buckets of one level across the range."""
    return f"""SELECT tics.t, engine, container_id, container_name, held_mb_max
  FROM tics CROSS JOIN {levels.closed("container", name)}
  WHERE {BUCKET} = {bucket_ms} AND timestamp = tics.t / {bucket_ms} * {bucket_ms}
    AND container_id <> ''"""


SIXTY = "\n  UNION ALL\n  ".join(_sixty(*one) for one in levels.BUCKETS_MS.items())

CONTAINER_LIST = f"""
WITH RECURSIVE {levels.level(levels.CONTAINERS, "1")},
{sql.ENGINES},
tics(t) AS (
  SELECT coalesce({sql.LAST}, $__to)
  UNION ALL
  SELECT t - max(1, ($__to - $__from) / 60) FROM tics
  WHERE t - max(1, ($__to - $__from) / 60) >= $__from
)
SELECT {sql.NAME} AS __text, container_id AS __value FROM (
  SELECT timestamp AS t, engine, container_id, container_name, held_mb FROM container_totals
  WHERE timestamp = {sql.LAST}
  UNION ALL
  SELECT c.timestamp, engine, container_id, container_name, held_mb
  FROM tics CROSS JOIN container_totals c ON c.timestamp = (
    SELECT max(timestamp) FROM metrics WHERE timestamp <= tics.t AND timestamp >= $__from
  ) WHERE {BUCKET} = 0
  UNION ALL
  {SIXTY}
)
GROUP BY engine, container_id ORDER BY max(t) DESC, max(held_mb) DESC LIMIT 500
"""
"""Those of sixty moments across the range: the policy lets thousands live for seconds in a day."""

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
WITH {sql.ENGINES},
veredictos AS (
  SELECT engine AS de, container_id AS cual, count(*) AS n,
         sum(verified = 'conflict') AS conflictos,
         sum(verified = 'unverified') AS dudas, sum(basis <> 'cgroup') AS raros
  FROM container_stats WHERE timestamp = {sql.LAST} GROUP BY 1, 2
)
SELECT {sql.NAME} AS "Contenedor", tier AS "Nivel", image AS "Imagen",
       CAST(processes AS REAL) AS "Procesos", CAST(held_mb AS REAL) AS "Retenida",
       CAST(rss_mb AS REAL) AS "RSS", CAST(cache_mb AS REAL) AS "Caché",
       CAST(cpu_usage AS REAL) AS "CPU",
       CASE WHEN processes = 0 THEN 'sin-procesos' WHEN n IS NULL THEN 'caducado'
            WHEN conflictos > 0 THEN 'conflict' WHEN dudas > 0 THEN 'unverified'
            ELSE 'agree' END AS "Verificado",
       CAST(coalesce(raros, 0) AS REAL) AS "Especiales", container_id AS "Id"
FROM container_totals LEFT JOIN veredictos ON cual = container_id AND de = engine WHERE {HERE}
UNION ALL
SELECT {WHY_NOTHING}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
{NOTHING_HERE}
ORDER BY 5 DESC
"""

ENDING = "CASE WHEN outcome = 'gone' AND error <> '' THEN 'left' ELSE outcome END"
"""One that is `gone` for a reason is not the one decided on any more, and there still."""

REMOVED = f"""
WITH {sql.ENGINES}
SELECT timestamp / 1000.0 AS time, {sql.NAME} AS "Contenedor", tier AS "Nivel",
       CAST(rank AS REAL) AS "Orden", reason AS "Motivo", rule AS "Regla", action AS "Acción",
       CAST(held_mb AS REAL) AS "Retenida",
       CAST(cpu_usage AS REAL) AS "CPU", {ENDING} AS "Resultado",
       CAST(duration_ms AS REAL) AS "Duración",
       CAST(available_before_mb AS REAL) AS "Disponible antes",
       CAST(available_after_mb AS REAL) AS "Disponible después",
       decision AS "Decisión", error AS "Error"
FROM (
  SELECT * FROM (
    SELECT * FROM deletions
    WHERE {sql.RANGE} AND {sql.ANY_CONTAINER} AND {sql.TIERS}
    ORDER BY timestamp DESC, id LIMIT 200
  )
  UNION ALL
  SELECT * FROM (
    SELECT * FROM deletions WHERE {sql.OF_FEW} AND {sql.TIERS}
    ORDER BY timestamp DESC, id LIMIT 200
  )
)
UNION ALL
SELECT NULL, 'Ninguna en este rango',
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM metrics WHERE timestamp = {sql.LAST}
  AND NOT EXISTS (
    SELECT 1 FROM deletions
    WHERE {sql.RANGE} AND {sql.ANY_CONTAINER} AND {sql.TIERS}
  )
  AND NOT EXISTS (
    SELECT 1 FROM deletions WHERE {sql.OF_FEW} AND {sql.TIERS}
  )
"""

REMOVAL_KIND = """CASE outcome WHEN 'failed' THEN 4 WHEN 'removed' THEN
      CASE reason WHEN 'excess-low' THEN 0 WHEN 'excess-high' THEN 1 WHEN 'exited' THEN 2
                  WHEN 'stop' THEN 3 WHEN 'rule' THEN 5 ELSE 7 END
    ELSE 7 END"""

PROCESSES = f"""
WITH {sql.ENGINES}
SELECT process_name AS "Proceso", CAST(pid AS REAL) AS "PID", {sql.NAME} AS "Contenedor",
       CAST(ram_usage AS REAL) AS "RAM", CAST(cpu_usage AS REAL) AS "CPU",
       verified AS "Verificado", basis AS "Base"
FROM container_stats s WHERE timestamp = {sql.LAST}
  AND ('*' IN (${{contenedor:sqlstring}}) OR container_id IN (${{contenedor:sqlstring}}))
  AND coalesce((
    SELECT tier FROM container_totals t
    WHERE t.timestamp = s.timestamp AND t.container_id = s.container_id AND t.engine = s.engine
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

_FOLDED_SHARES = (
    "cpu_usage_sum - coalesce(cpu_short_lived_sum, 0) - coalesce(cpu_unexplained_sum, 0)",
    "coalesce(cpu_short_lived_sum, 0)",
    "coalesce(cpu_unexplained_sum, 0)",
)

SHARE_MEANS = [
    f"""CASE WHEN v{n} IS NOT NULL THEN max(0.0, v{n}) / n
       WHEN docker THEN 0.0 END AS "{name}\""""
    for n, name in enumerate(SHARES)
]
"""0 without containers, NULL where Docker did not answer."""


_READ = "cpu_usage_sum, cpu_short_lived_sum, cpu_unexplained_sum"

SHARES_OVER_TIME = f"""
WITH RECURSIVE {levels.level(levels.CONTAINERS)},
{sql.sampled(8)},
{sql.gaps()},
filas AS (
  SELECT tics.t / $__interval_ms AS g,
         {", ".join(f"sum({share}) AS v{n}" for n, share in enumerate(SHARES.values()))}
  FROM tics CROSS JOIN container_totals c ON c.timestamp = tics.t
  WHERE {sql.CONTAINERS} GROUP BY 1
  UNION ALL
  SELECT timestamp / {POINT}, {", ".join(f"sum({one})" for one in _FOLDED_SHARES)}
  FROM {levels.rows("container", _READ, sql.CONTAINERS)} GROUP BY 1
)
SELECT puntos.t / 1000.0 AS time,
       {", ".join(SHARE_MEANS)}
FROM puntos LEFT JOIN filas USING (g)
UNION ALL SELECT t / 1000.0, NULL, NULL, NULL FROM huecos
ORDER BY time
"""

SOME_EVENTS = "(starts > 0 OR exits > 0 OR oom_kills > 0)"
"""The condition of an index: nearly all rows of ticks have none of the three."""

EVENTS = sql.sums(
    {"Arranques": "starts", "Salidas": "exits", "OOM": "oom_kills"},
    levels.CONTAINERS,
    sql.CONTAINERS,
    SOME_EVENTS,
)


IN_RANGE = f"""
WITH {levels.level(levels.CONTAINERS)},
idas(outcome, cuantos) AS (
  SELECT outcome, 1 FROM deletions
  WHERE {BUCKET} = 0 AND {sql.RANGE} AND {sql.ANY_CONTAINER} AND {sql.TIERS}
  UNION ALL
  SELECT outcome, 1 FROM deletions WHERE {sql.OF_FEW} AND {sql.TIERS}
  UNION ALL
  SELECT outcome, removals
  FROM {levels.rows("removals", "outcome, removals", f"{sql.ANY_CONTAINER} AND {sql.TIERS}")}
),
muertes(oom_kills) AS (
  SELECT oom_kills FROM container_totals
  WHERE {BUCKET} = 0 AND {sql.RANGE} AND {SOME_EVENTS} AND {sql.CONTAINERS}
  UNION ALL
  SELECT oom_kills FROM {levels.rows("container", "oom_kills", sql.CONTAINERS)}
)
SELECT CAST(coalesce(sum(cuantos) FILTER (WHERE outcome = 'removed'), 0) AS REAL) AS "Eliminados",
       CAST(coalesce(sum(cuantos) FILTER (WHERE outcome = 'failed'), 0) AS REAL) AS "Fallidos",
       (SELECT CAST(coalesce(sum(oom_kills), 0) AS REAL) FROM muertes) AS "OOM"
FROM idas HAVING {sql.LAST} IS NOT NULL
"""


def now(value: str) -> str:
    """All containers of the last tick by `value`; a single row says when there are none."""
    return f"""
WITH {sql.ENGINES}
SELECT {sql.NAME} AS nombre, CAST({value} AS REAL) AS valor FROM container_totals WHERE {HERE}
UNION ALL
SELECT {WHY_NOTHING}, 0.0 {NOTHING_HERE}
ORDER BY 2 DESC LIMIT 15
"""


def top(ticks: str, buckets: str, *columns: str) -> str:
    """The first of the range by a figure: of up to 200 ticks, or of `columns` of buckets."""
    named = f"container_id <> '' AND {sql.CONTAINERS}"
    read = levels.rows("container", f"engine, container_name, {', '.join(columns)}", named)

    return f"""
WITH RECURSIVE {levels.level(levels.CONTAINERS)},
{sql.ENGINES},
{sql.ticks(1)},
filas(nombre, valor) AS MATERIALIZED (
  SELECT {sql.NAME}, {ticks}
  FROM tics CROSS JOIN container_totals c ON c.timestamp = tics.t WHERE {sql.CONTAINERS}
  GROUP BY 1
  UNION ALL
  SELECT {sql.NAME}, {buckets} FROM {read} GROUP BY 1
)
SELECT nombre, CAST(valor AS REAL) AS valor FROM filas
UNION ALL
SELECT '{NONE}', 0.0 FROM metrics WHERE timestamp = {sql.LAST}
  AND NOT EXISTS (SELECT 1 FROM filas)
ORDER BY 2 DESC, 1 LIMIT $top
"""
