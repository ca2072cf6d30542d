"""Two engines with containers of one name, and of one id, are two in every panel."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.compare import check, compare
from tests.unit.grafana.make_db import close_buckets, make
from tests.unit.grafana.oracle import Rows, Window
from tests.unit.grafana.plugin import Panel, View
from tests.unit.grafana.test_levels import HOUR_MS, folded, forced
from tests.unit.grafana.world import END_MS, Plan
from tests.unit.store.buckets import LENGTHS

HOURS = 26
PANELS = [panel for panel in plugin.panels() if "motores" in panel.sql]
ROLLED = [panel for panel in PANELS if "de_1h" in panel.sql]
TWINS = {f"{engine}: {name}" for engine in ("docker", "podman") for name in
         ("grafana_so1", "base-de-datos")}  # fmt: skip


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    file = tmp_path_factory.mktemp("engines") / "metrics.db"
    make(file, Plan(hours=HOURS, processes=25, tick_ms=60_000, twins=True))
    close_buckets(file)
    connection = sqlite3.connect(file)
    with connection:
        for table in ("deletions", "oom_kills"):
            connection.execute(f"UPDATE {table} SET engine = 'podman' WHERE id % 3 = 0")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def rows(history: sqlite3.Connection) -> Rows:
    return Rows.of(history)


def test_every_panel_that_names_containers_is_looked_at() -> None:
    assert {one.title for one in plugin.panels() if "container_name" in one.sql} == {
        one.title for one in PANELS
    }
    assert len(PANELS) > 8


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_equal_names_of_two_engines_are_two(
    panel: Panel, history: sqlite3.Connection, rows: Rows
) -> None:
    check(panel, history, rows, View(END_MS - HOUR_MS, END_MS))


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_container_keeps_its_name_where_only_one_engines_are_chosen(
    panel: Panel, history: sqlite3.Connection, rows: Rows
) -> None:
    chosen = ("77aa00c4e6f1",)
    view = View(END_MS - HOUR_MS, END_MS, {"contenedor": chosen})
    check(panel, history, rows, view)


@pytest.mark.parametrize("level", LENGTHS)
@pytest.mark.parametrize("panel", ROLLED, ids=str)
def test_buckets_keep_two_engines_apart(
    panel: Panel, level: str, history: sqlite3.Connection, rows: Rows
) -> None:
    view = View(END_MS - HOURS * HOUR_MS, END_MS)
    length = LENGTHS[level]
    interval = max(panel.interval(view), length)
    frame = plugin.ask(history, forced(panel.sql, level), view, panel.interval(view))
    whole = View(view.from_ms // length * length, END_MS)
    compare(panel, frame, Window(folded(history, rows, level), whole, interval, length))
    shown = {word for row in frame.rows for word in row if isinstance(word, str)}
    assert len(TWINS & shown) >= 2


def test_the_variable_has_both(history: sqlite3.Connection) -> None:
    (variable,) = (
        one
        for one in plugin.load("monitor-de-contenedores")["templating"]["list"]
        if one["type"] == "query"
    )
    view = View(END_MS - HOUR_MS, END_MS)
    found = history.execute(view.expand(variable["query"], 1000)).fetchall()

    assert {row[0] for row in found} >= TWINS


@pytest.mark.parametrize("name", ["Eliminaciones", "Muertes por falta de memoria"])
def test_marks_name_the_engine(name: str, history: sqlite3.Connection) -> None:
    marks = plugin.load("monitor-de-contenedores")["annotations"]["list"]
    texts = {mark["name"]: mark["target"]["rawQueryText"] for mark in marks}
    view = View(END_MS - HOURS * HOUR_MS, END_MS)
    found = " ".join(row[-2] for row in history.execute(view.expand(texts[name], 1000)))

    assert "podman: so1_contenedor" in found
    assert "docker: so1_contenedor" in found


def test_an_engine_that_is_gone_from_the_last_tick_is_still_told_apart(
    history: sqlite3.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "later.db"
    later = sqlite3.connect(file)
    history.backup(later)
    last = later.execute("SELECT max(timestamp) FROM metrics").fetchone()
    later.execute("DELETE FROM container_totals WHERE timestamp = ? AND engine = 'podman'", last)
    (panel,) = (one for one in PANELS if one.title == "RAM Retenida por Contenedor")
    view = View(END_MS - HOUR_MS, END_MS)

    shown = plugin.ask(later, panel.sql, view, panel.interval(view)).rows

    later.close()
    assert shown
    assert all(str(row[0]).startswith("docker: ") for row in shown)
