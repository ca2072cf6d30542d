"""A panel's answer held against its oracle's, on any database: made by rule, or by the agent."""

from __future__ import annotations

import sqlite3

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.expected import ORACLES
from tests.unit.grafana.oracle import Points, Rows, Window
from tests.unit.grafana.plugin import Frame, Panel, View

SORTED_BY = {
    "Procesos más Activos": 1,
    "RAM Retenida por Contenedor": 1,
    "CPU por Contenedor": 1,
    "Lista de Contenedores": 4,
    "Lista de Procesos": 3,
    "Registro de Eliminaciones": 0,
    "Procesos de Vida Corta": 4,
}
"""Columns that give a table its order."""


def check(
    panel: Panel, connection: sqlite3.Connection, rows: Rows, view: View, interval: int = 0
) -> None:
    interval = interval or panel.interval(view)
    frame = plugin.ask(connection, panel.sql, view, interval)
    compare(panel, frame, Window(rows, view, interval))


def compare(panel: Panel, frame: Frame, window: Window) -> None:
    """Holds an answer against the oracle's for a window."""
    interval = window.interval
    expected = ORACLES[panel.dashboard][panel.title](window)
    if isinstance(expected, dict):
        compare_points(plugin.by_point(frame, interval), expected)
    elif panel.kind == "state-timeline":
        assert [
            (int(at * 1000) // interval, word) for at, word in frame.rows if word != "sin-ticks"
        ] == expected
    else:
        compare_rows(frame, expected)
        if panel.kind == "bargauge":
            assert [row[0] for row in frame.rows] == [row[0] for row in expected]
        if panel.title in SORTED_BY:
            place = SORTED_BY[panel.title]
            assert [row[place] for row in frame.rows] == pytest.approx(
                [row[place] for row in expected]
            )


def compare_points(found: Points, expected: Points) -> None:
    assert {name for name in found if found[name]} == {name for name in expected if expected[name]}
    for name, points in expected.items():
        assert found[name] == pytest.approx(points, rel=1e-9, abs=1e-9), name


def compare_rows(frame: Frame, expected: list[tuple[object, ...]]) -> None:
    assert len(frame.rows) == len(expected)
    for found, wanted in zip(sorted(frame.rows, key=repr), sorted(expected, key=repr), strict=True):
        assert len(found) == len(wanted)
        for cell, value in zip(found, wanted, strict=True):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert cell == pytest.approx(value, rel=1e-9, abs=1e-9)
            else:
                assert cell == value
