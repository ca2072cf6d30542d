"""«Monitor de Sistema»: the host's memory, CPU and processes, and whether to believe the agent."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.build import levels, sistema_detalle, sql
from grafana.build import panels as p
from grafana.build import sistema_sql as queries
from grafana.build.frame import SYSTEM_TITLE, SYSTEM_UID, frame, picked, top_variable
from grafana.build.layout import Grid


def dashboard() -> build.Dashboard:
    made = frame(
        SYSTEM_UID,
        SYSTEM_TITLE,
        "RAM, CPU, procesos y contenedores del equipo, y si se puede creer lo que dice el agente.",
    )
    made.with_variable(top_variable())
    made.with_variable(
        picked(
            "proceso",
            "Proceso",
            queries.PROCESS_LIST,
            "Procesos del último tick, los mayores primero",
        )
    )
    grid = Grid(made)
    _now_strip(grid)
    _over_time(grid)
    grid.heading("Procesos")
    sistema_detalle.processes(grid)
    grid.heading("¿Se puede creer?")
    sistema_detalle.trust(grid)
    return made


def _now_strip(grid: Grid) -> None:
    grid.add(
        p.dial(
            "CPU",
            "Uso de CPU del equipo en el último tick: porcentaje de todas las CPU sobre el último "
            "intervalo, de /proc/stat.",
            p.rows(queries.now({"CPU": "cpu_usage"})),
        ),
        3,
        6,
    )
    grid.add(
        p.dial(
            "RAM Usada",
            "«Usada» es total menos libre, como en el original, e incluye la caché del kernel. "
            "«Comprometida» es total menos disponible: lo que no se puede dar a un programa nuevo, "
            "y "
            "lo que importa para saber si falta RAM.",
            p.rows(
                queries.now(
                    {
                        "Usada": "used_ram * 100.0 / total_ram",
                        "Comprometida": "(total_ram - available_ram) * 100.0 / total_ram",
                    }
                )
            ),
        ).override_by_name("Usada", [p.fixed(p.USED)]),
        5,
        6,
    )
    grid.add(
        p.figures(
            "RAM Ahora",
            "Memoria del equipo en el último tick, en KiB de /proc/meminfo: total = usada + libre; "
            "disponible es la estimación del kernel (MemAvailable).",
            p.rows(
                queries.now(
                    {
                        "Total": "total_ram",
                        "Usada": "used_ram",
                        "Libre": "free_ram",
                        "Disponible": "available_ram",
                    }
                )
            ),
            p.KIB,
        )
        .decimals(2)
        .override_by_name("Total", [p.fixed(p.TOTAL)])
        .override_by_name("Usada", [p.fixed(p.USED)])
        .override_by_name("Libre", [p.fixed(p.QUIET)])
        .override_by_name("Disponible", [p.fixed(p.AVAILABLE)]),
        5,
        6,
    )
    grid.add(
        p.figures(
            "Contenedores y Procesos",
            "Contenedores en marcha sin contar Grafana, después de las eliminaciones del tick, y "
            "procesos del equipo, hilos del kernel incluidos. Vacío: Docker no respondió.",
            p.rows(queries.now({"Contenedores": "container_count", "Procesos": "process_count"})),
        ).override_by_name("Contenedores", [p.prop("noValue", p.NO_DOCKER)]),
        4,
        6,
    )
    grid.add(
        p.figures(
            "Eliminados",
            "Eliminaciones conseguidas: en el rango elegido y en toda la historia guardada "
            "(suma de deleted_count).",
            p.rows(queries.REMOVED),
        ).override_by_name("En el rango", [p.fixed(p.BAD)]),
        3,
        6,
    )
    grid.add(
        p.figures(
            "Último Tick",
            "Edad del último tick al final del rango y de dónde se leyeron los procesos: de los "
            "módulos del kernel o, si no cargaron, de psutil. Rojo: faltan más de seis ticks, al "
            "ritmo de los últimos.",
            p.rows(queries.AGENT),
            p.SECONDS,
        )
        .decimals(0)
        .override_by_name(
            "Agente",
            [
                p.words(
                    al_dia=("al día", p.GOOD),
                    atrasado=("atrasado", p.WARN),
                    detenido=("detenido", p.BAD),
                )
            ],
        )
        .override_by_name(
            "Fuente",
            [p.words(modules=("módulos", p.GOOD), psutil=("psutil", p.WARN))],
        ),
        4,
        6,
    )


def _over_time(grid: Grid) -> None:
    grid.add(
        p.areas(
            "Uso de RAM en el Tiempo",
            "RAM usada y libre, apiladas hasta el total, y la disponible como línea. Cada punto es "
            "la media de los ticks de su intervalo; una interrupción es tiempo sin ticks.",
            p.series(
                sql.averages(
                    {
                        "Usada": sql.mean("used_ram"),
                        "Libre": sql.mean("free_ram"),
                        "Disponible": sql.mean("available_ram"),
                        "Total": sql.highest("total_ram"),
                    }
                )
            ),
            p.KIB,
        )
        .axis_label("RAM")
        .decimals(2)
        .legend(p.legend(calcs=["lastNotNull", "min", "max"]))
        .override_by_name("Usada", [p.fixed(p.USED)])
        .override_by_name("Libre", [p.fixed(p.FREE)])
        .override_by_name(
            "Disponible",
            [*p.dashed(p.AVAILABLE), p.prop("custom.lineStyle", {"fill": "solid"}),
             p.prop("custom.lineWidth", 2)],
        )
        .override_by_name("Total", p.dashed(p.TOTAL)),
        12,
        9,
    )  # fmt: skip
    grid.add(
        p.with_worst(
            "Uso de CPU en el Tiempo",
            "Porcentaje de todas las CPU: la media de los ticks de cada intervalo y el peor de "
            "ellos.",
            p.series(
                sql.averages({"Máximo": sql.highest("cpu_usage"), "Media": sql.mean("cpu_usage")})
            ),
            p.PERCENT,
        )
        .max(100)
        .axis_label("de todas las CPU"),
        12,
        9,
    )
    grid.add(
        p.lines(
            "Procesos y Contenedores en el Tiempo",
            "Procesos del equipo (eje izquierdo) y contenedores en marcha tras las eliminaciones "
            "(eje derecho). Sin línea de contenedores: Docker no respondió.",
            p.series(
                sql.averages(
                    {
                        "Procesos": sql.mean("process_count"),
                        "Contenedores": sql.mean_known("container_count"),
                    }
                )
            ),
        )
        .axis_label("procesos")
        .decimals(0)
        .override_by_name("Procesos", [p.fixed(p.ACCENT)])
        .override_by_name(
            "Contenedores",
            [
                p.fixed(p.USED),
                p.prop("custom.axisPlacement", "right"),
                p.prop("custom.axisLabel", "contenedores"),
                p.prop("custom.lineInterpolation", "stepAfter"),
            ],
        ),
        8,
        8,
    )
    grid.add(
        p.bars(
            "Contenedores Eliminados en el Tiempo",
            "Eliminaciones conseguidas en cada intervalo (suma de deleted_count). Un intervalo con "
            "ticks y sin eliminaciones vale 0; sin ticks no hay barra.",
            p.series(sql.sums({"Eliminados": "deleted_count"}, levels.HOST)),
        )
        .decimals(0)
        .axis_label("contenedores")
        .override_by_name("Eliminados", [p.fixed(p.BAD)]),
        8,
        8,
    )
    grid.add(
        p.lines(
            "Carga y Presión",
            "Carga media de 1 minuto contra el número de CPU (eje izquierdo), y presión (PSI, "
            "«some», media de 10 s): el tiempo en que algo esperó por CPU o por memoria (eje "
            "derecho). Sin línea: el kernel no publica PSI.",
            p.series(
                sql.averages(
                    {
                        "Carga": sql.mean("load1"),
                        "CPU": sql.highest("cpu_count"),
                        "PSI CPU": sql.mean_known("psi_cpu"),
                        "PSI memoria": sql.mean_known("psi_memory"),
                    }
                )
            ),
        )
        .axis_label("carga")
        .decimals(1)
        .override_by_name("Carga", [p.fixed(p.ACCENT)])
        .override_by_name("CPU", p.dashed(p.TOTAL))
        .override_by_regexp(
            "/^PSI/",
            [
                p.prop("unit", p.PERCENT),
                p.prop("custom.axisPlacement", "right"),
                p.prop("custom.axisLabel", "tiempo en espera"),
                p.prop("custom.axisSoftMax", 10),
            ],
        )
        .override_by_name("PSI CPU", [p.fixed(p.WARN)])
        .override_by_name("PSI memoria", [p.fixed(p.BAD)]),
        8,
        8,
    )
