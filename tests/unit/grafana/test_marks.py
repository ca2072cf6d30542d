"""The marks of OOM kills say who died, whose it was, and who had grown."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.make_db import make
from tests.unit.grafana.oracle import Rows
from tests.unit.grafana.plugin import View
from tests.unit.grafana.world import END_MS, Plan


@pytest.mark.parametrize("name", plugin.NAMES)
def test_each_kill_of_the_range_has_a_mark(name: str, tmp_path: Path) -> None:
    make(tmp_path / "metrics.db", Plan(hours=1.25, processes=20))
    connection = sqlite3.connect(tmp_path / "metrics.db")
    kills = Rows.of(connection).kills
    assert kills
    half = kills[len(kills) // 2]["timestamp"]
    marks = {one["name"]: one for one in plugin.load(name)["annotations"]["list"]}
    query = marks["Muertes por falta de memoria"]["target"]["rawQueryText"]

    found = connection.execute(View(half, END_MS).expand(query, 1000)).fetchall()
    connection.close()

    def text(row: dict[str, object]) -> str:
        grew = f"; creció {row['grower_name']}" if row["grower_pid"] != row["pid"] else ""
        return f"OOM: {row['process_name']} de {row['container_name']}{grew}"

    expected = [row for row in kills if row["timestamp"] >= half][-100:]
    assert [(row[0], row[1]) for row in found] == [
        (pytest.approx(row["timestamp"] / 1000), text(row)) for row in expected
    ]
