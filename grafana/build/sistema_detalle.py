"""The lower half of «Monitor de Sistema»: processes, and how far the figures can be trusted."""

from __future__ import annotations

from grafana.build import panels as p
from grafana.build import sistema_sql as queries
from grafana.build import sql
from grafana.build.layout import Grid


def processes(grid: Grid) -> None:
    grid.add(
        p.ranking(
            "Top $top Procesos por RAM",
            "Los procesos con más memoria residente exacta (RSS) en el último tick. 1 MiB = 1024 "
            "KiB.",
            p.rows(queries.ranking("ram_usage")),
            p.MIB,
            "continuous-BlPu",
        ),
        8,
        8,
    )
    grid.add(
        p.ranking(
            "Top $top Procesos por CPU",
            "Los procesos con más CPU sobre el último intervalo; 100 % es una CPU entera.",
            p.rows(queries.ranking("cpu_usage")),
            p.PERCENT,
            "continuous-GrYlRd",
        ),
        8,
        8,
    )
    grid.add(
        p.columns(
            "Procesos más Activos",
            "CPU media en todo el rango (100 % es una CPU), sobre hasta 60 ticks repartidos por "
            "él; un proceso cuenta 0 en los ticks en que no existía. Más de 6 h se leen por "
            "tramos, con los 20 procesos mayores de cada uno.",
            p.rows(queries.ACTIVE),
            p.PERCENT,
            "proceso",
        )
        .no_value(p.NO_DETAIL)
        .max_data_points(60)
        .x_tick_label_rotation(-35)
        .override_by_name("CPU", [p.fixed(p.ACCENT)]),
        8,
        8,
    )
    grid.add(
        p.lines(
            "RAM de los Procesos en el Tiempo",
            "Memoria residente (RSS) de los procesos elegidos arriba; con «All», los $top mayores "
            "del rango. Hasta 120 ticks repartidos por el rango; más de 6 h se leen por tramos, "
            "con los 20 procesos mayores de cada uno.",
            p.series(queries.largest("ram_usage")),
            p.MIB,
        )
        .no_value(p.NO_DETAIL)
        .axis_label("RSS")
        .display_name("${__field.labels.metric}")
        .color_scheme(p.color("palette-classic-by-name"))
        .legend(p.legend("table", "right", ["lastNotNull", "max"]))
        .max_data_points(120),
        12,
        8,
    )
    grid.add(
        p.lines(
            "CPU de los Procesos en el Tiempo",
            "CPU de los procesos elegidos arriba sobre cada intervalo del agente; 100 % es una "
            "CPU. Con «All», los $top que más gastaron en el rango.",
            p.series(queries.largest("cpu_usage")),
            p.PERCENT,
        )
        .no_value(p.NO_DETAIL)
        .axis_label("de una CPU")
        .display_name("${__field.labels.metric}")
        .color_scheme(p.color("palette-classic-by-name"))
        .legend(p.legend("table", "right", ["lastNotNull", "max"]))
        .max_data_points(120),
        12,
        8,
    )


