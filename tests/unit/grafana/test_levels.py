"""Long ranges are read from buckets, and show what the ticks behind these say."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.store import database as sqlite
from grafana.build import levels
from tests.unit.grafana import plugin
from tests.unit.grafana.compare import compare
from tests.unit.grafana.make_db import close_buckets, make
from tests.unit.grafana.oracle import Row, Rows, Window
from tests.unit.grafana.plugin import Panel, View
from tests.unit.grafana.world import END_MS, Plan
from tests.unit.store.buckets import CONTAINER_KEY, LENGTHS, named

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
HOURS = 52
BEGIN_MS = END_MS - HOURS * HOUR_MS
ROLLED = [panel for panel in plugin.panels() if "de_1h" in panel.sql and "pid, c" not in panel.sql]
DETAIL = "de sus Procesos en el Tiempo"
"""Panels of rows that there are no buckets of."""
PANELS = [panel for panel in ROLLED if DETAIL not in panel.title]
LEVELS = list(LENGTHS)


@pytest.fixture(scope="module", params=[10**6, 25], ids=["rolled", "half-way"])
def history(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sqlite3.Connection]:
    """Two days and some hours of a tick a minute; some closed, some not where it is half-way."""
    file = tmp_path_factory.mktemp("levels") / "metrics.db"
    make(file, Plan(hours=HOURS, processes=30, tick_ms=60_000))
    close_buckets(file, request.param)
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def rows(history: sqlite3.Connection) -> Rows:
    return Rows.of(history)


def forced(sql: str, level: str) -> str:
    """The query with bounds that make it read `level`, whatever the range is."""
    wanted = iter(10**15 if one == level else -1 for one in (None, "5m", "1h"))
    pattern = r"(\$__to - desde <= )\d+"
    found, count = re.subn(pattern, lambda match: f"{match[1]}{next(wanted)}", sql)
    assert count == 3
    return found


def folded(connection: sqlite3.Connection, rows: Rows, level: str) -> Rows:
    """The rows of ticks with the names that they have in what is read of them at `level`."""
    until = dict(connection.execute("SELECT bucket_ms, until FROM rollup_until"))
    parts: list[tuple[str, int, int]] = []
    since = 0
    for name in LEVELS[LEVELS.index(level) :: -1]:
        parts.append((name, since, until[LENGTHS[name]]))
        since = until[LENGTHS[name]]

    def under(ticks: list[Row], key: tuple[str, ...], memory: str, cpu: str) -> list[Row]:
        found = [row for row in ticks if row["timestamp"] >= since]
        for name, begin, end in parts:
            part = [row for row in ticks if begin <= row["timestamp"] < end]
            for groups in named(part, name, key, memory, cpu).values():
                for one, members in groups.items():
                    found += [{**row, **dict(zip(key, one, strict=True))} for row in members]
        return sorted(found, key=lambda row: (row["timestamp"], row["id"]))

    totals = under(rows.totals, CONTAINER_KEY, "held_mb", "cpu_usage")
    for row in totals:
        if not row["container_id"]:
            row["container_name"] = "(otros)"
    processes = under(rows.processes, ("pid", "name"), "ram_usage", "cpu_usage")
    return replace(rows, totals=totals, processes=[row for row in processes if row["pid"]])


@pytest.fixture(scope="module")
def seen(history: sqlite3.Connection, rows: Rows) -> dict[str, Rows]:
    return {level: folded(history, rows, level) for level in LEVELS}


def look(
    panel: Panel, level: str, view: View, history: sqlite3.Connection, seen: dict[str, Rows]
) -> None:
    length = LENGTHS[level]
    interval = max(panel.interval(view), length)
    frame = plugin.ask(history, forced(panel.sql, level), view, panel.interval(view))
    whole = replace(view, from_ms=view.from_ms // length * length)
    compare(panel, frame, Window(seen[level], whole, interval, length))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_buckets_show_what_their_ticks_say(
    panel: Panel, level: str, history: sqlite3.Connection, seen: dict[str, Rows]
) -> None:
    # It begins within a bucket, which counts as a whole.
    look(panel, level, View(BEGIN_MS + 5 * HOUR_MS + 123_456, END_MS), history, seen)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_buckets_show_only_what_the_variables_choose(
    panel: Panel, level: str, history: sqlite3.Connection, rows: Rows, seen: dict[str, Rows]
) -> None:
    last = [row for row in rows.totals if row["timestamp"] == rows.totals[-1]["timestamp"]]
    view = View(
        BEGIN_MS // DAY_MS * DAY_MS + DAY_MS,
        END_MS,
        {
            "contenedor": tuple(row["container_id"] for row in last[:3]),
            "proceso": tuple(str(row["pid"]) for row in rows.processes[-9:-2]),
        },
        tiers=("high", "none"),
        top=3,
    )
    look(panel, level, view, history, seen)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_point_of_several_buckets_is_one_point(
    panel: Panel, level: str, history: sqlite3.Connection, seen: dict[str, Rows]
) -> None:
    # Points of two days: closed days, the open one's hours, its 5 minutes and its ticks together.
    view = View(BEGIN_MS, END_MS)
    interval = 2 * DAY_MS
    frame = plugin.ask(history, forced(panel.sql, level), view, interval)
    length = LENGTHS[level]
    whole = replace(view, from_ms=view.from_ms // length * length)

    compare(panel, frame, Window(seen[level], whole, interval, length))


@pytest.mark.parametrize("level", LEVELS)
def test_a_range_that_ended_long_ago_is_read_to_the_end_of_its_last_bucket(
    level: str, history: sqlite3.Connection, seen: dict[str, Rows]
) -> None:
    (panel,) = (one for one in PANELS if one.title == "Uso de CPU en el Tiempo" and
                one.dashboard == "monitor-de-sistema")  # fmt: skip
    length = LENGTHS[level]
    until = dict(history.execute("SELECT bucket_ms, until FROM rollup_until"))[length]
    view = View(BEGIN_MS, until - length // 2) if until > BEGIN_MS else View(BEGIN_MS, END_MS)
    frame = plugin.ask(history, forced(panel.sql, level), view, panel.interval(view))
    whole = View(view.from_ms // length * length, until - 1 if until > BEGIN_MS else END_MS)

    interval = max(panel.interval(view), length)
    compare(panel, frame, Window(seen[level], whole, interval, length))


@pytest.mark.parametrize(
    "title",
    ["Uso de RAM en el Tiempo", "Reparto de la CPU en el Tiempo", "Uso de CPU en el Tiempo"],
)
def test_a_line_of_buckets_breaks_where_the_agent_did_not_run(
    title: str, history: sqlite3.Connection
) -> None:
    for panel in (one for one in PANELS if one.title == title):
        view = View(BEGIN_MS, END_MS)
        interval = panel.interval(view)
        frame = plugin.ask(history, forced(panel.sql, "5m"), view, interval)
        breaks = [
            at * 1000
            for points in plugin.series(frame).values()
            for at, value in points
            if value is None
        ]
        stopped = BEGIN_MS + int(HOURS * HOUR_MS * 0.40)
        assert any(abs(at - stopped) <= 2 * max(interval, 300_000) for at in breaks)


def test_each_stop_is_marked_once_wherever_it_is_read_from(history: sqlite3.Connection) -> None:
    (mark,) = (
        one
        for one in plugin.load("monitor-de-sistema")["annotations"]["list"]
        if one["name"] == "Reinicios del agente"
    )
    sql = mark["target"]["rawQueryText"]
    view = View(BEGIN_MS, END_MS)
    short = history.execute(view.expand(sql.replace("172800000", "999999999"), 1000)).fetchall()
    long = history.execute(view.expand(sql.replace("172800000", "-1"), 1000)).fetchall()

    assert long == short
    assert len(long) == 1


def level_of(
    connection: sqlite3.Connection, kind: levels.Kind, view: View, interval: int = 1000
) -> tuple[int, int]:
    sql = f"WITH {levels.level(kind)} SELECT cubo, punto FROM nivel"
    ((bucket, point),) = connection.execute(view.expand(sql, interval)).fetchall()
    return bucket, point


@pytest.fixture
def reach(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A history whose tables begin where retention leaves them: a year, 90 days, 30, one."""
    path = tmp_path / "metrics.db"
    database, _ = sqlite.open_database(path, 0)
    sqlite.leave(database, path, wait=False)
    connection = sqlite3.connect(path)
    for table, days in (
        *(("metrics", 30), ("process_stats", 1)),
        *((f"rollup_{kind}_5m", 90) for kind in ("host", "process")),
        *((f"rollup_{kind}_{one}", 365) for kind in ("host", "process") for one in ("1h", "1d")),
    ):
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        values: list[Any] = [None, END_MS - days * DAY_MS, *(0 for _ in columns[2:])]
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("kind", "days", "ago", "bucket"),
    [
        (levels.HOST, 1, 0, 0),
        (levels.HOST, 7, 0, 300_000),
        (levels.HOST, 60, 0, HOUR_MS),
        (levels.HOST, 1, 40, 300_000),
        (levels.HOST, 1, 200, HOUR_MS),
        (levels.CONTAINERS, 0.5, 0, 0),
        (levels.CONTAINERS, 1, 0, 300_000),
        (levels.CONTAINERS, 30, 0, HOUR_MS),
        (levels.CONTAINERS, 365, 0, DAY_MS),
        (levels.CONTAINERS, 1, 300, HOUR_MS),
        (levels.PROCESSES, 0.25, 0, 0),
        (levels.PROCESSES, 0.25, 3, 300_000),
        (levels.PROCESSES, 30, 0, HOUR_MS),
    ],
)
def test_a_range_is_read_from_the_finest_level_that_it_is_short_enough_for_and_that_reaches_it(
    reach: sqlite3.Connection, kind: levels.Kind, days: float, ago: float, bucket: int
) -> None:
    end = END_MS - int(ago * DAY_MS)
    view = View(end - int(days * DAY_MS), end)
    assert level_of(reach, kind, view) == (bucket, max(1000, bucket))


