"""The last part of «Monitor de Flota»: chosen hosts by minute, and their processes."""

from __future__ import annotations

from grafana.build import flota_minutos_sql as close_up
from grafana.build import panels as p
from grafana.build.flota_detalle import linked
from grafana.build.flota_panels import FleetGrid, rows, series

NO_MINUTES = 'Sin minutos: ningún equipo elegido tiene resolution = "60s" en [fleet]'
NO_PROCESSES = 'Sin procesos: ningún equipo elegido tiene processes = "top:20" en [fleet]'


def by_minute(grid: FleetGrid) -> None:
    grid.add(
        p.labelled(
            p.lines(
                "CPU y RAM por Minuto",
                "Porcentaje de todas las CPU y de la RAM del equipo, minuto a minuto, de los $top "
                "equipos con más CPU: el último día del rango si se eligen equipos, la última hora "
                'si no. Solo de los que tienen resolution = "60s".',
                series(close_up.HOST_MINUTES),
                p.PERCENT,
            ).axis_label("del equipo")
        )
        .display_name("${__field.name}")
        .min(0)
        .max(100),
        12,
        9,
        NO_MINUTES,
    )
    grid.add(
        p.labelled(
            p.areas(
                "RAM Retenida por Contenedor y Minuto",
                "RAM retenida en los equipos elegidos, minuto a minuto, apilada por contenedor: "
                "los 12 mayores por su nombre y el resto junto.",
                series(close_up.HELD_BY_MINUTE),
                p.MIB,
            ).axis_label("retenida")
        ).display_name("${__field.name}"),
        12,
        9,
        NO_MINUTES,
    )


def processes(grid: FleetGrid) -> None:
    grid.add(
        linked(
            p.table(
                "Procesos Mayores",
                "Los 50 procesos con más RAM en el rango, de los que cada equipo envía: los 20 "
                'mayores de cada tramo. Solo de los que tienen processes = "top:20". Los nombres '
                "son palabra de la carga.",
                rows(close_up.PROCESSES),
            )
            .decimals(1)
            .override_by_name("PID", [p.prop("decimals", 0), p.prop("unit", "none")])
            .override_by_regexp("/^RAM/", [p.prop("unit", p.MIB)])
            .override_by_regexp("/^CPU/", [p.prop("unit", p.PERCENT)])
        ),
        12,
        10,
        NO_PROCESSES,
    )
    grid.add(
        p.labelled(
            p.areas(
                "CPU por Proceso en el Tiempo",
                "CPU de los procesos de los equipos elegidos, apilada por nombre: los 12 mayores "
                "del rango y el resto junto, también los que no se envían uno a uno. 100 % es una "
                "CPU.",
                series(close_up.PROCESS_CPU),
                p.PERCENT,
            ).axis_label("CPU")
        ).display_name("${__field.name}"),
        12,
        10,
        NO_PROCESSES,
    )