def trust(grid: Grid) -> None:
    grid.add(
        p.figures(
            "Atribución Ahora",
            "Procesos de contenedores según los dos testigos, el módulo y BPF: coinciden, están en "
            "conflicto (fuera de los totales y su contenedor no se elimina), o BPF no los vio. "
            "La política está desarmada, y no toca nada, mientras un presupuesto de confianza está "
            "gastado o alguien lo quiso así (`agent policy disarm`).",
            p.rows(
                f"""
SELECT CAST(agree AS REAL) AS "Coinciden", CAST(conflict AS REAL) AS "En conflicto",
       CAST(unverified AS REAL) AS "Sin verificar",
       CASE (SELECT armed FROM policy_arming ORDER BY id DESC LIMIT 1)
            WHEN 0 THEN 'desarmada' ELSE 'armada' END AS "Política"
FROM attribution_checks WHERE timestamp = {sql.LAST}
"""
            ),
        )
        .override_by_name("Coinciden", [p.fixed(p.GOOD)])
        .override_by_name(
            "En conflicto", [p.prop("thresholds", p.alarm(p.BAD))]
        )
        .override_by_name(
            "Sin verificar", [p.prop("thresholds", p.alarm(p.WARN))]
        )
        .override_by_name(
            "Política", [p.words(armada=("armada", p.GOOD), desarmada=("desarmada", p.BAD))]
        ),
        4,
        8,
    )  # fmt: skip
    grid.add(
        p.areas(
            "Verificación en el Tiempo",
            "Procesos de contenedores por veredicto: media de cada intervalo, salvo los "
            "conflictos, de los que se muestra el peor tick para que ninguno se pierda.",
            p.series(
                sql.averages(
                    {
                        "Coinciden": sql.mean("agree", "checks_n"),
                        "Sin verificar": sql.mean("unverified", "checks_n"),
                        "En conflicto": sql.highest("conflict"),
                    },
                    "attribution_checks",
                )
            ),
        )
        .axis_label("procesos")
        .decimals(0)
        .override_by_name("Coinciden", [p.fixed(p.GOOD)])
        .override_by_name("Sin verificar", [p.fixed(p.WARN)])
        .override_by_name("En conflicto", [p.fixed(p.BAD)]),
        10,
        8,
    )
    grid.add(
        p.bars(
            "Casos Especiales en el Tiempo",
            "Peor tick de cada intervalo: procesos en el cgroup de un contenedor con los "
            "espacios de nombres del equipo (añadidos), fuera de todo cgroup de contenedor pero "
            "en su espacio de PID (extraviados), o con cgroup de uno y espacios de otro "
            "(movidos). Eventos de BPF perdidos: su suma.",
            p.series(
                sql.averages(
                    {
                        "Añadidos": sql.highest("added"),
                        "Extraviados": sql.highest("strayed"),
                        "Movidos": sql.highest("moved"),
                        "Eventos perdidos": sql.total("events_lost"),
                    },
                    "attribution_checks",
                    broken=False,
                )
            ),
        )
        .axis_label("procesos")
        .decimals(0)
        .legend(p.legend(calcs=["max"]))
        .override_by_name("Añadidos", [p.fixed(p.ACCENT)])
        .override_by_name("Extraviados", [p.fixed(p.USED)])
        .override_by_name("Movidos", [p.fixed("#B877D9")])
        .override_by_name("Eventos perdidos", [p.fixed(p.BAD)]),
        10,
        8,
    )
    grid.add(
        p.states(
            "Fuente en el Tiempo",
            "De dónde vinieron los datos: módulos del kernel, psutil (módulos no disponibles) o "
            "ningún sitio (el agente no corría).",
            p.rows(queries.SOURCES),
        ).override_by_name(
            "Fuente",
            [
                p.words(
                    modules=("módulos", p.GOOD),
                    psutil=("psutil", p.WARN),
                    sin_ticks=("sin ticks", p.QUIET),
                )
            ],
        ),
        12,
        6,
    )
    grid.add(
        p.with_worst(
            "Duración de los Ticks",
            "Lo que tarda un tick en leer, decidir, eliminar y guardar: media y máximo de cada "
            "intervalo. Los ticks que eliminan esperan unos segundos a que los contenedores "
            "terminen.",
            p.series(
                sql.averages({"Máximo": sql.highest("tick_ms"), "Media": sql.mean("tick_ms")})
            ),
            p.MILLIS,
        ).axis_label("por tick"),
        12,
        6,
    )
    grid.add(
        p.figures(
            "Registro de BPF en el Rango",
            "De los ticks del rango: eventos perdidos (con las ejecuciones que el kernel omitió), "
            "procesos que estaban en otro cgroup que el de su historia, y finales que se supieron "
            "tarde. Solo los perdidos y los omitidos son pérdidas.",
            p.rows(
                f"""
SELECT CAST(coalesce(sum(events_lost), 0) AS REAL) AS "Perdidos",
       CAST(coalesce(sum(events_missed), 0) AS REAL) AS "Omitidos",
       CAST(coalesce(sum(events_corrected), 0) AS REAL) AS "Corregidos",
       CAST(coalesce(sum(events_late), 0) AS REAL) AS "Tardíos"
FROM attribution_checks WHERE {sql.RANGE} HAVING {sql.LAST} IS NOT NULL
"""
            ),
        )
        .decimals(0)
        .override_by_name("Perdidos", [p.prop("thresholds", p.alarm(p.BAD))])
        .override_by_name("Omitidos", [p.prop("thresholds", p.alarm(p.BAD))]),
        24,
        4,
    )
