"""«Monitor de Contenedores»: what each container holds and costs, over time and now."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common

from grafana.build import contenedores_detalle, contenedores_muertes, sql
from grafana.build import contenedores_sql as queries
from grafana.build import panels as p
from grafana.build.frame import (
    CONTAINERS_TITLE,
    CONTAINERS_UID,
    frame,
    picked,
    tier_variable,
    top_variable,
)
from grafana.build.layout import Grid


def dashboard() -> build.Dashboard:
    made = frame(
        CONTAINERS_UID,
        CONTAINERS_TITLE,
        "Qué retiene y qué gasta cada contenedor, cuáles se eliminaron y por qué, y sus procesos.",
    )
    made.with_variable(
        picked(
            "contenedor",
            "Contenedor",
            queries.CONTAINER_LIST,
            "Contenedores vistos en el rango, los actuales primero",
        )
    )
    made.with_variable(tier_variable())
    made.with_variable(top_variable())
    grid = Grid(made)
    _now_strip(grid)
    _ram(grid)
    _cpu(grid)
    grid.heading("Contenedores")
    contenedores_detalle.containers(grid)
    grid.heading("Eliminaciones y sucesos")
    contenedores_detalle.removals(grid)
    contenedores_muertes.over(grid)
    grid.heading("Procesos del contenedor elegido")
    contenedores_detalle.inside(grid)
    return made


def _now_strip(grid: Grid) -> None:
    grid.add(
        p.trend(
            "Contenedores en Marcha",
            "Contenedores en marcha sin contar Grafana, después de las eliminaciones de cada tick. "
            "Vacío: Docker no respondió.",
            p.series(sql.averages({"en marcha": sql.mean_known("container_count")})),
        )
        .decimals(0)
        .override_by_name("en marcha", [p.prop("noValue", p.NO_DOCKER)]),
        4,
        6,
    )
    grid.add(
        p.dial(
            "RAM Usada y CPU Usada",
            "Los contenedores elegidos contra todo el equipo en el último tick: RAM retenida entre "
            "la RAM total, y CPU entre todas las CPU.",
            p.rows(
                f"""
SELECT CAST(coalesce(sum(held_mb), 0) AS REAL) * 102400 / total_ram AS "RAM Usada",
       CAST(coalesce(sum(c.cpu_usage), 0) AS REAL) / cpu_count AS "CPU Usada"
FROM metrics m LEFT JOIN container_totals c ON c.timestamp = m.timestamp AND {sql.CONTAINERS}
WHERE m.timestamp = {sql.LAST} GROUP BY m.id
"""
            ),
        ),
        6,
        6,
    )
    grid.add(
        p.figures(
            "RAM Ahora",
            "Suma de los contenedores elegidos en el último tick. Retenida: lo que devuelve su fin "
            "(anon + shmem + kernel menos slab recuperable del cgroup). RSS: páginas residentes de "
            "sus "
            "espacios de memoria distintos. Caché: páginas de ficheros, recuperables.",
            p.rows(
                f"""
SELECT CAST(coalesce(sum(held_mb), 0) AS REAL) AS "Retenida",
       CAST(coalesce(sum(rss_mb), 0) AS REAL) AS "RSS",
       CAST(coalesce(sum(cache_mb), 0) AS REAL) AS "Caché"
FROM metrics m LEFT JOIN container_totals c ON c.timestamp = m.timestamp AND {sql.CONTAINERS}
WHERE m.timestamp = {sql.LAST} GROUP BY m.id
"""
            ),
            p.MIB,
        )
        .decimals(1)
        .override_by_name("Retenida", [p.fixed(p.USED)])
        .override_by_name("RSS", [p.fixed(p.ACCENT)])
        .override_by_name("Caché", [p.fixed(p.QUIET)]),
        5,
        6,
    )
    grid.add(
        p.figures(
            "Sucesos del Rango",
            "Contenedores eliminados, eliminaciones fallidas y procesos muertos por falta de "
            "memoria (OOM) en el rango. 0 es que no hubo; vacío, que no hay ticks.",
            p.rows(queries.IN_RANGE),
        )
        .decimals(0)
        .override_by_name("Fallidos", [p.prop("thresholds", p.alarm(p.BAD))])
        .override_by_name("OOM", [p.prop("thresholds", p.alarm(p.BAD))]),
        5,
        6,
    )
    grid.add(
        p.figures(
            "Procesos Verificados",
            "Procesos de contenedores del último tick cuyo contenedor nombran igual el módulo y "
            "BPF, los que están en conflicto y los que BPF no vio.",
            p.rows(
                f"""
SELECT CAST(count(*) FILTER (WHERE verified = 'agree') AS REAL) AS "Coinciden",
       CAST(count(*) FILTER (WHERE verified = 'conflict') AS REAL) AS "En conflicto",
       CAST(count(*) FILTER (WHERE verified = 'unverified') AS REAL) AS "Sin verificar"
