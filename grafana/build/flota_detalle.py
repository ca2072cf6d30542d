"""The lower half of «Monitor de Flota»: containers, removals, agreement, breaks and growth."""

from __future__ import annotations

from grafana.build import flota_central_sql as central
from grafana.build import flota_contenedores_sql as of_containers
from grafana.build import flota_equipos_sql as hosts
from grafana.build import flota_sucesos_sql as happened
from grafana.build import panels as p
from grafana.build.contenedores_detalle import COLOURED, OUTCOMES, REASONS, TIERS
from grafana.build.contenedores_muertes import CAUSES
from grafana.build.flota_panels import rows, series
from grafana.build.layout import Grid

LINK = {
    "title": "Ver solo ${__value.text}",
    "url": "/d/so1-flota?${__url_time_range}&var-equipo=${__data.fields.Id}",
}
STATES = p.words(
    al_dia=("al día", p.GOOD), silencioso=("silencioso", p.BAD), nunca=("nunca visto", p.QUIET)
)
TRUST = p.words(
    agree=("de fiar", p.GOOD),
    conflict=("en conflicto", p.BAD),
    incompleto=("incompleto", p.WARN),
    unverified=("sin verificar", p.WARN),
    sin_datos=("sin datos", p.QUIET),
)
BREAKS = p.prop(
    "mappings",
    [
        {
            "type": "value",
            "options": {
                "fork": {"text": "bifurcación", "color": p.BAD, "index": 0},
                "begun again": {"text": "empezó de nuevo", "color": p.WARN, "index": 1},
                "hueco": {"text": "hueco", "color": p.BAD, "index": 2},
            },
        }
    ],
)
BYTES = "bytes"
_WHEN = [p.prop("custom.width", 185)]


def linked(panel: p.Panel) -> p.Panel:
    """A click on a host's name shows that host alone."""
    return panel.override_by_name(
        "Equipo", [p.prop("links", [LINK]), p.prop("custom.width", 190)]
    ).override_by_name("Id", [p.prop("custom.width", 150)])


def containers(grid: Grid) -> None:
    for title, what, sql, unit, scheme in (
        (
            "Top $top Contenedores de la Flota por RAM",
            "Los que más RAM retuvieron en cualquier equipo: su máximo en un tick del rango.",
            of_containers.TOP_RAM,
            p.MIB,
            "continuous-BlPu",
        ),
        (
            "Top $top Contenedores de la Flota por CPU",
            (
                "Los que más CPU gastaron en cualquier equipo: media mientras existieron; 100 % es "
                "una CPU."
            ),
            of_containers.TOP_CPU,
            p.PERCENT,
            "continuous-GrYlRd",
        ),
    ):
        grid.add(p.ranking(title, what, rows(sql), unit, scheme), 6, 10)
    grid.add(
        linked(
            p.table(
                "Contenedores Mayores",
                "Los 50 contenedores que más RAM retuvieron en el rango, de todos los equipos "
                "elegidos.",
                rows(of_containers.CONTAINERS),
            )
            .decimals(1)
            .override_by_name("Nivel", [TIERS, COLOURED, p.prop("custom.width", 110)])
            .override_by_regexp("/^Retenida/", [p.prop("unit", p.MIB)])
            .override_by_name("CPU", [p.prop("unit", p.PERCENT)])
            .override_by_name("OOM", [p.prop("decimals", 0)])
        ),
        12,
        10,
    )


def events(grid: Grid) -> None:
    grid.add(
        p.table(
            "Eliminaciones por Equipo y Regla",
            "Decisiones del rango por equipo, la regla que decidió, motivo, nivel y resultado, y "
            "cuánta RAM retenían esos contenedores en suma.",
            rows(happened.REMOVALS),
        )
        .decimals(0)
        .override_by_name("Motivo", [REASONS, COLOURED, p.prop("custom.width", 120)])
        .override_by_name("Nivel", [TIERS, COLOURED, p.prop("custom.width", 110)])
        .override_by_name("Resultado", [OUTCOMES, COLOURED, p.prop("custom.width", 110)])
        .override_by_name("Retenida", [p.prop("unit", p.MIB), p.prop("decimals", 1)])
        .override_by_name("La última", _WHEN),
        12,
        9,
    )
    grid.add(
        p.bars(
            "Eliminaciones en el Tiempo",
            "Eliminaciones conseguidas de todos los equipos elegidos por motivo, y las que "
            "fallaron. 0 es que no hubo ninguna.",
            series(happened.REMOVALS_OVER_TIME),
        )
        .decimals(0)
        .axis_label("contenedores")
        .override_by_name("Exceso bajo", [p.fixed(p.GOOD)])
        .override_by_name("Exceso alto", [p.fixed(p.USED)])
        .override_by_name("Terminados", [p.fixed(p.QUIET)])
        .override_by_name("Otros motivos", [p.fixed(p.ACCENT)])
        .override_by_name("Fallidos", [p.fixed(p.BAD)]),
        12,
        9,
    )
    grid.add(
        linked(
            p.table(
                "Muertes por OOM",
                "Procesos que el kernel mató por falta de memoria en el rango, por contenedor, "
                "proceso y causa, y cuánta memoria tenían. De un equipo que nunca envió ninguno se "
                "cuenta lo que dice memory.events de sus contenedores, por tramos y sin proceso.",
                rows(happened.OOM),
            )
            .decimals(0)
            .override_by_name("Causa", [CAUSES, COLOURED, p.prop("custom.width", 150)])
            .override_by_name("Tenía (máximo)", [p.prop("unit", p.MIB), p.prop("decimals", 1)])
            .override_by_name("La última", _WHEN)
        ),
        12,
        8,
    )
    grid.add(
        p.bars(
            "Muertes por OOM en el Tiempo",
            "Procesos muertos por falta de memoria en todos los equipos elegidos, también los de "
            "ningún contenedor. 0 es que no hubo ninguno.",
            series(happened.OOM_OVER_TIME),
        )
        .decimals(0)
        .axis_label("procesos")
        .override_by_name("OOM", [p.fixed(p.BAD)]),
        12,
        8,
    )


