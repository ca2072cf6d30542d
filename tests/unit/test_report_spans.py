"""`agent report` over days reads buckets, and says what the ticks behind them say."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.cli.views import report_figures as reports
from agent.store.queries import History
from agent.store.rollups import Roller
from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import END_MS, Plan
from tests.unit.store.builders import SECOND_NS, START_NS, a_tick, open_store

DAY_MS = 86_400_000


@pytest.fixture(scope="module", params=["ticks", "half-way", "closed"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two and a half days, of which nothing, a part or all is in buckets."""
    from agent.store import database as sqlite

    path = tmp_path_factory.mktemp("spans") / "metrics.db"
    make(path, Plan(hours=60, processes=20, tick_ms=60_000))
    database = sqlite.connect(path)
    roller = Roller(database, lambda: 0)
    for _ in range({"ticks": 0, "half-way": 30, "closed": 10**6}[request.param]):
        if not roller.run(END_MS):
            break
    database.close()
    return path


@pytest.fixture(scope="module")
def both(file: Path) -> tuple[reports.Report, reports.Report]:
    """The same span, read from ticks and from buckets."""
    with History.open(file) as history, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "_TICKS_WITHIN_MS", 100 * DAY_MS)
        ticks = reports.build(history, 3 * DAY_MS, END_MS)
        patch.setattr(reports, "_TICKS_WITHIN_MS", 0)
        buckets = reports.build(history, 3 * DAY_MS, END_MS)
    assert ticks is not None
    assert buckets is not None
    return ticks, buckets


CURVES = (
    *("used_kb", "available_kb", "cpu_percent", "load1", "psi_cpu", "psi_memory"),
    *("process_count", "container_count"),
)


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_has_the_same_last_least_mean_and_most(
    both: tuple[reports.Report, reports.Report], name: str
) -> None:
    ticks, buckets = (getattr(one, name) for one in both)

    assert (buckets.last, buckets.least, buckets.most) == (ticks.last, ticks.least, ticks.most)
    assert buckets.mean == pytest.approx(ticks.mean)
    assert len(buckets.points) == len(ticks.points)
    # A bucket at the edge of a part is wholly in one of the two.
    known = [
        (one, other)
        for one, other in zip(buckets.points, ticks.points, strict=True)
        if one is not None and other is not None
    ]
    assert len(known) > 40
    assert sum(abs(one - other) for one, other in known) <= 0.1 * sum(abs(two) for _, two in known)


def test_what_is_counted_is_the_same(both: tuple[reports.Report, reports.Report]) -> None:
    ticks, buckets = both
    for name in ("ticks", "stops", "stopped_ms", "sources", "checks", "removals"):
        assert getattr(buckets, name) == getattr(ticks, name), name
    assert ticks.verdicts is not None
    assert ticks.verdicts.events_corrected
    assert buckets.verdicts == ticks.verdicts
    assert ticks.stops == 1


def test_containers_are_those_among_the_largest_and_what_they_held_is_true(
    both: tuple[reports.Report, reports.Report], file: Path
) -> None:
    _, buckets = both
    connection = sqlite3.connect(file)
    truth = dict(
        connection.execute("SELECT container_id, max(held_mb) FROM container_totals GROUP BY 1")
    )
    connection.close()

    held = [one.max_held_mb for one in buckets.top_held]
    assert held == sorted(held, reverse=True)
    assert len(held) == 5
    # The one that held most in a single tick may have been among the others for the rest of it.
    assert held[0] >= 0.95 * max(truth.values())
    for one in buckets.top_held:
        assert one.max_held_mb <= truth[one.container_id]
        assert one.container_name != "(others)"


def test_a_stop_in_the_open_bucket_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    times = [*range(0, 600, 20), *range(604, 700, 20), *range(800, 880, 20)]
    begin = START_NS - START_NS % (300 * SECOND_NS)
    with open_store(path) as store:
        for at in times:
            store.write_tick(a_tick(begin + at * SECOND_NS, 2))
    now_ms = begin // 10**6 + 880_000

    with History.open(path) as history:
        value = reports.build(history, 10 * DAY_MS, now_ms)

    assert value is not None
    assert (value.stops, value.stopped_ms) == (1, (800 - 684) * 1000)
