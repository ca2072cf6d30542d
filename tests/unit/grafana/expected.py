"""The oracle of each panel by its title: rows for a table, points for a time series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from statistics import mean
from typing import Any

from tests.unit.grafana.oracle import Points, Row, Window, average, highest, total

Table = list[tuple[Any, ...]]


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
    ranked = sorted(((name, cpu / ticks) for name, cpu in sums.items()), key=_by_value)
    return ranked[: max(8, window.view.top)]


def _by_value(pair: tuple[str, float]) -> tuple[float, str]:
    return (-round(pair[1], 9), pair[0])


def _sources(window: Window) -> Table:
    """The worst source of each point; what the gaps add is tested apart."""
    found = []
    for point, group in sorted(window.grouped(window.metrics).items()):
        found.append((point, max(row["source"] for row in group)))
    return found


def _of_host(window: Window) -> Table:
    rows = window.now(window.shown(window.all.totals))
    last = window.last
    return [
        (
            sum(row["held_mb"] for row in rows) * 1024 * 100 / last["total_ram"],
            sum(row["cpu_usage"] for row in rows) / last["cpu_count"],
        )
    ]


def _memory_now(window: Window) -> Table:
    rows = window.now(window.shown(window.all.totals))
    return [
        tuple(sum(row[one] or 0.0 for row in rows) for one in ("held_mb", "rss_mb", "cache_mb"))
    ]


def _events(window: Window) -> Table:
    gone = window.shown(window.all.deletions)
    return [
        (
            sum(row["outcome"] == "removed" for row in gone),
            sum(row["outcome"] == "failed" for row in gone),
            sum(row["oom_kills"] or 0 for row in window.shown(window.all.totals)),
        )
    ]


def _verdicts(window: Window) -> Table:
    chosen = window.view.chosen.get("contenedor")
    rows = [
        row
        for row in window.now(window.all.stats)
        if chosen is None or row["container_id"] in chosen
    ]
    return [
        tuple(
            sum(row["verified"] == word for row in rows)
            for word in ("agree", "conflict", "unverified")
        )
    ]


def _nothing(window: Window) -> str:
    if window.last["container_count"] is None:
        return "Docker no respondió"
    if window.now(window.all.totals):
        return "Ningún contenedor con este filtro"
    return "Ningún contenedor"


def _held_now(window: Window) -> Table:
    rows = window.now(window.shown(window.all.totals))
    if not rows:
        return [(_nothing(window), 0.0)]
    ranked = sorted(rows, key=lambda row: -row["held_mb"])
    return [(row["container_name"], row["held_mb"]) for row in ranked[:15]]


def _split(row: Row) -> tuple[float, float, float]:
    short, unexplained = row["cpu_short_lived"] or 0.0, row["cpu_unexplained"] or 0.0
    return row["cpu_usage"] - short - unexplained, short, unexplained


def _shares_now(window: Window) -> Table:
    rows = window.now(window.shown(window.all.totals))
    if not rows:
        return [(_nothing(window), 0.0, 0.0, 0.0)]
    found = [(row["container_name"], *(max(0.0, part) for part in _split(row))) for row in rows]
    return sorted(found, key=lambda row: -row[1])[:15]


def _shares(window: Window) -> Points:
    names = ("Procesos vivos", "Vida corta", "Sin explicar")
    found: Points = {name: {} for name in names}
    groups = window.grouped(window.shown(window.all.totals))
    for point, ticks in window.grouped(window.metrics).items():
        group = groups.get(point, [])
        if not group and not window.answered(ticks):
            continue
        for place, name in enumerate(names):
            # A cost seen before the cgroup was charged for it is negative, and drawn as nothing.
            mean = sum(_split(row)[place] for row in group) / len(ticks)
            found[name][point] = max(0.0, mean)
    return found


def _top(column: str, figure: Callable[[list[float]], float]) -> Callable[[Window], Table]:
    def reckon(window: Window) -> Table:
        values: dict[str, list[float]] = defaultdict(list)
        for row in window.shown(window.all.totals):
            if row["container_id"]:
                values[row["container_name"]].append(row[column])
        if not values:
            return [("Ningún contenedor", 0.0)]
        ranked = sorted(((name, figure(one)) for name, one in values.items()), key=_by_value)
        return ranked[: window.view.top]

    return reckon


def _list(window: Window) -> Table:
    rows = window.now(window.shown(window.all.totals))
    if not rows:
        return [(_nothing(window), *[None] * 10)]
    found = []
    for row in sorted(rows, key=lambda row: -row["held_mb"]):
        mine = [one for one in window.now(window.all.stats) if _key(one) == _key(row)]
        words = {one["verified"] for one in mine}
        verdict = next(
            (word for word in ("conflict", "unverified", "agree") if word in words), "sin-procesos"
        )
        found.append(
            (
                row["container_name"], row["tier"], row["image"], row["processes"],
                row["held_mb"], row["rss_mb"], row["cache_mb"], row["cpu_usage"],
                verdict, sum(one["basis"] != "cgroup" for one in mine), row["container_id"],
            )
        )  # fmt: skip
    return found


def _log(window: Window) -> Table:
    rows = window.shown(window.all.deletions)
    if not rows:
        return [(None, "Ninguna en este rango", *[None] * 13)]
    rows = sorted(rows, key=lambda row: (-row["timestamp"], row["id"]))[:200]
    return [
        (
            row["timestamp"] / 1000, row["container_name"], row["tier"], row["rank"],
            row["reason"], row["rule"], row["action"], row["held_mb"], row["cpu_usage"],
            "left" if row["outcome"] == "gone" and row["error"] else row["outcome"],
            row["duration_ms"], row["available_before_mb"], row["available_after_mb"],
            row["decision"], row["error"],
        )
        for row in rows
    ]  # fmt: skip


def _chosen(window: Window, rows: list[Row]) -> list[Row]:
    """Within the range, of the chosen containers, whatever their tier."""
    chosen = window.view.chosen.get("contenedor")
    return [row for row in window.within(rows) if chosen is None or row["container_id"] in chosen]


def _killed(window: Window) -> Table:
    rows = _chosen(window, window.all.kills)
    if not rows:
        return [(None, "Ninguna en este rango", *[None] * 10)]
    rows = sorted(rows, key=lambda row: (-row["timestamp"], -row["id"]))[:200]
    return [
        (
            row["timestamp"] / 1000, row["container_name"], row["process_name"], row["pid"],
            row["cause"], row["limit_container"], row["limit_mb"],
            None if row["anon_mb"] is None
            else row["anon_mb"] + row["file_mb"] + row["shmem_mb"],
            row["trigger_name"], row["grower_name"], row["grown_mb"], row["witnesses"],
        )
        for row in rows
    ]  # fmt: skip


def _unseen(window: Window) -> Table:
    since = window.last["timestamp"] - 3_600_000
    sums: dict[tuple[str, ...], list[Row]] = {}
    for row in _chosen(window, window.all.short_lived):
        if row["timestamp"] > since:
            names = ("engine", "container_id", "container_name", "parent_name", "process_name")
            sums.setdefault(tuple(row[name] for name in names), []).append(row)
    if not sums:
        return [("Ninguno en este rango", *[None] * 5)]
    found = []
    for (_, _, container, parent, name), rows in sums.items():
        peaks = [row["peak_rss_mb"] for row in rows if row["peak_rss_mb"] is not None]
        found.append(
            (
                container, name, parent, sum(row["count"] for row in rows),
                sum(row["cpu_ms"] for row in rows), max(peaks, default=None),
            )
        )  # fmt: skip
    return sorted(found, key=lambda row: (-row[4], row[0], row[2], row[1]))[:50]


def _key(row: Row) -> tuple[str, str]:
    return row["engine"], row["container_id"]


def _inside(window: Window) -> Table:
    tiers = {_key(row): row["tier"] for row in window.now(window.all.totals)}
    chosen = window.view.chosen.get("contenedor")
    rows = [
        row
        for row in window.now(window.all.stats)
        if (chosen is None or row["container_id"] in chosen)
        and tiers.get(_key(row), "none") in window.view.tiers
    ]
    if not rows:
        return [("Ningún proceso de contenedor", *[None] * 6)]
    rows = sorted(rows, key=lambda row: -row["ram_usage"])
    return [
        (
            row["process_name"], row["pid"], row["container_name"], row["ram_usage"],
            row["cpu_usage"], row["verified"], row["basis"],
        )
        for row in rows
    ]  # fmt: skip


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


def _container_processes(column: str) -> Callable[[Window], Points]:
    def reckon(window: Window) -> Points:
        chosen = window.view.chosen.get("contenedor")
        rows = [
            row
            for row in window.within(window.all.stats)
            if chosen is None or row["container_id"] in chosen
        ]
        return window.largest(rows, column, "process_name", 12)

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


def _reasons(window: Window) -> Points:
    def removed(reason: str) -> Callable[[Row], float]:
        return lambda row: row["outcome"] == "removed" and row["reason"] == reason

    return window.counted(
        window.shown(window.all.deletions),
        Exceso_bajo=removed("excess-low"),
        Exceso_alto=removed("excess-high"),
        Terminados=removed("exited"),
        Al_parar=removed("stop"),
        Fallidos=lambda row: row["outcome"] == "failed",
        Regla_propia=removed("rule"),
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

CONTAINERS: dict[str, Callable[[Window], Table | Points]] = {
    "Contenedores en Marcha": lambda window: window.reckon(
        window.metrics, en_marcha=average("container_count")
    ),
    "RAM Usada y CPU Usada": _of_host,
    "RAM Ahora": _memory_now,
    "Sucesos del Rango": _events,
    "Procesos Verificados": _verdicts,
    "Uso de RAM en el Tiempo": lambda window: window.stacked(
        window.shown(window.all.totals), "held_mb"
    ),
    "RAM Retenida por Contenedor": _held_now,
    "Uso de CPU en el Tiempo": lambda window: window.stacked(
        window.shown(window.all.totals), "cpu_usage"
    ),
    "CPU por Contenedor": _shares_now,
    "Top $top Contenedores por RAM": _top("held_mb", max),
    "Top $top Contenedores por CPU": _top("cpu_usage", mean),
    "Reparto de la CPU en el Tiempo": _shares,
    "Lista de Contenedores": _list,
    "Registro de Eliminaciones": _log,
    "Eliminaciones por Motivo": _reasons,
    "Arranques, Salidas y OOM": lambda window: window.counted(
        window.shown(window.all.totals),
        Arranques=lambda row: row["starts"] or 0,
        Salidas=lambda row: row["exits"] or 0,
        OOM=lambda row: row["oom_kills"] or 0,
    ),
    "Muertes por Falta de Memoria": _killed,
    "Procesos de Vida Corta": _unseen,
    "Lista de Procesos": _inside,
    "RAM de sus Procesos en el Tiempo": _container_processes("ram_usage"),
    "CPU de sus Procesos en el Tiempo": _container_processes("cpu_usage"),
}

ORACLES = {"monitor-de-sistema": SYSTEM, "monitor-de-contenedores": CONTAINERS}
