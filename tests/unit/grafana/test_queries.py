"""Every panel shows the right numbers, by an oracle that reckons them from the rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.compare import check
from tests.unit.grafana.expected import ORACLES
from tests.unit.grafana.make_db import make
from tests.unit.grafana.oracle import Rows
from tests.unit.grafana.plugin import Panel, View
from tests.unit.grafana.world import END_MS, TICK_MS, Plan

PANELS = list(plugin.panels())
HOURS = 1.25
WINDOW_MS = 15 * 60_000
"""So short that no panel leaves a tick out."""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    file = tmp_path_factory.mktemp("history") / "metrics.db"
    make(file, Plan(hours=HOURS, processes=60))
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def rows(history: sqlite3.Connection) -> Rows:
    return Rows.of(history)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """Ticks of a host without a single container."""
    file: Path = tmp_path_factory.mktemp("empty") / "metrics.db"
    make(file, Plan(hours=0.25, processes=30, incidents=False, governed=False))
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    yield connection
    connection.close()


def windows() -> list[View]:
    """The whole history in pieces: with a restart, without Docker, without modules."""
    begin = END_MS - int(HOURS * 3_600_000)
    return [
        View(start, start + WINDOW_MS) for start in range(begin, END_MS - WINDOW_MS + 1, WINDOW_MS)
    ]


def looks_at_one_tick(panel: Panel) -> bool:
    """Whether its points are single ticks out of many, once there are many."""
    return "tics" in panel.sql and (
        "deletions" not in panel.sql and "/ 8)" not in panel.sql and "sumas" not in panel.sql
    )


@pytest.mark.parametrize("view", windows(), ids=lambda view: f"from{view.from_ms}")
@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_shows_what_the_rows_say(
    panel: Panel, view: View, history: sqlite3.Connection, rows: Rows
) -> None:
    check(panel, history, rows, view)


@pytest.mark.parametrize("panel", [one for one in PANELS if not looks_at_one_tick(one)], ids=str)
def test_a_point_of_several_ticks_is_their_mean_their_worst_or_their_sum(
    panel: Panel, history: sqlite3.Connection, rows: Rows
) -> None:
    view = View(END_MS - int(HOURS * 3_600_000), END_MS)

    check(panel, history, rows, view, interval=120_000)


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_shows_only_what_the_variables_choose(
    panel: Panel, history: sqlite3.Connection, rows: Rows
) -> None:
    last = [row for row in rows.totals if row["timestamp"] == rows.totals[-1]["timestamp"]]
    chosen = tuple(row["container_id"] for row in last[1:4])
    pids = tuple(str(row["pid"]) for row in rows.processes[-6:-2])
    view = View(
        END_MS - WINDOW_MS,
        END_MS,
        {"contenedor": chosen, "proceso": pids},
        tiers=("low", "none"),
        top=3,
    )

    check(panel, history, rows, view)


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_nothing_there_is_a_figure_or_a_word_and_not_an_empty_panel(
    panel: Panel, empty: sqlite3.Connection
) -> None:
    view = View(END_MS - WINDOW_MS, END_MS)

    frame = plugin.ask(empty, panel.sql, view, panel.interval(view))

    if panel.title.endswith("de sus Procesos en el Tiempo"):
        # No row a process: the panel's own words say that there is no detail.
        assert frame.rows == ()
        return
    check(panel, empty, Rows.of(empty), view)
    assert frame.rows


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_range_without_ticks_shows_nothing_at_all(
    panel: Panel, history: sqlite3.Connection
) -> None:
    view = View(END_MS + 86_400_000, END_MS + 2 * 86_400_000)

    frame = plugin.ask(history, panel.sql, view, panel.interval(view))

    if panel.title == "Último Tick":
        ((state, age_s, _source),) = frame.rows
        assert state == "detenido"
        assert age_s > 2 * 86_400 - TICK_MS
    elif panel.title == "Eliminados":
        assert frame.rows[0][0] is None
    elif panel.kind == "timeseries" or frame.rows:
        assert not [row for row in frame.rows if any(cell is not None for cell in row[1:])]


def test_every_panel_has_an_oracle() -> None:
    known = {(name, title) for name, oracles in ORACLES.items() for title in oracles}

    assert {(panel.dashboard, panel.title) for panel in PANELS} == known
