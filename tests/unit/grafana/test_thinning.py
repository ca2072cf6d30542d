"""Long ranges: few points that are still true, lines that break where there was nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from statistics import mean

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.make_db import make
from tests.unit.grafana.oracle import Rows, Window
from tests.unit.grafana.plugin import Panel, View
from tests.unit.grafana.world import END_MS, Plan

HOUR_MS = 3_600_000
SERIES = [panel for panel in plugin.panels() if panel.query_type == "time series"]

# Rows a process are not kept so long; what breaks their lines is the same.
BROKEN = [panel for panel in SERIES if "huecos" in panel.sql and "pid" not in panel.sql]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A day of containers and ticks with an hour and a half of processes."""
    file = tmp_path_factory.mktemp("day") / "metrics.db"
    make(file, Plan(hours=1.5, days=1, processes=30))
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    yield connection
    connection.close()


def named(dashboard: str, title: str) -> Panel:
    (found,) = (
        panel for panel in plugin.panels() if (panel.dashboard, panel.title) == (dashboard, title)
    )
    return found


@pytest.mark.parametrize("span_ms", [6 * HOUR_MS, 24 * HOUR_MS], ids=["6h", "24h"])
@pytest.mark.parametrize("panel", SERIES, ids=str)
def test_a_panel_has_no_more_points_than_it_asks_for(
    panel: Panel, span_ms: int, day: sqlite3.Connection
) -> None:
    view = View(END_MS - span_ms, END_MS)
    interval = panel.interval(view)

    points = plugin.by_point(plugin.ask(day, panel.sql, view, interval), interval)

    # The interval is rounded, at most by half; the range may begin within one.
    assert max(map(len, points.values()), default=0) <= panel.max_data_points * 1.5 + 1


def test_containers_that_come_each_minute_are_neither_always_nor_never_there(
    day: sqlite3.Connection,
) -> None:
    # The generator fills up to ten each minute, the pass of the same tick takes five away: a view
    # that always looks at the same second of a minute sees all of them, or none.
    view = View(END_MS - 24 * HOUR_MS, END_MS)
    panel = named("monitor-de-contenedores", "Uso de RAM en el Tiempo")
    interval = panel.interval(view)
    window = Window(Rows.of(day), view, interval)
    ticks = [row for row in window.metrics if row["container_count"] is not None]
    truth = sum(row["held_mb"] for row in window.shown(window.all.totals)) / len(ticks)

    points = plugin.by_point(plugin.ask(day, panel.sql, view, interval), interval)

    heights: dict[int, float] = {}
    for values in points.values():
        for point, value in values.items():
            heights[point] = heights.get(point, 0.0) + value
    assert mean(heights.values()) == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("panel", BROKEN, ids=str)
def test_a_line_breaks_where_the_agent_did_not_run(panel: Panel, day: sqlite3.Connection) -> None:
    # 40 to 46 percent of the history have no ticks.
    begin, length = END_MS - 24 * HOUR_MS, 24 * HOUR_MS
    view = View(begin + int(length * 0.35), begin + int(length * 0.55))
    interval = panel.interval(view)
    frame = plugin.ask(day, panel.sql, view, interval)
    breaks = [
        at for points in plugin.series(frame).values() for at, value in points if value is None
    ]

    after_last = begin + int(length * 0.40)
    assert any(after_last <= at * 1000 <= after_last + 2 * interval + 30_000 for at in breaks)
    inside = (begin + int(length * 0.41), begin + int(length * 0.459))
    for points in plugin.series(frame).values():
        assert not [
            at for at, value in points if value is not None and inside[0] < at * 1000 < inside[1]
        ]


@pytest.mark.parametrize(
    "title",
    ["Uso de RAM en el Tiempo", "Uso de CPU en el Tiempo", "Reparto de la CPU en el Tiempo"],
)
def test_a_docker_that_does_not_answer_is_a_break_and_no_zero(
    title: str, day: sqlite3.Connection
) -> None:
    begin, length = END_MS - 24 * HOUR_MS, 24 * HOUR_MS
    view = View(begin + int(length * 0.69), begin + int(length * 0.74))
    panel = named("monitor-de-contenedores", title)
    interval = panel.interval(view)

    frame = plugin.ask(day, panel.sql, view, interval)

    away = (begin + int(length * 0.702), begin + int(length * 0.728))
    inside = [
        value
        for points in plugin.series(frame).values()
        for at, value in points
        if away[0] < at * 1000 < away[1]
    ]
    assert inside
    assert set(inside) == {None}


def test_the_source_is_told_for_every_time_and_a_stopped_agent_has_none(
    day: sqlite3.Connection,
) -> None:
    panel = named("monitor-de-sistema", "Fuente en el Tiempo")
    view = View(END_MS - 24 * HOUR_MS, END_MS)

    frame = plugin.ask(day, panel.sql, view, panel.interval(view))

    words = [word for _, word in frame.rows]
    changes = [word for place, word in enumerate(words) if place == 0 or word != words[place - 1]]
    assert changes == ["modules", "sin-ticks", "modules", "psutil", "modules"]


@pytest.mark.parametrize(
    ("ticks_s", "marks"),
    [
        # A regular rhythm; a stop of a minute; a quick restart; a late tick that is made up for.
        ([0, 20, 40, 60, 80, 100], []),
        ([0, 20, 40, 100, 120, 140], [(40, 100)]),
        ([0, 20, 40, 45, 65, 85], [(40, 45)]),
        ([0, 20, (54, 14), 60, 80, 100], []),
        ([0, 20, (95, 55), (135, 35), 140, 160], []),
    ],
    ids=["regular", "stopped", "restarted", "late", "slow"],
)
def test_a_restart_is_marked_and_a_late_tick_is_not(
    ticks_s: list[int | tuple[int, int]], marks: list[tuple[int, int]]
) -> None:
    """Each tick is its end, or that and how long it took where that was not 0.2 s."""
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp INTEGER, tick_ms INTEGER)"
    )
    connection.execute("CREATE TABLE rollup_until (bucket_ms INTEGER, until INTEGER)")
    connection.execute("CREATE TABLE agent_stops (timestamp INTEGER, until INTEGER)")
    ends = [one if isinstance(one, tuple) else (one, 0.2) for one in ticks_s]
    connection.executemany(
        "INSERT INTO metrics (timestamp, tick_ms) VALUES (?, ?)",
        [
            (END_MS + 1000 * at, 1000 * took)
            for at, took in (*((at, 0.2) for at in range(-400, 0, 20)), *ends)
        ],
    )
    (mark,) = (
        one
        for one in plugin.load("monitor-de-sistema")["annotations"]["list"]
        if one["name"] == "Reinicios del agente"
    )
    view = View(END_MS - 400_000, END_MS + 400_000)

    rows = connection.execute(view.expand(mark["target"]["rawQueryText"], 1000)).fetchall()

    assert [(row[0] - END_MS / 1000, row[1] - END_MS / 1000) for row in rows] == marks
    connection.close()
