"""`agent report` gives the same answers as the rows, in tables, in plain lines and in JSON."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from agent.cli import app
from agent.cli.commands.report import report as command
from agent.cli.views import report
from agent.cli.views import report_figures as reports
from agent.cli.views.drawing import draw
from agent.cli.views.moments import moment
from agent.cli.views.tables import Cell, Sheet
from agent.errors import ConfigError
from agent.model.proof import ArmingWord
from agent.store.queries import History
from tests.other_user import NOBODY, need_readable_checkout
from tests.unit.grafana.make_db import make
from tests.unit.grafana.oracle import Rows
from tests.unit.grafana.world import END_MS, HOSTILE, TICK_MS, Plan

HOUR_MS = 3_600_000
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "metrics.db"
    make(path, Plan(hours=1.5, processes=60))
    return path


@pytest.fixture(scope="module")
def rows(file: Path) -> Iterator[Rows]:
    connection = sqlite3.connect(file)
    yield Rows.of(connection)
    connection.close()


@pytest.fixture(scope="module")
def value(file: Path) -> reports.Report:
    with History.open(file) as history:
        found = reports.build(history, HOUR_MS, END_MS)
    assert found is not None
    return found


def within(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if END_MS - HOUR_MS <= row["timestamp"] <= END_MS]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("6h", 21_600), ("7d", 604_800), (" 1h ", 3600)],
)
def test_a_span_is_read_with_its_unit(text: str, seconds: int) -> None:
    assert reports.parse_since(text) == seconds * 1000


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "0s", "1.5h", "1w", "1h30m", "9" * 12 + "d"])
def test_a_span_that_is_none_is_refused_and_an_example_given(text: str) -> None:
    with pytest.raises(ConfigError, match="not a span") as raised:
        reports.parse_since(text)

    assert "6h" in raised.value.hint


def test_a_span_beyond_what_is_kept_is_too_long_and_the_longest_is_named() -> None:
    assert reports.parse_since("7320d") == 7320 * 86_400_000
    for text in ("7321d", "99999999d"):
        with pytest.raises(ConfigError, match=r"is too long: 7320d is the longest\."):
            reports.parse_since(text)


def test_the_host_has_its_last_least_mean_and_most(value: reports.Report, rows: Rows) -> None:
    ticks = within(rows.metrics)

    for curve, column in (
        (value.used_kb, "used_ram"),
        (value.available_kb, "available_ram"),
        (value.cpu_percent, "cpu_usage"),
        (value.process_count, "process_count"),
    ):
        known = [row[column] for row in ticks]
        assert curve.last == known[-1]
        assert (curve.least, curve.most) == (min(known), max(known))
        assert curve.mean == pytest.approx(sum(known) / len(known))
    assert value.ticks == len(ticks)
    assert value.sources == dict(Counter(row["source"] for row in ticks))


def test_what_was_unknown_at_times_is_left_out_of_the_mean(
    value: reports.Report, rows: Rows
) -> None:
    known = [row["psi_cpu"] for row in within(rows.metrics) if row["psi_cpu"] is not None]

    assert len(known) < value.ticks
    assert value.psi_cpu is not None
    assert value.psi_cpu.mean == pytest.approx(sum(known) / len(known))


def test_a_stop_of_the_agent_is_counted_and_its_time_too(value: reports.Report, rows: Rows) -> None:
    times = [row["timestamp"] for row in within(rows.metrics)]
    between = [after - before for before, after in itertools.pairwise(times)]
    longest = max(between)

    assert value.stops == 1
    assert value.stopped_ms == longest
    # The curve has a hole there.
    assert None in value.used_kb.points


def test_removals_are_counted_by_outcome_and_reason(value: reports.Report, rows: Rows) -> None:
    gone = within(rows.deletions)

    assert value.removals.outcomes == dict(Counter(row["outcome"] for row in gone))
    assert value.removals.reasons == dict(
        Counter(row["reason"] for row in gone if row["outcome"] == "removed")
    )
    newest = sorted(gone, key=lambda row: (-row["timestamp"], -row["id"]))[:10]
    assert [one.decision for one in value.removals.last] == [row["decision"] for row in newest]


def test_one_that_was_left_alone_is_not_told_as_gone(value: reports.Report, rows: Rows) -> None:
    gone = [row for row in within(rows.deletions) if row["outcome"] == "gone"]
    left = [row for row in gone if row["error"]]

    assert left
    assert value.removals.left_alone == len(left)
    text = report.plain(value)
    assert f"{len(left)} left alone" in text
    assert (f"{len(gone) - len(left)} gone" in text) == (len(gone) > len(left))


@pytest.mark.parametrize("column", ["NAME", "CONTAINER"])
@pytest.mark.parametrize(
    "names",
    [
        [f"so1_contenedor_{number}" for number in (4294967295, 4294967294)],
        [f"kube-system/coredns-5d78c9869d-{pod}" for pod in ("abcde/coredns", "abcde/(sandbox)")],
    ],
)
def test_names_can_be_told_apart_on_a_narrow_terminal(column: str, names: list[str]) -> None:
    rows = tuple((Cell("1.0"), Cell(name)) for name in names)
    console = Console(file=io.StringIO(), width=22, markup=False)
    console.print(draw(Sheet("x", ("MB", column), rows)))
    lines = console.file.getvalue().splitlines()[2:]  # type: ignore[attr-defined]
    assert len({line.split()[-1] for line in lines}) == 2, lines
    assert all(len(line) <= 22 for line in lines)


def test_containers_are_those_of_the_last_tick_with_their_verdict(
    value: reports.Report, rows: Rows
) -> None:
    last = rows.metrics[-1]["timestamp"]
    now = [row for row in rows.totals if row["timestamp"] == last]
    stats = [row for row in rows.stats if row["timestamp"] == last]

    assert {one.row.container_id for one in value.containers} == {
        row["container_id"] for row in now
    }
    for one in value.containers:
        words = {row["verified"] for row in stats if row["container_id"] == one.row.container_id}
        assert one.verified in words or (not words and one.verified == "")


def test_the_greatest_of_the_span_are_those_of_all_ticks(value: reports.Report, rows: Rows) -> None:
    held: dict[str, float] = {}
    for row in within(rows.totals):
        held[row["container_id"]] = max(held.get(row["container_id"], 0.0), row["held_mb"])

    best = sorted(held.values(), reverse=True)[:5]

    assert [one.max_held_mb for one in value.top_held] == best


def test_the_attribution_is_told_for_the_span(value: reports.Report, rows: Rows) -> None:
    checks = within(rows.checks)

    assert value.verdicts.conflict_ticks == sum(row["conflict"] > 0 for row in checks) > 0
    assert value.verdicts.unverified_ticks == sum(row["unverified"] > 0 for row in checks) > 0
    assert value.verdicts.events_lost == sum(row["events_lost"] for row in checks) > 0


def test_a_time_without_ticks_has_no_report(file: Path) -> None:
    with History.open(file) as history:
        assert reports.build(history, 60_000, END_MS + HOUR_MS) is None


@given(st.lists(st.none() | st.floats(0, 1e12), max_size=90), st.integers(1, 60))
def test_a_sparkline_is_never_longer_than_asked_and_says_what_is_unknown(
    points: list[float | None], width: int
) -> None:
    drawn = report.sparkline(points, width=width)

    assert len(drawn) == min(width, len(points))
    if len(points) <= width:
        assert [mark == " " for mark in drawn] == [point is None for point in points]


def test_a_sparkline_rises_with_the_figure() -> None:
    assert report.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert report.sparkline([0, None, 7], ascii_only=True) == "_ @"
    assert report.sparkline([0, 0]) == "▁▁"


def test_plain_lines_are_aligned_and_steer_no_terminal(value: reports.Report) -> None:
    text = report.plain(value)

    assert "\x1b" not in text
    lines = text.splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("  WHEN"))
    column = lines[at].index("OUTCOME")
    for line in lines[at + 1 : at + 5]:
        assert line[column:].startswith(("removed", "failed", "gone"))


def test_a_hostile_name_is_shown_and_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    make(path, Plan(hours=0.1, processes=30, incidents=False))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        evil = "\x1b]0;owned\x07[red]bold[/red]\u202e"
        connection.execute("UPDATE container_totals SET container_name = ?", (evil,))
        connection.execute("UPDATE process_stats SET name = ?, ram_usage = 9999", (HOSTILE,))
    with History.open(path) as history:
        found = reports.build(history, HOUR_MS, END_MS)
    assert found is not None
    console = Console(file=io.StringIO(), force_terminal=True, width=200, markup=False)

    report.show(found, console)
    drawn = console.file.getvalue()  # type: ignore[attr-defined]

    for text in (report.plain(found), drawn):
        assert "\x1b]0;" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "[red]" in text
        assert "\\x1b" in text


def run(*words: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(words))


def test_a_disarmed_policy_is_said_with_its_cause(value: reports.Report) -> None:
    assert "disarmed" not in report.plain(value)
    disarmed = replace(value, policy=ArmingWord(False, END_MS, "by hand: migration"))
    assert f"The policy is disarmed since {moment(END_MS)}: by hand: migration." in (
        report.plain(disarmed)
    )


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A history that ends now."""
    path = tmp_path / "metrics.db"
    make(path, Plan(hours=0.5, processes=40, end_ms=time.time_ns() // 10**6))
    return path


def test_the_command_prints_tables_without_colour_in_a_pipe(fresh: Path) -> None:
    done = run("--database", str(fresh), "--since", "30m")

    assert done.exit_code == 0
    assert "Containers at the last tick" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_command_gives_json_in_ascii(fresh: Path) -> None:
    done = run("--database", str(fresh), "--json")

    found = json.loads(done.stdout)
    assert done.stdout.isascii()
    assert found["ticks"] > 10
    assert {"used_kb", "containers", "removals", "verdicts", "top_ram"} <= found.keys()
    assert len(found["used_kb"]["points"]) == 60


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The history of an agent that stopped two hours ago."""
    path = tmp_path / "metrics.db"
    ended_ms = time.time_ns() // 10**6 - 2 * HOUR_MS
    make(path, Plan(hours=0.5, processes=5, end_ms=ended_ms))
    return path


def test_a_time_without_ticks_is_one_sentence_and_a_status(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["report", "--database", str(stopped), "--since", "1s"]) == 1

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("No tick in the last 1s.\nThe last one is 2")


def test_a_time_without_ticks_is_null_for_a_program_and_the_same_status(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["report", "--json", "--database", str(stopped), "--since", "1s"]) == 1
    assert capsys.readouterr() == ("null\n", "")


@pytest.mark.allow_subprocess
def test_somebody_who_may_not_read_the_history_is_told_to_use_sudo(fresh: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    need_readable_checkout()
    fresh.chmod(0o640)
    fresh.parent.chmod(0o750)
    code = (
        "import sys; from agent.__main__ import main; "
        "from agent.cli import app; from agent.cli.commands.report import report; "
        "names = {c.name or c.callback.__name__ for c in app.app.registered_commands}; "
        "'report' in names or app.app.command()(report); "
        f"sys.argv = ['agent', 'report', '--database', {str(fresh)!r}]; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 8, done.stderr
    assert "may be read by root only" in done.stderr
    assert "sudo" in done.stderr
    assert "Traceback" not in done.stderr
    assert TICK_MS
