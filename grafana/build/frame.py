"""What both dashboards have around their panels: identity, time, variables, links, annotations."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard

from grafana.build import sql
from grafana.build.panels import BAD, OOM_KILLS, REMOVALS, SOURCE, USED, WARN, rows

SYSTEM_UID, SYSTEM_TITLE = "so1-sistema", "Monitor de Sistema"
CONTAINERS_UID, CONTAINERS_TITLE = "so1-contenedores", "Monitor de Contenedores"

REMOVED = f"""
WITH RECURSIVE {sql.ENGINES},
pasos(desde, cada) AS (
  SELECT $__from / cada * cada, cada
  FROM (SELECT max(60000, ($__to - $__from) / 20) AS cada)
  UNION ALL
  SELECT desde + cada, cada FROM pasos WHERE desde + cada <= $__to
)
SELECT min(d.timestamp) / 1000.0 AS time,
       'Eliminados: ' || group_concat({sql.NAME} || ' ('
         || CASE reason WHEN 'rule' THEN rule ELSE reason END || ', '
         || CAST(round(held_mb) AS INTEGER) || ' MB)', ', ')
         || CASE count(*) WHEN 12 THEN ' …' ELSE '' END AS text,
       'eliminación' AS tags
FROM pasos CROSS JOIN deletions d ON d.id IN (
  SELECT id FROM deletions
  WHERE timestamp BETWEEN max(desde, $__from) AND min(desde + cada - 1, $__to)
    AND outcome = 'removed'
  ORDER BY timestamp, id LIMIT 12
)
GROUP BY desde ORDER BY 1
"""
"""At most some twenty marks a range, each with the first dozen removals of its stretch."""

_ALL_TICKS_MS = 2 * 86_400_000

RESTARTS = f"""
WITH limite(desde) AS (
  SELECT CASE WHEN $__to - $__from <= {_ALL_TICKS_MS} THEN 0 ELSE
    (SELECT until FROM rollup_until WHERE bucket_ms = 300000) END
), tramos AS (
  SELECT timestamp AS desde, timestamp - tick_ms AS inicio,
         lead(timestamp) OVER (ORDER BY timestamp) AS hasta,
         lead(timestamp - tick_ms) OVER (ORDER BY timestamp) AS siguiente
  FROM metrics WHERE {sql.RANGE} AND timestamp >= coalesce((
    SELECT timestamp FROM metrics WHERE timestamp < (SELECT desde FROM limite)
    ORDER BY timestamp DESC LIMIT 1 OFFSET 200
  ), 0)
), ultimos AS (
  SELECT siguiente - inicio AS cada FROM tramos WHERE siguiente IS NOT NULL
  ORDER BY desde DESC LIMIT 200
), ritmo AS (
  SELECT max(1, cada) AS cada FROM ultimos
  ORDER BY 1 LIMIT 1 OFFSET (SELECT count(*) / 2 FROM ultimos)
), paradas AS (
  SELECT desde, hasta FROM tramos, ritmo
  WHERE hasta >= (SELECT desde FROM limite)
    AND (siguiente - desde > 2.5 * cada OR siguiente - inicio < 0.4 * cada)
  UNION ALL
  SELECT timestamp, until FROM limite CROSS JOIN agent_stops
  WHERE {sql.RANGE} AND until < limite.desde
)
SELECT desde / 1000.0 AS time, hasta / 1000.0 AS timeEnd,
       'Agente detenido o reiniciado: ' || CAST((hasta - desde) / 1000 AS INTEGER)
         || ' s sin ticks' AS text,
       'agente' AS tags
FROM (SELECT * FROM paradas ORDER BY desde DESC LIMIT 500) ORDER BY 1
"""
"""A tick that begins much later after the end of the one before than the rhythm says, or much
sooner after its beginning: between them was a start.

The time a tick takes is left out: a busy host has ticks longer than the interval, and no restarts.
"""


KILLED = f"""
WITH {sql.ENGINES}
SELECT timestamp / 1000.0 AS time,
       'OOM: ' || process_name || coalesce(' de ' || nullif({sql.NAMED_IF_ANY}, ''), '')
         || CASE WHEN grower_pid <> pid THEN '; creció ' || grower_name ELSE '' END AS text,
       'oom' AS tags
FROM (
  SELECT * FROM oom_kills WHERE {sql.RANGE} ORDER BY timestamp DESC, id DESC LIMIT 100
) ORDER BY timestamp, id
"""
"""The latest kills of the range, one mark each."""


def frame(uid: str, title: str, what: str) -> build.Dashboard:
    """An empty dashboard with all that is not a panel."""
    other = CONTAINERS_UID if uid == SYSTEM_UID else SYSTEM_UID
    other_title = CONTAINERS_TITLE if uid == SYSTEM_UID else SYSTEM_TITLE
    return (
        build.Dashboard(title)
        .uid(uid)
        .description(what)
        .tags(["so1"])
        .time("now-1h", "now")
        .refresh("5s")
        .timezone("browser")
        .editable()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink(other_title)
            .type(dashboard.DashboardLinkType.LINK)
            .url(f"/d/{other}")
            .icon("dashboard")
            .keep_time(True)
            .tooltip(f"Abre «{other_title}» con el mismo rango")
        )
        .annotation(
            build.AnnotationQuery()
            .name(REMOVALS)
            .datasource(SOURCE)
            .enable(True)
            .icon_color(BAD)
            .target(rows(REMOVED))
        )
        .annotation(
            build.AnnotationQuery()
            .name(OOM_KILLS)
            .datasource(SOURCE)
            .enable(True)
            .icon_color(USED)
            .target(rows(KILLED))
        )
        .annotation(
            build.AnnotationQuery()
            .name("Reinicios del agente")
            .datasource(SOURCE)
            .enable(True)
            .icon_color(WARN)
            .target(rows(RESTARTS, times=("time", "timeEnd")))
        )
    )


def top_variable() -> build.CustomVariable:
    """How many rows a ranking has."""
    return (
        build.CustomVariable("top")
        .label("Top")
        .description("Cuántas filas muestran las clasificaciones")
        .values("3,5,10,20")
        .current(dashboard.VariableOption(text="5", value="5"))
    )


def picked(name: str, label: str, query: str, what: str) -> build.QueryVariable:
    """Several values of a query, or all: then the query sees '*' and no list of them."""
    return (
        build.QueryVariable(name)
        .label(label)
        .description(what)
        .datasource(SOURCE)
        .query(query.strip())
        .multi(True)
        .include_all(True)
        .all_value("'*'")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.DISABLED)
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def tier_variable() -> build.CustomVariable:
    everything = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        build.CustomVariable("nivel")
        .label("Nivel")
        .description("Nivel de consumo en el que compite un contenedor")
        .values("Bajo consumo : low, Alto consumo : high, Sin gobierno : none")
        .multi(True)
        .include_all(True)
        .current(everything)
    )
