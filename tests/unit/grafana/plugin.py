"""How Grafana's browser side and frser-sqlite-datasource 4.0.3 turn a stored query into numbers.

Written from their sources for the tests: variables, the interval of a panel, time columns in
seconds, and the type of a column. It is stricter than the plugin where that is silently wrong: an
integer in a column of numbers is an error here, since a first integer truncates what follows.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).resolve().parents[3] / "grafana" / "dashboards"
NAMES = ("monitor-de-sistema", "monitor-de-contenedores")

# @grafana/data's roundInterval: below the first figure the interval is the second, milliseconds.
_ROUND = (
    (10, 1), (15, 10), (35, 20), (75, 50), (150, 100), (350, 200), (750, 500), (1500, 1000),
    (3500, 2000), (7500, 5000), (12_500, 10_000), (17_500, 15_000), (25_000, 20_000),
    (45_000, 30_000), (90_000, 60_000), (210_000, 120_000), (450_000, 300_000),
    (750_000, 600_000), (1_050_000, 900_000), (1_500_000, 1_200_000), (2_700_000, 1_800_000),
    (5_400_000, 3_600_000), (9_000_000, 7_200_000), (16_200_000, 10_800_000),
    (32_400_000, 21_600_000), (86_400_000, 43_200_000), (604_800_000, 86_400_000),
    (1_814_400_000, 604_800_000), (3_628_800_000, 2_592_000_000),
)  # fmt: skip
_WIDTH_PX = 1500
"""A panel without `maxDataPoints` asks for as many points as it is wide."""
_LEAST_MS = 1000
"""Every panel's `interval` is 1s."""


def interval_ms(span_ms: int, points: int) -> int:
    """`$__interval_ms` of a panel that shows `span_ms` in at most `points`."""
    raw = span_ms / points
    return max(_LEAST_MS, next(rounded for limit, rounded in _ROUND if raw < limit))


@dataclass(frozen=True)
class View:
    """What somebody looks at: a time range and the values of the variables."""

    from_ms: int
    to_ms: int
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """`contenedor` and `proceso` by value; all where absent."""
    tiers: tuple[str, ...] = ("low", "high", "none")
    top: int = 5

    def expand(self, sql: str, interval: int) -> str:
        """The query as it reaches the plugin's backend."""
        values = {
            "__from": str(self.from_ms),
            "__to": str(self.to_ms),
            "__interval_ms": str(interval),
            "top": str(self.top),
        }
        lists = {"nivel": ",".join(_quoted(tier) for tier in self.tiers)}
        for name in ("contenedor", "proceso"):
            # The custom value of «All» goes in as it is written, without a format.
            lists[name] = (
                ",".join(map(_quoted, self.chosen[name])) if name in self.chosen else "'*'"
            )
        sql = re.sub(r"\$\{(\w+):sqlstring\}", lambda match: lists[match[1]], sql)
        return re.sub(r"\$(\w+)", lambda match: values[match[1]], sql)


def _quoted(value: str) -> str:
    # Grafana's sqlstring: quotes doubled, and a backslash before a double quote.
    return "'" + value.replace("'", "''").replace('"', '\\"') + "'"


@dataclass(frozen=True)
class Panel:
    """One panel's query, as stored."""

    dashboard: str
    id: int
    title: str
    kind: str
    sql: str
    query_type: str
    time_columns: tuple[str, ...]
    max_data_points: int

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title}"

    def interval(self, view: View) -> int:
        return interval_ms(view.to_ms - view.from_ms, self.max_data_points)


@dataclass(frozen=True)
class Frame:
    """The plugin's answer before it is split into series."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def raw_panels(name: str) -> list[dict[str, Any]]:
    """All panels that ask something."""
    return [panel for panel in load(name)["panels"] if panel["type"] != "row"]


def panels() -> Iterator[Panel]:
    for name in NAMES:
        for raw in raw_panels(name):
            (target,) = raw["targets"]
            yield Panel(
                name,
                raw["id"],
                raw["title"],
                raw["type"],
                target["rawQueryText"],
                target["queryType"],
                tuple(target["timeColumns"]),
                int(raw.get("maxDataPoints") or _WIDTH_PX),
            )


def ask(connection: sqlite3.Connection, sql: str, view: View, interval: int) -> Frame:
    """Runs a query as the backend does. Columns called `time…` become seconds since the epoch."""
    cursor = connection.execute(view.expand(sql, interval))
    columns = tuple(column[0] for column in cursor.description)
    rows = tuple(cursor.fetchall())
    assert len(set(columns)) == len(columns), f"two columns have one name: {columns}"
    for place, column in enumerate(columns):
        kinds = {type(row[place]) for row in rows} - {type(None)}
        assert kinds <= {float} or kinds <= {str}, f"column {column} mixes or truncates: {kinds}"
    return Frame(columns, rows)


def series(frame: Frame) -> dict[str, list[tuple[float, float | None]]]:
    """The frame as the plugin splits a `time series`: by column, or by the label beside the value.

    Fails where the plugin would: times that are missing or fall, no value, two values at once.
    """
    time = frame.columns.index("time")
    times = [row[time] for row in frame.rows]
    assert all(isinstance(one, float) for one in times), "a time is missing"
    assert times == sorted(times), "times fall"
    found: dict[str, list[tuple[float, float | None]]] = {}
    if "metric" in frame.columns:
        label, value = frame.columns.index("metric"), frame.columns.index("value")
        for row in frame.rows:
            found.setdefault(row[label], []).append((row[time], row[value]))
        for name, points in found.items():
            at = [point[0] for point in points]
            assert len(set(at)) == len(at), f"{name} has two values at one time"
        return found
    for place, column in enumerate(frame.columns):
        if place != time:
            found[column] = [(row[time], row[place]) for row in frame.rows]
    return found


def by_point(frame: Frame, interval: int) -> dict[str, dict[int, float]]:
    """Each series' values by number of interval since the epoch, without the breaks."""
    return {
        name: {round(at * 1000) // interval: value for at, value in points if value is not None}
        for name, points in series(frame).items()
    }
