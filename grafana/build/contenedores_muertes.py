"""What «Monitor de Contenedores» tells of processes that are over: OOM kills, short lives."""

from __future__ import annotations

from grafana.build import panels as p
from grafana.build import sql
from grafana.build.contenedores_detalle import COLOURED
from grafana.build.layout import Grid

CHOSEN = f"({sql.ANY_CONTAINER} OR container_id IN (${{contenedor:sqlstring}}))"
HOUR_MS = 3_600_000
CAUSES = p.words(
    limit=("límite", p.USED),
    host=("equipo sin memoria", p.BAD),
    sysrq=("a mano", p.ACCENT),
    unknown=("desconocida", p.QUIET),
)

KILLS = f"""
WITH {sql.ENGINES}
SELECT timestamp / 1000.0 AS time, {sql.NAMED_IF_ANY} AS "Contenedor", process_name AS "Proceso",
       CAST(pid AS REAL) AS "PID", cause AS "Causa", limit_container AS "Límite de",
       CAST(limit_mb AS REAL) AS "Límite", CAST(anon_mb + file_mb + shmem_mb AS REAL) AS "Tenía",
       trigger_name AS "Pedía", grower_name AS "Creció", CAST(grown_mb AS REAL) AS "Cuánto",
       witnesses AS "Testigos"
FROM (
  SELECT * FROM oom_kills WHERE {sql.RANGE} AND {CHOSEN}
  ORDER BY timestamp DESC, id DESC LIMIT 200
)
UNION ALL
SELECT NULL, 'Ninguna en este rango', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM metrics WHERE timestamp = {sql.LAST}
  AND NOT EXISTS (SELECT 1 FROM oom_kills WHERE {sql.RANGE} AND {CHOSEN})
"""

_LAST_HOUR = f"timestamp BETWEEN max($__from, {sql.LAST} - {HOUR_MS - 1}) AND $__to"

SHORT_LIVED = f"""
WITH {sql.ENGINES},
ultimos AS (
  SELECT {sql.NAME} AS contenedor, parent_name, process_name, sum(count) AS veces,
         sum(cpu_ms) AS cpu, max(peak_rss_mb) AS pico
  FROM short_lived WHERE {_LAST_HOUR} AND {CHOSEN}
  GROUP BY engine, container_id, container_name, parent_name, process_name
  ORDER BY sum(cpu_ms) DESC, 1, 2, 3 LIMIT 50
)
SELECT contenedor AS "Contenedor", process_name AS "Proceso", parent_name AS "Padre",
       CAST(veces AS REAL) AS "Veces", CAST(cpu AS REAL) AS "CPU",
       CAST(pico AS REAL) AS "RAM máxima"
FROM ultimos
UNION ALL
SELECT 'Ninguno en este rango', NULL, NULL, NULL, NULL, NULL
FROM metrics WHERE timestamp = {sql.LAST} AND NOT EXISTS (SELECT 1 FROM ultimos)
ORDER BY 5 DESC
"""


def over(grid: Grid) -> None:
    """Both tables."""
    grid.add(
        p.table(
            "Muertes por Falta de Memoria",
            "Las últimas 200 del rango: a quién mató el kernel, de quién era el límite, quién "
            "pedía memoria, quién había crecido más, y qué testigos lo confirman. La víctima no "
            "es siempre quien creció. Con todo detalle: agent oom.",
            p.rows(KILLS),
        )
        .decimals(1)
        .override_by_name("time", [p.prop("displayName", "Hora"), p.prop("custom.width", 165)])
        .override_by_name("PID", [p.prop("decimals", 0), p.prop("unit", "none")])
        .override_by_name(
            "Causa",
            [
                CAUSES,
                COLOURED,
                p.prop("custom.width", 150),
            ],
        )
        .override_by_regexp("/^Límite$|^Tenía$|^Cuánto$/", [p.prop("unit", p.MIB)]),
        24,
        8,
    )
    grid.add(
        p.table(
            "Procesos de Vida Corta",
            "Los que empezaron y acabaron entre dos ticks, en la última hora del rango, por "
            "contenedor, padre y nombre: los 50 con más CPU. Su suma es la «Vida corta» del "
            "reparto. Los nombres son palabra de la carga.",
            p.rows(SHORT_LIVED),
        )
        .decimals(1)
        .override_by_name("Veces", [p.prop("decimals", 0), p.prop("unit", "none")])
        .override_by_name("CPU", [p.prop("unit", p.MILLIS)])
        .override_by_name("RAM máxima", [p.prop("unit", p.MIB)]),
        24,
        8,
    )