FROM container_stats c WHERE timestamp = {sql.LAST} AND {queries.PICKED}
HAVING {sql.LAST} IS NOT NULL
"""
            ),
        )
        .decimals(0)
        .override_by_name("Coinciden", [p.fixed(p.GOOD)])
        .override_by_name("En conflicto", [p.prop("thresholds", p.alarm(p.BAD))])
        .override_by_name("Sin verificar", [p.prop("thresholds", p.alarm(p.WARN))]),
        4,
        6,
    )


def _ram(grid: Grid) -> None:
    grid.add(
        p.labelled(
            p.areas(
                "Uso de RAM en el Tiempo",
                "RAM retenida por contenedor, apilada: lo que devolvería su fin. Los 12 mayores "
                "del rango por su nombre y el resto junto. Cada punto es la media de los ticks "
                "de su intervalo (de hasta ocho de ellos), con 0 donde un contenedor no estaba. "
                "Más de 12 h se leen por tramos de 5 minutos, una hora o un día, con los 20 "
                "mayores de cada tramo. Interrumpida: sin ticks, o Docker no respondió.",
                p.series(sql.stacked("held_mb", p.OTHERS)),
                p.MIB,
            ).axis_label("retenida")
        ),
        16,
        10,
    )
    grid.add(
        p.columns(
            "RAM Retenida por Contenedor",
            "Todos los contenedores del último tick (hasta 15), antes de sus eliminaciones.",
            p.rows(queries.now("held_mb")),
            p.MIB,
            "nombre",
        )
        .orientation(common.VizOrientation.HORIZONTAL)
        .legend(p.no_legend())
        .override_by_name("valor", [p.prop("displayName", "Retenida"), p.fixed(p.USED)]),
        8,
        10,
    )


def _cpu(grid: Grid) -> None:
    grid.add(
        p.labelled(
            p.areas(
                "Uso de CPU en el Tiempo",
                "CPU por contenedor, apilada, según su cgroup; 100 % es una CPU. Los 12 mayores "
                "del rango por su nombre y el resto junto; los puntos, como en la RAM.",
                p.series(sql.stacked("cpu_usage", p.OTHERS)),
                p.PERCENT,
            ).axis_label("de una CPU")
        ),
        16,
        10,
    )
    grid.add(
        _share_colours(
            p.columns(
                "CPU por Contenedor",
                "CPU de cada contenedor en el último intervalo (cgroup), repartida: sus procesos "
                "vivos, los que vivieron menos de un tick (BPF) y lo que nadie explica. Sin BPF "
                "todo cuenta como procesos vivos.",
                p.rows(
                    f"""
WITH {sql.ENGINES}
SELECT {sql.NAME} AS nombre,
       {", ".join(f'CAST(max(0, {v}) AS REAL) AS "{name}"' for name, v in queries.SHARES.items())}
FROM container_totals WHERE {queries.HERE}
UNION ALL
SELECT {queries.WHY_NOTHING}, 0.0, 0.0, 0.0 {queries.NOTHING_HERE}
ORDER BY 2 DESC LIMIT 15
"""
                ),
                p.PERCENT,
                "nombre",
            )
            .orientation(common.VizOrientation.HORIZONTAL)
            .stacking(common.StackingMode.NORMAL)
            .show_value(common.VisibilityMode.NEVER)
        ),
        8,
        10,
    )
    grid.add(
        p.ranking(
            "Top $top Contenedores por RAM",
            "Los que más RAM retuvieron en un tick del rango (su máximo), sobre hasta 200 ticks; "
            "en más de 12 h, entre los 20 mayores de cada tramo.",
            p.rows(queries.top("max(held_mb)", "max(held_mb_max)", "held_mb_max")),
            p.MIB,
            "continuous-BlPu",
        ).max_data_points(200),
        8,
        8,
    )
    grid.add(
        p.ranking(
            "Top $top Contenedores por CPU",
            "Los que más CPU gastaron en el rango: media mientras existieron, sobre hasta 200 "
            "ticks; en más de 12 h, mientras estuvieron entre los 20 mayores de su tramo. 100 % es "
            "una CPU.",
            p.rows(
                queries.top(
                    "avg(cpu_usage)", "sum(cpu_usage_sum) / sum(ticks)", "cpu_usage_sum", "ticks"
                )
            ),
            p.PERCENT,
            "continuous-GrYlRd",
        ).max_data_points(200),
        8,
        8,
    )
    grid.add(
        _share_colours(
            p.areas(
                "Reparto de la CPU en el Tiempo",
                "La CPU de todos los contenedores elegidos, repartida entre procesos vivos, "
                "procesos de vida corta (BPF) y lo que ninguno explica: las cuentas cierran o se "
                "ve el hueco.",
                p.series(queries.SHARES_OVER_TIME),
                p.PERCENT,
            )
            .axis_label("de una CPU")
            .max_data_points(300)
        ),
        8,
        8,
    )


def _share_colours(panel: p.Panel) -> p.Panel:
    return (
        panel.override_by_name("Procesos vivos", [p.fixed(p.ACCENT)])
        .override_by_name("Vida corta", [p.fixed(p.USED)])
        .override_by_name("Sin explicar", [p.fixed(p.BAD)])
    )
