"""The oracle of each panel of the host's dashboard by its title."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.unit.grafana.oracle import Points, Window, average, highest, total
from tests.unit.grafana.oracle_rows import Table, by_value

if TYPE_CHECKING:
    from collections.abc import Callable


def _figures(*columns: str) -> Callable[[Window], Table]:
    return lambda window: [tuple(window.last[column] for column in columns)]


def _used(window: Window) -> Table:
    last = window.last
    whole = last["total_ram"]
    return [(last["used_ram"] * 100 / whole, (whole - last["available_ram"]) * 100 / whole)]


def _removed(window: Window) -> Table:
    return [
        (
            sum(row["deleted_count"] for row in window.metrics),
            sum(row["deleted_count"] for row in window.all.metrics),
        )
    ]


def _agent(window: Window) -> Table:
    age_s = (window.view.to_ms - window.last["timestamp"]) / 1000
    seen = [row for row in window.all.metrics if row["timestamp"] <= window.view.to_ms]
    times = [row["timestamp"] for row in seen[-9:]]
    between = sorted(after - before for before, after in pairwise(times))
    usual_s = between[len(between) // 2] / 1000 if between else 20.0
    late = age_s > 2 * usual_s + 5
    state = "detenido" if age_s > 6 * usual_s + 5 else "atrasado" if late else "al-dia"
    return [(state, age_s, window.last["source"])]


def _ranking(column: str) -> Callable[[Window], Table]:
    def reckon(window: Window) -> Table:
        rows = sorted(window.now(window.all.processes), key=lambda row: (-row[column], row["pid"]))
        return [(f"{row['name']} ({row['pid']})", row[column]) for row in rows[: window.view.top]]

    return reckon


def _active(window: Window) -> Table:
    rows = window.within(window.all.processes)
    ticks = len({row["timestamp"] for row in rows})
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        sums[f"{row['name']} ({row['pid']})"] += row["cpu_usage"]
    ranked = sorted(((name, cpu / ticks) for name, cpu in sums.items()), key=by_value)
    return ranked[: max(8, window.view.top)]


def _sources(window: Window) -> Table:
    """The worst source of each point; what the gaps add is tested apart."""
    found = []
    for point, group in sorted(window.grouped(window.metrics).items()):
        found.append((point, max(row["source"] for row in group)))
    return found


def _processes(column: str) -> Callable[[Window], Points]:
    def reckon(window: Window) -> Points:
        chosen = window.view.chosen.get("proceso")
        rows = [
            row
            for row in window.within(window.all.processes)
            if chosen is None or str(row["pid"]) in chosen
        ]
        return window.largest(rows, column, "name", window.view.top)

    return reckon


def _losses(window: Window) -> Table:
    rows = window.within(window.all.checks)
    columns = ("events_lost", "events_missed", "events_corrected", "events_late")
    return [tuple(sum(row[column] for row in rows) for column in columns)]


def _cases(window: Window) -> Points:
    return window.reckon(
        window.within(window.all.checks),
        Añadidos=highest("added"),
        Extraviados=highest("strayed"),
        Movidos=highest("moved"),
        Eventos_perdidos=total("events_lost"),
    )


SYSTEM: dict[str, Callable[[Window], Table | Points]] = {
    "CPU": _figures("cpu_usage"),
    "RAM Usada": _used,
    "RAM Ahora": _figures("total_ram", "used_ram", "free_ram", "available_ram"),
    "Contenedores y Procesos": _figures("container_count", "process_count"),
    "Eliminados": _removed,
    "Último Tick": _agent,
    "Uso de RAM en el Tiempo": lambda window: window.reckon(
        window.metrics,
        Usada=average("used_ram"),
        Libre=average("free_ram"),
        Disponible=average("available_ram"),
        Total=highest("total_ram"),
    ),
    "Uso de CPU en el Tiempo": lambda window: window.reckon(
        window.metrics, Máximo=highest("cpu_usage"), Media=average("cpu_usage")
    ),
    "Procesos y Contenedores en el Tiempo": lambda window: window.reckon(
        window.metrics, Procesos=average("process_count"), Contenedores=average("container_count")
    ),
    "Contenedores Eliminados en el Tiempo": lambda window: window.counted(
        window.metrics, Eliminados=lambda row: row["deleted_count"]
    ),
    "Carga y Presión": lambda window: window.reckon(
        window.metrics,
        Carga=average("load1"),
        CPU=highest("cpu_count"),
        PSI_CPU=average("psi_cpu"),
        PSI_memoria=average("psi_memory"),
    ),
    "Top $top Procesos por RAM": _ranking("ram_usage"),
    "Top $top Procesos por CPU": _ranking("cpu_usage"),
    "Procesos más Activos": _active,
    "RAM de los Procesos en el Tiempo": _processes("ram_usage"),
    "CPU de los Procesos en el Tiempo": _processes("cpu_usage"),
    "Atribución Ahora": lambda window: [
        (
            *(window.now(window.all.checks)[0][one] for one in ("agree", "conflict", "unverified")),
            "armada",
        )
    ],
    "Verificación en el Tiempo": lambda window: window.reckon(
        window.within(window.all.checks),
        Coinciden=average("agree"),
        Sin_verificar=average("unverified"),
        En_conflicto=highest("conflict"),
    ),
    "Casos Especiales en el Tiempo": _cases,
    "Registro de BPF en el Rango": _losses,
    "Fuente en el Tiempo": _sources,
    "Duración de los Ticks": lambda window: window.reckon(
        window.metrics, Máximo=highest("tick_ms"), Media=average("tick_ms")
    ),
}
