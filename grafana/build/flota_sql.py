"""The queries of «Monitor de Flota», of a centre's PostgreSQL.

Short ranges are read from buckets of 5 minutes, longer ones from hours and days (`Kind`); what is
not closed yet comes from the finer rows of the range's end. `$__from`, `$__to` and `$__interval_ms`
are put in by the browser; no macro of the plugin is used.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR_MS, DAY_MS = 3_600_000, 86_400_000

EVERYBODY = "'*' IN (${equipo:sqlstring})"


@dataclass(frozen=True, slots=True)
class Kind:
    """A table of each level, and the longest ranges that are read from 5 minutes and from hours.

    Of a thousand hosts a day has three million rows of 5 minutes; of one, three thousand: where
    hosts are chosen, the ranges are longer.
    """

    name: str
    fine_ms: int
    hours_ms: int

    @property
    def fine(self) -> str:
        return _limit(self.fine_ms, FEW_FINE_MS)

    @property
    def hours(self) -> str:
        return _limit(self.hours_ms, FEW_HOURS_MS)


FEW_FINE_MS, FEW_HOURS_MS = DAY_MS, 31 * DAY_MS
HOST = Kind("host", DAY_MS, 14 * DAY_MS)
CONTAINER = Kind("container", 2 * HOUR_MS, 2 * DAY_MS)


def _limit(all_ms: int, few_ms: int) -> str:
    if all_ms == few_ms:
        return str(all_ms)
    return f"CASE WHEN {EVERYBODY} THEN {all_ms} ELSE {few_ms} END"


SILENT_S = 900
"""Three flushes as they are by default."""

SPAN = "($__to - $__from)"


def point(kind: Kind) -> str:
    """The time that one point stands for, in milliseconds; never shorter than a bucket."""
    return (
        f"greatest($__interval_ms, CASE WHEN {SPAN} > {kind.hours} THEN {DAY_MS}"
        f" WHEN {SPAN} > {kind.fine} THEN {HOUR_MS} ELSE 300000 END)"
    )


RANGE = "timestamp BETWEEN $__from AND $__to"

PICKED = f"({EVERYBODY} OR installation IN (${{equipo:sqlstring}}))"

NAMES = """nombres AS (
  SELECT *, CASE count(*) OVER (PARTITION BY name) WHEN 1 THEN name
    ELSE name || ' ' || left(installation, 8) END AS equipo
  FROM so1.hosts
)"""
"""CTE: two hosts of one name are told apart by their ids."""


def _open(until: str, most_ms: int) -> str:
    """From when on finer rows may be needed: else all of the last hours would be read for some."""
    return (
        f"coalesce((SELECT min({until}) FROM so1.closed WHERE {until} > $__to - {most_ms}), $__to)"
    )


def rows(kind: Kind, columns: str, like: Kind | None = None) -> str:
    """All rows of the range with `installation`, `timestamp` and `columns`, as a subquery.

    At the level of `like` where that is another. An hour or a day that is not closed is read from
    what is finer, and only near the range's end: a host that fell silent in the middle of an hour
    has the rest of it in short ranges only.
    """
    fine, hours = (like or kind).fine, (like or kind).hours
    read = f"SELECT installation, timestamp, {columns} FROM so1.{kind.name}"
    closed = "LEFT JOIN so1.closed USING (installation)"
    return f"""(
    {read}_1d
    WHERE {SPAN} > {hours} AND timestamp BETWEEN $__from - {DAY_MS - 1} AND $__to AND {PICKED}
    UNION ALL
    {read}_1h {closed}
    WHERE {SPAN} > {fine} AND timestamp BETWEEN greatest($__from - {HOUR_MS - 1},
        CASE WHEN {SPAN} > {hours} THEN {_open("until_1d", 2 * DAY_MS)} ELSE 0 END)
        AND $__to AND {PICKED}
      AND ({SPAN} <= {hours} OR timestamp >= coalesce(until_1d, 0))
    UNION ALL
    {read}_5m {closed}
    WHERE timestamp BETWEEN greatest($__from - 299999,
        CASE WHEN {SPAN} > {fine} THEN {_open("until_1h", 3 * HOUR_MS)} ELSE 0 END)
        AND $__to AND {PICKED}
      AND ({SPAN} <= {fine} OR timestamp >= coalesce(until_1h, 0))
  ) AS filas"""


HOST_LIST = f"""
WITH {NAMES}
SELECT equipo AS __text, installation AS __value FROM nombres ORDER BY equipo
"""

AGE = "extract(epoch FROM clock_timestamp() - seen_at)"

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


def top(figure: str, columns: str) -> str:
    return f"""
