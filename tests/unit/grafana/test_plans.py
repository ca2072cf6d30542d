"""Every query finds its rows by an index, and a full history stays quick."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.grafana import plugin
from tests.unit.grafana.make_db import close_buckets, make
from tests.unit.grafana.plugin import View
from tests.unit.grafana.world import END_MS, Plan

HOUR_MS = 3_600_000
BIG = "metrics|container_totals|container_stats|process_stats|deletions|attribution_checks"
BIG += "|oom_kills|short_lived"
STEPS_LIMIT = 20_000_000
"""Of SQLite's virtual machine; some 200 ms on a machine of 2020."""


def queries() -> Iterator[tuple[str, str, int]]:
    """Name, SQL and points of every query: panels, variables, annotations."""
    for panel in plugin.panels():
        yield str(panel), panel.sql, panel.max_data_points
    for name in plugin.NAMES:
        content = plugin.load(name)
        for variable in content["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{name}: variable {variable['name']}", variable["query"], 100
        for mark in content["annotations"]["list"]:
            yield f"{name}: {mark['name']}", mark["target"]["rawQueryText"], 100


QUERIES = [pytest.param(*one, id=one[0]) for one in queries()]

WHOLE = {
    # The sum over all of the history that there is.
    "monitor-de-sistema: Eliminados",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    file = tmp_path_factory.mktemp("small") / "metrics.db"
    make(file, Plan(hours=0.5, processes=40))
    connection = sqlite3.connect(file)
    yield connection
    connection.close()


@pytest.mark.parametrize(("name", "sql", "points"), QUERIES)
def test_no_query_walks_through_a_whole_table(
    name: str, sql: str, points: int, small: sqlite3.Connection
) -> None:
    view = View(END_MS - HOUR_MS, END_MS)
    text = view.expand(sql, plugin.interval_ms(HOUR_MS, points))

    plan = [row[3] for row in small.execute(f"EXPLAIN QUERY PLAN {text}")]

    walks = [step for step in plan if re.match(rf"SCAN ({BIG}|[cdmst])\b", step)]
    assert not walks or name in WHOLE, "\n".join(plan)


def test_the_few_rows_with_events_are_found_by_their_own_index(small: sqlite3.Connection) -> None:
    (panel,) = (one for one in plugin.panels() if one.title == "Arranques, Salidas y OOM")
    view = View(END_MS - HOUR_MS, END_MS)

    plan = [row[3] for row in small.execute(f"EXPLAIN QUERY PLAN {view.expand(panel.sql, 60_000)}")]

    assert any("USING COVERING INDEX container_totals_events" in step for step in plan)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """24 hours of 4,320 ticks, 300 processes and 10 containers, and 30 days of the rest."""
    file: Path = tmp_path_factory.mktemp("full") / "metrics.db"
    make(file, Plan(hours=24, days=30, processes=285))
    close_buckets(file)
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    yield connection
    connection.close()


@pytest.mark.full
@pytest.mark.parametrize("hours", [1, 24, 720], ids=["1h", "24h", "30d"])
@pytest.mark.parametrize(("name", "sql", "points"), QUERIES)
def test_a_full_history_is_quick(
    name: str, sql: str, points: int, hours: int, full: sqlite3.Connection,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    span_ms = hours * HOUR_MS
    text = View(END_MS - span_ms, END_MS).expand(sql, plugin.interval_ms(span_ms, points))
    steps = [0]

    def count() -> None:
        steps[0] += 1

    full.set_progress_handler(count, 1000)
    try:
        full.execute(text).fetchall()
    finally:
        full.set_progress_handler(None, 0)
    began_s = time.thread_time()
    full.execute(text).fetchall()
    spent_ms = (time.thread_time() - began_s) * 1000

    record_property("milliseconds", round(spent_ms, 1))
    record_property("thousand_steps", steps[0])
    print(f"{name} {hours} h: {spent_ms:.1f} ms, {steps[0] / 1000:.1f} million steps")
    assert steps[0] * 1000 < STEPS_LIMIT
