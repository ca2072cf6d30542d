"""The lower half of «Monitor de Contenedores»: the tables, what went and why, and processes."""

from __future__ import annotations

from grafana.build import contenedores_sql as queries
from grafana.build import panels as p
from grafana.build import sql
from grafana.build.frame import CONTAINERS_UID
from grafana.build.layout import Grid

REASONS = p.words(
    excess_low=("exceso (bajo)", p.GOOD),
    excess_high=("exceso (alto)", p.USED),
    exited=("terminado", p.QUIET),
    stop=("parada", p.ACCENT),
    rule=("regla propia", p.BAD),
)
OUTCOMES = p.words(
    removed=("eliminado", p.GOOD),
    gone=("ya no estaba", p.QUIET),
    left=("se dejó", p.ACCENT),
    failed=("falló", p.BAD),
    dry_run=("simulacro", p.ACCENT),
    stopped=("parado", p.GOOD),
    restarted=("reiniciado", p.GOOD),
    paused=("pausado", p.GOOD),
    notified=("avisado", p.ACCENT),
)
TIERS = p.words(
    low=("bajo", p.GOOD), high=("alto", p.USED), none=("sin gobierno", p.QUIET)
)  # fmt: skip
VERDICTS = p.words(
    agree=("coincide", p.GOOD),
    conflict=("conflicto", p.BAD),
    unverified=("sin verificar", p.WARN),
    sin_procesos=("sin procesos", p.QUIET),
    caducado=("detalle caducado", p.QUIET),
)
COLOURED = p.prop("custom.cellOptions", {"type": "color-text"})


def _gauge_cell(scheme: str) -> list[object]:
    return [
        p.prop("custom.cellOptions", {"type": "gauge", "mode": "gradient"}),
        p.prop("color", {"mode": scheme}),
        p.prop("min", 0),
        # Else the longest bar is the largest number of all columns, a PID for example.
        p.prop("fieldMinMax", True),
    ]


def containers(grid: Grid) -> None:
    grid.add(
        p.table(
            "Lista de Contenedores",
            "Los contenedores del último tick, antes de sus eliminaciones. Un clic en el nombre "
            "muestra solo ese contenedor y sus procesos. Especiales: procesos añadidos, "
            "extraviados o movidos.",
            p.rows(queries.LIST),
        )
        .decimals(1)
        .override_by_name(
            "Contenedor",
            [
                p.prop(
                    "links",
                    [
                        {
                            "title": "Ver ${__value.text} y sus procesos",
                            "url": f"/d/{CONTAINERS_UID}?${{__url_time_range}}"
                            "&var-contenedor=${__data.fields.Id}",
                        }
                    ],
                ),
                p.prop("custom.width", 230),
            ],
        )
        .override_by_name("Nivel", [TIERS, COLOURED, p.prop("custom.width", 110)])
        .override_by_name("Procesos", [p.prop("decimals", 0), p.prop("custom.width", 90)])
        .override_by_name("Retenida", [p.prop("unit", p.MIB), *_gauge_cell("continuous-BlPu")])
        .override_by_name("RSS", [p.prop("unit", p.MIB), p.prop("custom.width", 110)])
        .override_by_name("Caché", [p.prop("unit", p.MIB), p.prop("custom.width", 110)])
        .override_by_name("CPU", [p.prop("unit", p.PERCENT), *_gauge_cell("continuous-GrYlRd")])
        .override_by_name("Verificado", [VERDICTS, COLOURED, p.prop("custom.width", 130)])
        .override_by_name("Especiales", [p.prop("decimals", 0), p.prop("custom.width", 100)])
        .override_by_name("Id", [p.prop("custom.width", 130)]),
        24,
        10,
    )