WITH {NAMES}
SELECT equipo || ' / ' || container_name AS nombre, v::float8 AS valor
FROM (
  SELECT installation, container_name, {figure} AS v
  FROM {rows(CONTAINER, f"container_id, container_name, {columns}")}
  WHERE container_id <> '' GROUP BY 1, 2
) AS sumas JOIN nombres USING (installation)
ORDER BY v DESC, 1 LIMIT $top
"""


TOP_RAM = top("max(held_mb_max)", "held_mb_max")
TOP_CPU = top("sum(cpu_usage_sum) / nullif(sum(ticks), 0)", "cpu_usage_sum, ticks")

_CONTAINER_COLUMNS = """container_id, container_name, image, tier, ticks, held_mb_sum,
    held_mb_max, cpu_usage_sum, oom_kills"""

CONTAINERS = f"""
WITH {NAMES},
sumas AS (
  SELECT installation, container_id, max(container_name) AS nombre, max(image) AS imagen,
    max(tier) AS nivel, max(held_mb_max) AS pico, sum(held_mb_sum) / nullif(sum(ticks), 0) AS media,
    sum(cpu_usage_sum) / nullif(sum(ticks), 0) AS cpu, coalesce(sum(oom_kills), 0) AS muertes
  FROM {rows(CONTAINER, _CONTAINER_COLUMNS)}
  WHERE container_id <> '' GROUP BY 1, 2
)
SELECT equipo AS "Equipo", nombre AS "Contenedor", imagen AS "Imagen", nivel AS "Nivel",
  pico::float8 AS "Retenida (máximo)", media::float8 AS "Retenida (media)", cpu::float8 AS "CPU",
  muertes::float8 AS "OOM", installation AS "Id"
FROM sumas JOIN nombres USING (installation) ORDER BY pico DESC, equipo, nombre LIMIT 50
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


def _points(kind: Kind) -> str:
    one = point(kind)
    return f"""puntos AS (
  SELECT generate_series($__from / {one}, $__to / {one}) AS g
)"""


REMOVALS_OVER_TIME = f"""
WITH {_points(HOST)},
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
WITH {_points(CONTAINER)},
sumas AS (
  SELECT timestamp / {point(CONTAINER)} AS g, sum(oom_kills) AS v
  FROM {rows(CONTAINER, "oom_kills")} GROUP BY 1
)
SELECT to_timestamp(g * {point(CONTAINER)} / 1000.0) AS time, coalesce(v, 0)::float8 AS "OOM"
FROM puntos LEFT JOIN sumas USING (g) ORDER BY 1
"""

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
WITH {_points(HOST)},
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

HELD = f"""
WITH puntos AS MATERIALIZED (
  SELECT timestamp / {point(CONTAINER)} * {point(CONTAINER)} AS t, installation, sum(ticks) AS n
  FROM {rows(HOST, "ticks", CONTAINER)} GROUP BY 1, 2
),
sumas AS MATERIALIZED (
  SELECT timestamp / {point(CONTAINER)} * {point(CONTAINER)} AS t, installation,
    CASE container_id WHEN '' THEN '(otros)' ELSE container_name END AS nombre,
    sum(held_mb_sum) AS v
  FROM {rows(CONTAINER, "container_id, container_name, held_mb_sum")} GROUP BY 1, 2, 3
),
mayores AS (
  SELECT nombre FROM sumas WHERE nombre <> '(otros)' GROUP BY 1 ORDER BY sum(v) DESC, 1 LIMIT 12
)
SELECT to_timestamp(t / 1000.0) AS time,
  CASE WHEN nombre IN (SELECT nombre FROM mayores) THEN nombre ELSE '(otros)' END AS metric,
  sum(v / n)::float8 AS value
FROM sumas JOIN puntos USING (t, installation) GROUP BY 1, 2 ORDER BY 1, 2
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
