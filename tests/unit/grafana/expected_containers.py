"""The oracle of each panel of the containers' dashboard by its title."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean
from typing import TYPE_CHECKING

from tests.unit.grafana.oracle import Points, Row, Window, average
from tests.unit.grafana.oracle_rows import Table, by_value

if TYPE_CHECKING:
    from collections.abc import Callable


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
        ranked = sorted(((name, figure(one)) for name, one in values.items()), key=by_value)
        return ranked[: window.view.top]

    return reckon


def _list(window: Window) -> Table:
    rows = window.now(window.shown(window.all.totals))
    if not rows:
        return [(_nothing(window), *[None] * 10)]
    found = []
    for row in sorted(rows, key=lambda row: -row["held_mb"]):
        mine = [
            one
            for one in window.now(window.all.stats)
            if one["container_id"] == row["container_id"]
        ]
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
            names = ("container_id", "container_name", "parent_name", "process_name")
            sums.setdefault(tuple(row[name] for name in names), []).append(row)
    if not sums:
        return [("Ninguno en este rango", *[None] * 5)]
    found = []
    for (_, container, parent, name), rows in sums.items():
        peaks = [row["peak_rss_mb"] for row in rows if row["peak_rss_mb"] is not None]
        found.append(
            (
                container, name, parent, sum(row["count"] for row in rows),
                sum(row["cpu_ms"] for row in rows), max(peaks, default=None),
            )
        )  # fmt: skip
    return sorted(found, key=lambda row: (-row[4], row[0], row[2], row[1]))[:50]


def _inside(window: Window) -> Table:
    tiers = {row["container_id"]: row["tier"] for row in window.now(window.all.totals)}
    chosen = window.view.chosen.get("contenedor")
    rows = [
        row
        for row in window.now(window.all.stats)
        if (chosen is None or row["container_id"] in chosen)
        and tiers.get(row["container_id"], "none") in window.view.tiers
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