def test_where_no_rows_of_processes_are_left_buckets_are_read(reach: sqlite3.Connection) -> None:
    reach.execute("DELETE FROM process_stats")
    view = View(END_MS - DAY_MS // 8, END_MS)
    assert level_of(reach, levels.PROCESSES, view)[0] == 300_000

    reach.execute("DELETE FROM rollup_process_5m")
    assert level_of(reach, levels.PROCESSES, view)[0] == HOUR_MS


def test_an_empty_history_is_read_from_ticks(reach: sqlite3.Connection) -> None:
    for table in ("metrics", *(f"rollup_host_{level}" for level in LEVELS)):
        reach.execute(f"DELETE FROM {table}")
    assert level_of(reach, levels.HOST, View(END_MS - DAY_MS, END_MS))[0] == 0


def test_a_young_history_is_read_from_ticks_however_long_the_range_is(tmp_path: Path) -> None:
    file = tmp_path / "metrics.db"
    make(file, Plan(hours=3, processes=20, tick_ms=60_000))
    close_buckets(file)
    connection = sqlite3.connect(file)
    for kind in (levels.HOST, levels.CONTAINERS, levels.PROCESSES, levels.REMOVALS):
        view = View(END_MS - 365 * DAY_MS, END_MS)
        assert level_of(connection, kind, view)[0] == 0
    connection.close()


@pytest.mark.parametrize("hours", [1, 24 * 400])
def test_no_query_has_a_thousand_cursors(history: sqlite3.Connection, hours: int) -> None:
    """SQLite 3.54 refuses it («nested too deep»); the data source brings a newer one each year.

    Cursors are numbered while a query is parsed, and the highest number is in its program.
    """
    view = View(END_MS - hours * HOUR_MS, END_MS)
    for panel in plugin.panels():
        program = history.execute("EXPLAIN " + view.expand(panel.sql, 1000)).fetchall()
        cursors = [row[2] for row in program if row[1].startswith(("Open", "InitCoroutine"))]
        assert max(cursors) < 800, panel


@pytest.mark.parametrize("name", plugin.NAMES)
def test_queries_of_variables_and_marks_use_nothing_that_grafana_has_for_panels_alone(
    name: str,
) -> None:
    content = plugin.load(name)
    texts = [one["query"] for one in content["templating"]["list"] if one["type"] == "query"]
    texts += [one["target"]["rawQueryText"] for one in content["annotations"]["list"]]

    assert len(texts) >= 3
    assert not [text for text in texts if "$__interval" in text]


@pytest.mark.parametrize("level", LEVELS)
def test_the_list_of_containers_has_those_of_sixty_moments_the_current_ones_first(
    history: sqlite3.Connection, rows: Rows, level: str
) -> None:
    (sql,) = (
        one["query"]
        for one in plugin.load("monitor-de-contenedores")["templating"]["list"]
        if one["type"] == "query"
    )
    view = View(BEGIN_MS, END_MS)

    found = history.execute(view.expand(forced(sql, level), 1000)).fetchall()

    names = {row["container_id"]: row["container_name"] for row in rows.totals}
    now = [one for one in rows.totals if one["timestamp"] == rows.metrics[-1]["timestamp"]]
    now.sort(key=lambda row: -row["held_mb"])
    assert [row[1] for row in found[: len(now)]] == [row["container_id"] for row in now]
    assert len(found) > len(now) or level == "1d"
    assert all(names[identity] == name for name, identity in found)
    assert len({row[1] for row in found}) == len(found) <= 500
