"""A database that was merged by hand, where ids do not rise with time: the same answers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.make_db import make
from tests.unit.grafana.plugin import Panel, View
from tests.unit.grafana.world import END_MS, Plan

SPAN_MS = 3_600_000
TABLES = (
    *("metrics", "container_totals", "container_stats", "process_stats"),
    *("deletions", "attribution_checks", "oom_kills", "short_lived"),
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A history as the agent leaves it, and the same with the older half added after the newer."""
    place = tmp_path_factory.mktemp("ids")
    plain, merged = place / "plain.db", place / "merged.db"
    make(plain, Plan(hours=1, processes=12))
    merged.write_bytes(plain.read_bytes())
    connection = sqlite3.connect(merged)
    with connection:
        for table in TABLES:
            connection.execute(
                f"UPDATE {table} SET id = id + 10000000 WHERE timestamp < ?",
                (END_MS - SPAN_MS // 2,),
            )
    connection.close()
    return plain, merged


@pytest.mark.parametrize("panel", plugin.panels(), ids=str)
def test_a_panel_shows_the_same_where_ids_do_not_rise_with_time(
    panel: Panel, both: tuple[Path, Path]
) -> None:
    view = View(END_MS - SPAN_MS, END_MS)
    answers = []
    for path in both:
        connection = sqlite3.connect(path)
        text = view.expand(panel.sql, panel.interval(view))
        answers.append(connection.execute(text).fetchall())
        connection.close()
    assert answers[1] == answers[0]