def trust(grid: Grid) -> None:
    grid.add(
        p.areas(
            "Atribución de la Flota en el Tiempo",
            "Procesos de contenedores de todos los equipos elegidos por veredicto: suma de la "
            "media de cada equipo en el intervalo.",
            series(hosts.AGREEMENT),
        )
        .axis_label("procesos")
        .decimals(1)
        .override_by_name("Coinciden", [p.fixed(p.GOOD)])
        .override_by_name("Sin verificar", [p.fixed(p.WARN)])
        .override_by_name("En conflicto", [p.fixed(p.BAD)]),
        12,
        8,
    )
    grid.add(
        p.bars(
            "Conflictos y Pérdidas en el Tiempo",
            "Ticks en los que los dos testigos discreparon en algún proceso, y eventos de BPF que "
            "se perdieron, en suma. 0 es que no hubo ninguno.",
            series(hosts.DISTRUST),
        )
        .axis_label("por intervalo")
        .decimals(0)
        .override_by_name("Ticks en conflicto", [p.fixed(p.BAD)])
        .override_by_name("Eventos perdidos", [p.fixed(p.USED)]),
        12,
        8,
    )
    grid.add(
        linked(
            p.table(
                "Bifurcaciones y Huecos",
                "Historias que no siguen a la que la central conocía (disco clonado, copia "
                "antigua, base nueva) y filas que se borraron antes de llegar. Los últimos 200, de "
                "cualquier fecha.",
                rows(central.BREAKS),
            )
            .decimals(0)
            .override_by_name("time", [p.prop("displayName", "Hora"), *_WHEN])
            .override_by_name("Qué", [BREAKS, COLOURED, p.prop("custom.width", 140)])
        ),
        12,
        9,
    )
    grid.add(
        p.table(
            "Tamaño por Flujo",
            "Lo que ocupa cada flujo en la central con sus índices, los días que abarcan sus "
            "particiones, y las filas de un reloj equivocado, que se guardan aparte.",
            rows(central.SIZES),
        )
        .decimals(0)
        .override_by_name("Tamaño", [p.prop("unit", BYTES), p.prop("decimals", 1)]),
        5,
        9,
    )
    grid.add(
        p.bars(
            "Crecimiento por Día",
            "Bytes de cada día con sus índices, por flujo: por él se sabe cuánto disco hará falta. "
            "El de hoy no está completo.",
            series(central.GROWTH),
            BYTES,
        )
        .display_name("${__field.name}")
        # Its points are days, whatever range the dashboard has.
        .time_from("14d")
        .axis_label("por día")
        .decimals(1),
        7,
        9,
    )


def inside(grid: Grid) -> None:
    grid.add(
        p.labelled(
            p.areas(
                "RAM Retenida por Contenedor en el Tiempo",
                "RAM retenida en los equipos elegidos, apilada por contenedor: los 12 mayores del "
                "rango por su nombre y el resto junto; los de igual nombre en varios equipos, en "
                "suma.",
                series(of_containers.HELD),
                p.MIB,
            ).axis_label("retenida")
        ).display_name("${__field.name}"),
        16,
        10,
    )
    grid.add(
        p.table(
            "Paradas del Agente",
            "Cuándo y cuánto tiempo no corrió el agente de los equipos elegidos, en el rango.",
            rows(happened.STOPS),
        )
        .override_by_name("time", [p.prop("displayName", "Hora"), *_WHEN])
        .override_by_name("Duración", [p.prop("unit", p.SECONDS), p.prop("decimals", 0)]),
        8,
        10,
    )
    grid.add(
        p.table(
            "Registro de Eliminaciones",
            "Las últimas 200 decisiones del rango en los equipos elegidos: qué, por qué y cómo "
            "acabó. «Decisión» es el identificador del registro de aquel agente.",
            rows(happened.LOG),
        )
        .decimals(1)
        .override_by_name("time", [p.prop("displayName", "Hora"), *_WHEN])
        .override_by_name("Nivel", [TIERS, COLOURED, p.prop("custom.width", 110)])
        .override_by_name("Orden", [p.prop("decimals", 0), p.prop("custom.width", 70)])
        .override_by_name("Motivo", [REASONS, COLOURED, p.prop("custom.width", 120)])
        .override_by_name("Retenida", [p.prop("unit", p.MIB)])
        .override_by_name("Resultado", [OUTCOMES, COLOURED, p.prop("custom.width", 110)]),
        24,
        9,
    )
