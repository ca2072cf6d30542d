"""What «Monitor de Flota» asks of a few hosts close up: by minute, and by process.

Both streams are shipped only where a host's `[fleet]` asks for them, and a minute's rows are many:
of all hosts the last hour of the range is read, of chosen ones the last day.
"""

from __future__ import annotations

from grafana.build.flota_contenedores_sql import OF_CONTAINER, stacked
from grafana.build.flota_sql import (
    DAY_MS,
    EVERYBODY,
    HOST,
    HOUR_MS,
    NAMES,
    PICKED,
    Kind,
    point,
    rows,
)

MINUTE_MS = 60_000
POINT = f"greatest($__interval_ms, {MINUTE_MS})"
"""Of a minute's panel, in milliseconds."""

_OF_MINUTES = (
    f"timestamp BETWEEN greatest($__from - {MINUTE_MS - 1}, $__to - CASE WHEN {EVERYBODY}"
    f" THEN {HOUR_MS} ELSE {DAY_MS} END) AND $__to AND {PICKED}"
)

PROCESS = Kind("process", HOUR_MS, DAY_MS)

HOST_MINUTES = f"""
WITH {NAMES},
puntos AS MATERIALIZED (
  SELECT timestamp / {POINT} * {POINT} AS t, installation,
    sum(cpu_usage_sum) / nullif(sum(ticks), 0) AS cpu,
    sum(used_ram_sum) * 100.0 / nullif(sum(ticks * total_ram_max), 0) AS ram
  FROM so1.host_1m WHERE {_OF_MINUTES} GROUP BY 1, 2
),
mayores AS (SELECT installation FROM puntos GROUP BY 1 ORDER BY avg(cpu) DESC, 1 LIMIT $top)
SELECT to_timestamp(t / 1000.0) AS time, equipo || ': ' || que AS metric, v::float8 AS value
FROM puntos JOIN mayores USING (installation) JOIN nombres USING (installation)
  CROSS JOIN LATERAL (VALUES ('CPU', cpu), ('RAM', ram)) AS cifras (que, v)
ORDER BY 1, 2
"""

HELD_BY_MINUTE = stacked(
    f"(SELECT * FROM so1.container_1m WHERE {_OF_MINUTES}) AS minutos",
    f"(SELECT * FROM so1.host_1m WHERE {_OF_MINUTES}) AS minutos",
    OF_CONTAINER,
    "held_mb_sum",
    POINT,
)

_PROCESS_COLUMNS = "pid, name, ticks, ram_usage_sum, ram_usage_max, cpu_usage_sum, cpu_usage_max"

PROCESSES = f"""
WITH {NAMES},
sumas AS (
  SELECT installation, pid, name COLLATE "C" AS nombre, max(ram_usage_max) AS pico,
    sum(ram_usage_sum) / nullif(sum(ticks), 0) AS media,
    sum(cpu_usage_sum) / nullif(sum(ticks), 0) AS cpu, max(cpu_usage_max) AS cpu_pico
  FROM {rows(PROCESS, _PROCESS_COLUMNS)}
  WHERE pid <> 0 GROUP BY 1, 2, 3
)
SELECT equipo AS "Equipo", nombre AS "Proceso", pid::float8 AS "PID",
  pico::float8 AS "RAM (máximo)", media::float8 AS "RAM (media)", cpu::float8 AS "CPU (media)",
  cpu_pico::float8 AS "CPU (máximo)", installation AS "Id"
FROM sumas JOIN nombres USING (installation) ORDER BY pico DESC, equipo, pid, nombre LIMIT 50
"""
"""Without what shares a row as «(others)», which has no number."""

PROCESS_CPU = stacked(
    rows(PROCESS, "pid, name, cpu_usage_sum"),
    rows(HOST, "ticks", PROCESS),
    "CASE pid WHEN 0 THEN '(otros)' ELSE name END",
    "cpu_usage_sum",
    point(PROCESS),
)
