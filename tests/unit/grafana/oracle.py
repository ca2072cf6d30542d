"""What each panel should show, reckoned in plain Python over the rows of the database.

Nothing here knows the panels' SQL. Rows are read whole, table by table; a window is short enough
for every tick in it to be looked at, so the answers are exact.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from tests.unit.grafana.plugin import View

Row = dict[str, Any]
Points = dict[str, dict[int, float]]


def read(connection: sqlite3.Connection, table: str) -> list[Row]:
    cursor = connection.execute(f"SELECT * FROM {table} ORDER BY id")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


@dataclass(frozen=True)
class Rows:
    """The whole database."""

    metrics: list[Row]
    totals: list[Row]
    stats: list[Row]
    processes: list[Row]
    deletions: list[Row]
    checks: list[Row]
    kills: list[Row]
    short_lived: list[Row]

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Rows:
        found = cls(
            read(connection, "metrics"),
            read(connection, "container_totals"),
            read(connection, "container_stats"),
            read(connection, "process_stats"),
            read(connection, "deletions"),
            read(connection, "attribution_checks"),
            read(connection, "oom_kills"),
            read(connection, "short_lived"),
        )
        found._name_engines()
        return found

    def _name_engines(self) -> None:
        """Of several engines, each container is called by its own: names may be equal."""
        if len({row["engine"] for row in self.totals}) < 2:
            return
        for table in (self.totals, self.stats, self.deletions, self.kills, self.short_lived):
            for row in table:
                if row["container_name"]:
                    row["container_name"] = f"{row['engine']}: {row['container_name']}"


@dataclass(frozen=True)
class Window:
    """The rows that somebody looks at, at one panel's interval."""

    all: Rows
    view: View
    interval: int
    bucket: int = 0
    """Of the level that is read, in milliseconds; 0 where it is ticks."""

    def answered(self, ticks: list[Row]) -> bool:
        """Whether Docker answered at a point: at its first tick, or at any of its buckets."""
        known = [row["container_count"] is not None for row in ticks]
        return any(known) if self.bucket else known[0]

    def within(self, rows: Iterable[Row]) -> list[Row]:
        return [row for row in rows if self.view.from_ms <= row["timestamp"] <= self.view.to_ms]

    def shown(self, rows: Iterable[Row]) -> list[Row]:
        """Those of the chosen containers and tiers, within the range."""
        chosen = self.view.chosen.get("contenedor")
        return [
            row
            for row in self.within(rows)
            if (chosen is None or row["container_id"] in chosen)
            and row.get("tier", "none") in self.view.tiers
        ]

    @cached_property
    def metrics(self) -> list[Row]:
        return self.within(self.all.metrics)

    @property
    def last(self) -> Row:
        return self.metrics[-1]

    def now(self, rows: Iterable[Row]) -> list[Row]:
        return [row for row in rows if row["timestamp"] == self.last["timestamp"]]

    def point(self, timestamp: int) -> int:
        return int(timestamp) // self.interval

    def grouped(self, rows: Iterable[Row]) -> dict[int, list[Row]]:
        groups: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            groups[self.point(row["timestamp"])].append(row)
        return groups

    def reckon(self, rows: Iterable[Row], **columns: Callable[[list[Row]], float | None]) -> Points:
        """Each column by point; a function that gives None leaves the point out."""
        found: Points = {name.replace("_", " "): {} for name in columns}
        for point, group in self.grouped(rows).items():
            for name, function in columns.items():
                value = function(group)
                if value is not None:
                    found[name.replace("_", " ")][point] = value
        return found

    def counted(self, rows: Iterable[Row], **columns: Callable[[Row], float]) -> Points:
        """Sums by point, 0 at a point that has ticks and no rows."""
        groups = self.grouped(rows)
        points = set(self.grouped(self.metrics)) | set(groups)
        return {
            name.replace("_", " "): {
                point: sum(function(row) for row in groups.get(point, ())) for point in points
            }
            for name, function in columns.items()
        }

    def stacked(self, rows: list[Row], value: str, keep: int = 12) -> Points:
        """Means over all ticks of a point; the largest by name, the rest together."""
        ticks = self.grouped(self.metrics)
        sums: dict[str, float] = defaultdict(float)
        for row in rows:
            sums[row["container_name"]] += row[value]
        folded = sums.pop("(otros)", None) is not None
        names = sorted(sums, key=lambda name: (-sums[name], name))
        large = set(names[:keep])
        found: Points = defaultdict(dict)
        groups = self.grouped(rows)
        for point, at in ticks.items():
            group = groups.get(point, [])
            if not group:
                if self.answered(at):
                    found["ninguno"][point] = 0.0
                continue
            if folded or len(names) > keep:
                found["(otros)"][point] = 0.0
            for row in group:
                name = row["container_name"] if row["container_name"] in large else "(otros)"
                found[name][point] = found[name].get(point, 0.0) + row[value] / len(at)
        return dict(found)

    def largest(self, rows: list[Row], value: str, name: str, keep: int) -> Points:
        """Means over the ticks where a process is, for those with the largest sums."""
        sums: dict[int, float] = defaultdict(float)
        for row in rows:
            sums[row["pid"]] += row[value]
        large = set(sorted(sums, key=lambda pid: (-sums[pid], pid))[:keep])
        cells: dict[tuple[str, int], list[float]] = defaultdict(list)
        for row in rows:
            if row["pid"] in large:
                label = f"{row[name]} ({row['pid']})"
                cells[label, self.point(row["timestamp"])].append(row[value])
        found: Points = defaultdict(dict)
        for (label, point), values in cells.items():
            found[label][point] = mean(values)
        return dict(found)


def average(column: str) -> Callable[[list[Row]], float | None]:
    def reckon(group: list[Row]) -> float | None:
        values = [row[column] for row in group if row[column] is not None]
        return mean(values) if values else None

    return reckon


def highest(column: str) -> Callable[[list[Row]], float | None]:
    def reckon(group: list[Row]) -> float | None:
        values = [row[column] for row in group if row[column] is not None]
        return max(values) if values else None

    return reckon


def total(column: str) -> Callable[[list[Row]], float | None]:
    return lambda group: sum(row[column] for row in group)
