"""What «Monitor de Flota» asks of containers."""

from __future__ import annotations

from grafana.build.flota_sql import CONTAINER, HOST, NAMES, point, rows

ENGINE = "coalesce(engine, 'docker')"
"""Rows of older agents have none: there was one."""

# Docker's by their names alone, as they always were.
_NAMED = "CASE motor WHEN 'docker' THEN '' ELSE motor || ': ' END || container_name"


def top(figure: str, columns: str) -> str:
    return f"""
WITH {NAMES}
SELECT equipo || ' / ' || {_NAMED} AS nombre, v::float8 AS valor
FROM (
  SELECT installation, container_name, {ENGINE} AS motor, {figure} AS v
  FROM {rows(CONTAINER, f"container_id, container_name, engine, {columns}")}
  WHERE container_id <> '' GROUP BY 1, 2, 3
) AS sumas JOIN nombres USING (installation)
ORDER BY v DESC, 1 LIMIT $top
"""


TOP_RAM = top("max(held_mb_max)", "held_mb_max")

TOP_CPU = top("sum(cpu_usage_sum) / nullif(sum(ticks), 0)", "cpu_usage_sum, ticks")

_CONTAINER_COLUMNS = """container_id, container_name, image, tier, engine, ticks, held_mb_sum,
    held_mb_max, cpu_usage_sum, oom_kills"""

# Texts by their bytes: by a language's order they cost as much as all the figures.
CONTAINERS = f"""
WITH {NAMES},
sumas AS (
  SELECT installation, container_id, {ENGINE} AS motor, max(container_name COLLATE "C") AS nombre,
    max(image COLLATE "C") AS imagen, max(tier COLLATE "C") AS nivel, max(held_mb_max) AS pico,
    sum(held_mb_sum) / nullif(sum(ticks), 0) AS media,
    sum(cpu_usage_sum) / nullif(sum(ticks), 0) AS cpu, coalesce(sum(oom_kills), 0) AS muertes
  FROM {rows(CONTAINER, _CONTAINER_COLUMNS)}
  WHERE container_id <> '' GROUP BY 1, 2, 3
)
SELECT equipo AS "Equipo", nombre AS "Contenedor", imagen AS "Imagen", nivel AS "Nivel",
  pico::float8 AS "Retenida (máximo)", media::float8 AS "Retenida (media)", cpu::float8 AS "CPU",
  muertes::float8 AS "OOM", motor AS "Motor", installation AS "Id"
FROM sumas JOIN nombres USING (installation) ORDER BY pico DESC, equipo, nombre, motor LIMIT 50
"""

OF_CONTAINER = "CASE container_id WHEN '' THEN '(otros)' ELSE container_name END"


def stacked(parts: str, hosts: str, name: str, figure: str, step: str) -> str:
    """A figure of `parts` per tick of their hosts, by the 12 names that have most and the rest.

    Points and hosts are joined by one text: of one column that is grouped by, the planner knows
    that it is unique, and makes a hash of it; by two it sorts all rows of containers.
    """
    place = f"timestamp / {step}"
    return f"""
WITH sumas AS MATERIALIZED (
  SELECT g, {name} AS nombre,
    sum({figure} / n) AS v
  FROM (
    SELECT *, {place} AS g, {place} || installation AS clave
    FROM {parts}
  ) AS partes JOIN (
    SELECT {place} || installation AS clave, sum(ticks) AS n
    FROM {hosts} GROUP BY 1
  ) AS puntos USING (clave) GROUP BY 1, 2
),
mayores AS (
  SELECT nombre FROM sumas WHERE nombre <> '(otros)' GROUP BY 1 ORDER BY sum(v) DESC, 1 LIMIT 12
)
SELECT to_timestamp(g * {step} / 1000.0) AS time,
  CASE WHEN nombre IN (SELECT nombre FROM mayores) THEN nombre ELSE '(otros)' END AS metric,
  sum(v)::float8 AS value
FROM sumas GROUP BY 1, 2 ORDER BY 1, 2
"""


HELD = stacked(
    rows(CONTAINER, "container_id, container_name, held_mb_sum"),
    rows(HOST, "ticks", CONTAINER),
    OF_CONTAINER,
    "held_mb_sum",
    point(CONTAINER),
)
