"""What «Monitor de Flota» asks of hosts: state, figures, trust."""

from __future__ import annotations

from grafana.build.flota_sql import AGE, HOST, NAMES, PICKED, SILENT_S, point, points, rows

STATES = f"""
SELECT count(*) FILTER (WHERE {AGE} <= {SILENT_S})::float8 AS "Al día",
       count(*) FILTER (WHERE {AGE} > {SILENT_S})::float8 AS "Silenciosos",
       count(*) FILTER (WHERE seen_at IS NULL)::float8 AS "Nunca vistos"
FROM so1.hosts WHERE {PICKED}
"""

LAG = f"""
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY retraso)::float8 AS "Mediana",
       max(retraso)::float8 AS "Peor"
FROM (
  SELECT greatest(0, extract(epoch FROM clock_timestamp()) - max(last_timestamp) / 1000.0 - 300)
    AS retraso
  FROM so1.cursors JOIN so1.hosts USING (installation)
  WHERE stream = 'host_5m' AND last_timestamp > 0 AND {AGE} <= {SILENT_S} AND {PICKED}
  GROUP BY installation
) AS retrasos
"""

TOTALS = f"""
WITH ultimos AS (
  SELECT DISTINCT ON (installation) installation, used_ram_sum / ticks AS usada,
    total_ram_max AS total, container_count_sum * 1.0 / nullif(container_count_n, 0) AS cuantos
  FROM {rows(HOST, "ticks, used_ram_sum, total_ram_max, container_count_sum, container_count_n")}
  ORDER BY installation, timestamp DESC
)
SELECT sum(cuantos)::float8 AS "Contenedores", sum(usada)::float8 AS "RAM usada",
       sum(total)::float8 AS "RAM total"
FROM ultimos HAVING count(*) > 0
"""

_HOST_COLUMNS = """ticks, used_ram_sum, total_ram_max, cpu_usage_sum, container_count_sum,
    container_count_n, checks_n, unverified_sum, conflict_ticks, events_lost, psutil_ticks"""

HOSTS = f"""
WITH {NAMES},
cifras AS (
  SELECT installation, sum(ticks) AS ticks,
    sum(used_ram_sum) * 100.0 / nullif(sum(ticks * total_ram_max), 0) AS ram,
    sum(cpu_usage_sum) / nullif(sum(ticks), 0) AS cpu,
    sum(container_count_sum) * 1.0 / nullif(sum(container_count_n), 0) AS cuantos,
    coalesce(sum(conflict_ticks), 0) AS conflictos, coalesce(sum(events_lost), 0) AS perdidos,
    coalesce(sum(unverified_sum), 0) AS dudas, sum(psutil_ticks) AS sin_modulos,
    sum(checks_n) AS comprobados
  FROM {rows(HOST, _HOST_COLUMNS)} GROUP BY installation
),
ramas AS (
  SELECT installation, count(*) AS n FROM so1.epochs WHERE reason = 'fork' GROUP BY 1
),
faltas AS (SELECT installation, sum(last_id - first_id + 1) AS n FROM so1.gaps GROUP BY 1)
SELECT equipo AS "Equipo",
  CASE WHEN seen_at IS NULL THEN 'nunca' WHEN {AGE} > {SILENT_S} THEN 'silencioso'
    ELSE 'al-dia' END AS "Estado",
  CASE WHEN ticks IS NULL THEN 'sin-datos' WHEN conflictos > 0 THEN 'conflict'
    WHEN ramas.n > 0 OR faltas.n > 0 OR perdidos > 0 THEN 'incompleto'
    WHEN dudas > 0 OR sin_modulos > 0 OR comprobados = 0 THEN 'unverified'
    ELSE 'agree' END AS "Confianza",
  {AGE}::float8 AS "Visto hace", ram::float8 AS "RAM", cpu::float8 AS "CPU",
  cuantos::float8 AS "Contenedores", conflictos::float8 AS "Ticks en conflicto",
  perdidos::float8 AS "Eventos perdidos", coalesce(ramas.n, 0)::float8 AS "Bifurcaciones",
  coalesce(faltas.n, 0)::float8 AS "Filas que faltan", version AS "Versión",
  installation AS "Id"
FROM nombres LEFT JOIN cifras USING (installation) LEFT JOIN ramas USING (installation)
  LEFT JOIN faltas USING (installation)
WHERE {PICKED}
ORDER BY CASE WHEN seen_at IS NULL OR {AGE} > {SILENT_S} THEN 0 WHEN conflictos > 0 THEN 1
  WHEN ramas.n > 0 OR faltas.n > 0 OR perdidos > 0 THEN 2 ELSE 3 END, ram DESC NULLS LAST, equipo
LIMIT 500
"""
"""The silent and the untrusted first."""


def by_host(figure: str, columns: str) -> str:
    """One figure of the hosts that have most of it, over time."""
    return f"""
WITH {NAMES},
puntos AS MATERIALIZED (
  SELECT timestamp / {point(HOST)} * {point(HOST)} AS t, installation, {figure} AS v
  FROM {rows(HOST, columns)} GROUP BY 1, 2
),
mayores AS (SELECT installation FROM puntos GROUP BY 1 ORDER BY avg(v) DESC, 1 LIMIT $top)
SELECT to_timestamp(t / 1000.0) AS time, equipo AS metric, v::float8 AS value
FROM puntos JOIN mayores USING (installation) JOIN nombres USING (installation)
ORDER BY 1, 2
"""


RAM = by_host(
    "sum(used_ram_sum) * 100.0 / nullif(sum(ticks * total_ram_max), 0)",
    "ticks, used_ram_sum, total_ram_max",
)

CPU = by_host("sum(cpu_usage_sum) / nullif(sum(ticks), 0)", "ticks, cpu_usage_sum")

AGREEMENT = f"""
SELECT to_timestamp(t / 1000.0) AS time, sum(de_acuerdo)::float8 AS "Coinciden",
  sum(dudas)::float8 AS "Sin verificar", sum(conflictos)::float8 AS "En conflicto"
FROM (
  SELECT timestamp / {point(HOST)} * {point(HOST)} AS t, installation,
    sum(agree_sum) * 1.0 / nullif(sum(checks_n), 0) AS de_acuerdo,
    sum(unverified_sum) * 1.0 / nullif(sum(checks_n), 0) AS dudas,
    sum(conflict_sum) * 1.0 / nullif(sum(checks_n), 0) AS conflictos
  FROM {rows(HOST, "checks_n, agree_sum, unverified_sum, conflict_sum")} GROUP BY 1, 2
) AS medias GROUP BY t ORDER BY 1
"""

DISTRUST = f"""
WITH {points(HOST)},
sumas AS (
  SELECT timestamp / {point(HOST)} AS g, sum(conflict_ticks) AS conflictos,
    sum(events_lost) AS perdidos
  FROM {rows(HOST, "conflict_ticks, events_lost")} GROUP BY 1
)
SELECT to_timestamp(g * {point(HOST)} / 1000.0) AS time,
  coalesce(conflictos, 0)::float8 AS "Ticks en conflicto",
  coalesce(perdidos, 0)::float8 AS "Eventos perdidos"
FROM puntos LEFT JOIN sumas USING (g) ORDER BY 1
"""
