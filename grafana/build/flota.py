"""«Monitor de Flota»: all hosts of a centre, which of them to believe, and what happened."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard

from grafana.build import flota_detalle, flota_minutos
from grafana.build import flota_equipos_sql as hosts
from grafana.build import flota_sql as base
from grafana.build import flota_sucesos_sql as happened
from grafana.build import panels as p
from grafana.build.contenedores_detalle import COLOURED
from grafana.build.flota_panels import SOURCE, FleetGrid, rows, series
from grafana.build.frame import top_variable
from grafana.build.layout import Grid

UID, TITLE = "so1-flota", "Monitor de Flota"


def fleet_dashboard() -> build.Dashboard:
    made = (
        build.Dashboard(TITLE)
        .uid(UID)
        .description("Todos los equipos de una central: cuáles callan, a cuáles creer, y qué pasó.")
        .tags(["so1"])
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .editable()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(_hosts())
        .with_variable(top_variable())
    )
    grid = FleetGrid(made)
    _now(grid)
    _hosts_over_time(grid)
    grid.heading("Contenedores de la flota")
    flota_detalle.containers(grid)
    grid.heading("Eliminaciones y muertes por OOM")
    flota_detalle.events(grid)
    grid.heading("¿Se puede creer?")
    flota_detalle.trust(grid)
    grid.heading("Los equipos elegidos, de cerca")
    flota_detalle.inside(grid)
    grid.heading("Los equipos elegidos, minuto a minuto y por proceso")
    flota_minutos.by_minute(grid)
    flota_minutos.processes(grid)
    return made


def _hosts() -> build.QueryVariable:
    return (
        build.QueryVariable("equipo")
        .label("Equipo")
        .description("Equipos inscritos en la central")
        .datasource(SOURCE)
        .query(base.HOST_LIST.strip())
        .multi(True)
        .include_all(True)
        .all_value("'*'")
        .refresh(dashboard.VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(dashboard.VariableSort.DISABLED)
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _alarm(names: Sequence[str], shade: str, panel: p.Panel) -> p.Panel:
    for name in names:
        panel = panel.override_by_name(name, [p.prop("thresholds", p.alarm(shade))])
    return panel


def _now(grid: Grid) -> None:
    grid.add(
        _alarm(
            ("Silenciosos", "Nunca vistos"),
            p.BAD,
            p.figures(
                "Equipos",
                "Equipos inscritos que llamaron en los últimos 15 minutos, los que callan desde "
                "hace más y los que nunca llamaron. Es de ahora, no del rango.",
                rows(hosts.STATES),
            ).decimals(0),
        ).override_by_name("Al día", [p.fixed(p.GOOD)]),
        5,
        6,
    )
    grid.add(
        p.figures(
            "Retraso",
            "Edad del último tramo de 5 minutos que llegó de cada equipo que no calla, desde su "
            "cierre: la mediana y el peor. Dos envíos es lo normal.",
            rows(hosts.LAG),
            p.SECONDS,
        )
        .decimals(0)
        .override_by_name(
            "Peor",
            [
                p.prop(
                    "thresholds",
                    {
                        "mode": "absolute",
                        "steps": [
                            {"color": p.ACCENT, "value": None},
                            {"color": p.WARN, "value": 900},
                        ],
                    },
                )
            ],
        ),
        4,
        6,
    )
    grid.add(
        p.figures(
            "La Flota Ahora",
            "Suma del último tramo de cada equipo en el rango: contenedores en marcha, RAM usada y "
            "RAM total.",
            rows(hosts.TOTALS),
            p.KIB,
        )
        .decimals(1)
        .override_by_name("Contenedores", [p.prop("unit", p.COUNT), p.prop("decimals", 0)])
        .override_by_name("RAM usada", [p.fixed(p.USED)])
        .override_by_name("RAM total", [p.fixed(p.TOTAL)]),
        6,
        6,
    )
    grid.add(
        _alarm(
            ("Fallidos", "OOM", "Bifurcaciones", "Huecos"),
            p.BAD,
            p.figures(
                "Sucesos del Rango",
                "En todos los equipos elegidos: contenedores eliminados, eliminaciones fallidas, "
                "procesos muertos por falta de memoria (OOM), historias bifurcadas (un disco "
                "clonado o una copia antigua) y huecos de filas que no llegaron.",
                rows(happened.EVENTS),
            ).decimals(0),
        ),
        9,
        6,
    )
    grid.add(_host_table(), 24, 10)


def _host_table() -> p.Panel:
    return (
        p.table(
            "Lista de Equipos",
            "Los que callan primero, luego los que no son de fiar. Un clic en el nombre muestra "
            "solo ese equipo. Confianza: en conflicto si los dos testigos discreparon en un tick "
            "del rango; incompleto si perdió eventos, se bifurcó o le faltan filas; sin verificar "
            "si BPF o los módulos no estaban.",
            rows(hosts.HOSTS),
        )
        .decimals(0)
        .override_by_name(
            "Equipo", [p.prop("links", [flota_detalle.LINK]), p.prop("custom.width", 200)]
        )
        .override_by_name("Estado", [flota_detalle.STATES, COLOURED])
        .override_by_name("Confianza", [flota_detalle.TRUST, COLOURED])
        .override_by_name("Visto hace", [p.prop("unit", p.SECONDS)])
        .override_by_name("RAM", [p.prop("unit", p.PERCENT), *_bar("continuous-BlPu")])
        .override_by_name("CPU", [p.prop("unit", p.PERCENT), *_bar("continuous-GrYlRd")])
        .override_by_name("Contenedores", [p.prop("decimals", 1)])
        .override_by_name("Id", [p.prop("custom.width", 150)])
    )


def _bar(scheme: str) -> list[object]:
    return [
        p.prop("custom.cellOptions", {"type": "gauge", "mode": "gradient"}),
        p.prop("color", {"mode": scheme}),
        p.prop("min", 0),
        p.prop("max", 100),
        p.prop("decimals", 1),
    ]


def _hosts_over_time(grid: Grid) -> None:
    for title, what, sql, axis in (
        (
            "RAM por Equipo en el Tiempo",
            (
                "RAM usada entre la total, media de cada intervalo, de los $top equipos con más en "
                "el rango."
            ),
            hosts.RAM,
            "de su RAM",
        ),
        (
            "CPU por Equipo en el Tiempo",
            (
                "Porcentaje de todas las CPU del equipo, media de cada intervalo, de los $top "
                "equipos con más en el rango."
            ),
            hosts.CPU,
            "de todas las CPU",
        ),
    ):
        grid.add(
            p.labelled(p.lines(title, what, series(sql), p.PERCENT).axis_label(axis))
            .display_name("${__field.name}")
            .min(0)
            .max(100),
            12,
            9,
        )