def removals(grid: Grid) -> None:
    grid.add(
        p.table(
            "Registro de Eliminaciones",
            "Las últimas 200 decisiones del rango: en qué orden, por qué, qué retenía, cómo "
            "acabó, y la RAM disponible del equipo antes y después de toda la pasada (por "
            "contenedor sería ruido). «Decisión» es el identificador que también está en el "
            "registro del agente.",
            p.rows(queries.REMOVED),
        )
        .decimals(1)
        .override_by_name("time", [p.prop("displayName", "Hora"), p.prop("custom.width", 165)])
        .override_by_name("Contenedor", [p.prop("custom.width", 190)])
        .override_by_name("Nivel", [TIERS, COLOURED, p.prop("custom.width", 70)])
        .override_by_name("Orden", [p.prop("decimals", 0), p.prop("custom.width", 70)])
        .override_by_name(
            "Motivo",
            [
                REASONS,
                COLOURED,
                p.prop("custom.width", 110),
            ],
        )
        .override_by_name("Regla", [p.prop("custom.width", 130)])
        .override_by_name(
            "Acción",
            [
                p.words(
                    remove=("eliminar", p.GOOD),
                    stop=("parar", p.USED),
                    restart=("reiniciar", p.USED),
                    pause=("pausar", p.USED),
                    notify=("avisar", p.ACCENT),
                ),
                p.prop("custom.width", 90),
            ],
        )
        .override_by_name(
            "Resultado",
            [
                OUTCOMES,
                COLOURED,
                p.prop("custom.width", 105),
            ],
        )
        .override_by_regexp("/^Retenida|^Disponible/", [p.prop("unit", p.MIB)])
        .override_by_regexp("/^Disponible/", [p.prop("decimals", 2), p.prop("custom.width", 140)])
        .override_by_name("Retenida", [p.prop("custom.width", 100)])
        .override_by_name("CPU", [p.prop("unit", p.PERCENT), p.prop("custom.width", 75)])
        .override_by_name("Duración", [p.prop("unit", p.MILLIS), p.prop("custom.width", 90)]),
        24,
        10,
    )
    grid.add(
        p.bars(
            "Eliminaciones por Motivo",
            "Decisiones de cada intervalo por motivo, y las que fallaron. 0 es que no hubo "
            "ninguna.",
            p.series(
                sql.removals(
                    {
                        "Exceso bajo": 0,
                        "Exceso alto": 1,
                        "Terminados": 2,
                        "Al parar": 3,
                        "Fallidos": 4,
                        "Regla propia": 5,
                    },
                    queries.REMOVAL_KIND,
                )
            ),
        )
        .decimals(0)
        .axis_label("contenedores")
        .override_by_name("Exceso bajo", [p.fixed(p.GOOD)])
        .override_by_name("Exceso alto", [p.fixed(p.USED)])
        .override_by_name("Terminados", [p.fixed(p.QUIET)])
        .override_by_name("Al parar", [p.fixed(p.ACCENT)])
        .override_by_name("Fallidos", [p.fixed(p.BAD)])
        .override_by_name("Regla propia", [p.fixed(p.WARN)]),
        12,
        8,
    )
    grid.add(
        p.bars(
            "Arranques, Salidas y OOM",
            "Procesos que nacieron y terminaron en los contenedores (BPF) y los que mató el "
            "kernel por falta de memoria en su cgroup, por intervalo. El primero de un "
            "contenedor y los de docker exec nacen fuera y entran: solo cuentan al salir. Sin "
            "BPF no hay arranques ni salidas.",
            p.series(queries.EVENTS),
        )
        .decimals(0)
        .axis_label("procesos")
        .override_by_name("Arranques", [p.fixed(p.ACCENT)])
        .override_by_name("Salidas", [p.fixed(p.QUIET)])
        .override_by_name("OOM", [p.fixed(p.BAD)]),
        12,
        8,
    )


def inside(grid: Grid) -> None:
    grid.add(
        p.table(
            "Lista de Procesos",
            "Procesos de los contenedores elegidos en el último tick, con su RSS exacta, su CPU, "
            "si los dos testigos coinciden, y en qué se basa la atribución.",
            p.rows(queries.PROCESSES),
        )
        .decimals(1)
        .override_by_name("PID", [p.prop("decimals", 0), p.prop("unit", "none")])
        .override_by_name("PID", [p.prop("custom.width", 90)])
        .override_by_name("RAM", [p.prop("unit", p.MIB), *_gauge_cell("continuous-BlPu")])
        .override_by_name("CPU", [p.prop("unit", p.PERCENT), *_gauge_cell("continuous-GrYlRd")])
        .override_by_name("Verificado", [VERDICTS, COLOURED, p.prop("custom.width", 120)])
        .override_by_name(
            "Base",
            [
                p.words(
                    cgroup=("cgroup", p.QUIET),
                    added=("añadido", p.ACCENT),
                    strayed=("extraviado", p.USED),
                    moved=("movido", "#B877D9"),
                ),
                COLOURED,
                p.prop("custom.width", 110),
            ],
        ),
        24,
        9,
    )
    for title, value, unit, axis in (
        ("RAM de sus Procesos en el Tiempo", "ram_usage", p.MIB, "RSS"),
        ("CPU de sus Procesos en el Tiempo", "cpu_usage", p.PERCENT, "de una CPU"),
    ):
        grid.add(
            p.labelled(
                p.lines(
                    title,
                    "Los 12 procesos con más en el rango, de los contenedores elegidos. El detalle "
                    "por proceso se guarda 24 h si no se configura otra cosa.",
                    p.series(
                        sql.largest(
                            value, "container_stats", "c.process_name", queries.PICKED, "12"
                        )
                    ),
                    unit,
                )
                .axis_label(axis)
                .no_value(p.NO_DETAIL)
            ).max_data_points(240),
            12,
            9,
        )
