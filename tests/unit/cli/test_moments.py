"""Moments of the past as people write them, and the history as it was then."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from agent.cli.views import report_figures as reports
from agent.cli.views import top as view
from agent.cli.views.moments import parse_at
from agent.config import PolicySettings
from agent.errors import ConfigError
from agent.store.queries import History
from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import END_MS, Plan

NOW = datetime(2026, 11, 28, 14, 30, 15).astimezone()
NOW_MS = int(NOW.timestamp() * 1000)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("14:02", NOW.replace(minute=3, second=0)),
        ("14:02:11", NOW.replace(minute=2, second=12)),
        ("2026-11-28 14:02", NOW.replace(minute=3, second=0)),
        ("2026-11-27T14:02:11", NOW.replace(day=27, minute=2, second=12)),
        ("2026-11-20", NOW.replace(day=21, hour=0, minute=0, second=0)),
        ("23:59", NOW.replace(hour=0, minute=0, second=0)),
    ],
)
def test_what_is_left_out_counts_to_its_end(text: str, end: datetime) -> None:
    assert parse_at(text, NOW_MS) == ms(end) - 1


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", timedelta(seconds=90)), ("2h ago", timedelta(hours=2)), (" 7d ", timedelta(days=7))],
)
def test_a_span_is_so_long_ago(text: str, ago: timedelta) -> None:
    assert parse_at(text, NOW_MS) == NOW_MS - ms(NOW) + ms(NOW - ago)


def test_the_minute_that_is_not_over_is_as_far_as_it_goes() -> None:
    assert parse_at("14:30", NOW_MS) == NOW_MS
    assert parse_at("2026-11-28", NOW_MS) == NOW_MS


def test_a_zone_that_is_named_counts() -> None:
    assert parse_at("2026-11-20T12:00:00+02:00", NOW_MS) == parse_at(
        "2026-11-20T10:00:00+00:00", NOW_MS
    )


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "14:60", "2026-13-01", "9" * 9 + "d", "-1h", "1w", "14"]
)
def test_what_is_no_moment_is_refused_and_an_example_given(text: str) -> None:
    with pytest.raises(ConfigError, match="no moment") as raised:
        parse_at(text, NOW_MS)
    assert "14:02" in raised.value.hint


@pytest.mark.parametrize("text", ["2026-11-28 14:31", "2027-01-01", "2026-11-28T14:30:16"])
def test_what_is_yet_to_come_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="yet to come"):
        parse_at(text, NOW_MS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("moments") / "metrics.db"
    make(path, Plan(hours=1.0, processes=30))
    return path


@pytest.fixture(scope="module")
def cut(whole: Path) -> tuple[Path, int]:
    """What the file was half an hour before its end, by deleting all that came after."""
    path = whole.with_name("cut.db")
    shutil.copy(whole, path)
    until_ms = END_MS - 30 * 60_000
    with closing(sqlite3.connect(path)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (name,) in tables.fetchall():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            if "timestamp" in columns:
                connection.execute(f"DELETE FROM {name} WHERE timestamp > ?", (until_ms,))
    return path, until_ms


def test_top_is_what_it_was_then(whole: Path, cut: tuple[Path, int]) -> None:
    then, until_ms = cut

    assert view.read(whole, PolicySettings(), until_ms) == view.read(then, PolicySettings())
    assert view.read(whole, PolicySettings()) != view.read(then, PolicySettings())


def test_a_report_is_what_it_was_then(whole: Path, cut: tuple[Path, int]) -> None:
    then, until_ms = cut
    with History.open(whole, until_ms) as past, History.open(then) as old:
        for span_ms in (600_000, 3 * 86_400_000):
            assert reports.build(past, span_ms, until_ms) == reports.build(old, span_ms, until_ms)


def test_before_everything_there_is_nothing(whole: Path) -> None:
    assert view.read(whole, PolicySettings(), END_MS - 86_400_000) is None


def test_a_look_at_the_past_leaves_the_file_as_it_is(whole: Path) -> None:
    before = whole.read_bytes()
    with History.open(whole, END_MS - 60_000) as history:
        assert history.last_tick() is not None
    assert whole.read_bytes() == before


def test_the_headline_says_the_moment(whole: Path) -> None:
    last = view.read(whole, PolicySettings(), END_MS - 60_000)
    assert last is not None
    line = view.plain(last, view.Choice(), END_MS - 60_000, is_past=True).splitlines()[0]

    assert line.startswith("At ")
    assert " before from " in line
    assert " ago " not in line
