"""What turns measurements into figures: growth, jitter, plots and pages."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import __main__ as bench
from bench import agent_cost, mixed_load, plot, processes, report, soak_report
from bench.measure import IncompleteError


def samples(count: int, **changed: Any) -> list[dict[str, Any]]:
    """One sample each 10 s of an agent at a 1 s interval that does not change."""
    steady = {
        "rss_kb": 40 * 1024, "anonymous_kb": 30 * 1024, "descriptors": 28, "threads": 2,
        "written_bytes": 0, "database_bytes": 2**20, "wal_bytes": 2**22, "tick_ms": [20] * 10,
        "gap_ms": [1000] * 10,
    }  # fmt: skip
    return [
        {**steady, "at_s": 10.0 * number, "cpu_s": 0.1 * number, **changed}
        for number in range(count)
    ]


def document(found: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    checks = {"agree": 3, "conflict": 0, "unverified": 0, "events_lost": 0}
    return {
        "machine": {"cpu": "one", "kernel": "6.1"},
        "date": "2026-01-01",
        "minutes_asked": 60,
        "interval_s": 1.0,
        "every_s": 10,
        "samples": found,
        "totals": {
            "source": "modules", "bpf": "ready", "unstored_ticks": 0, "problems": [],
            "deletions": {"removed": 2}, "checks": checks,
        },
        "load": {"done": {"query": 5}, "failures": {}, "cpu_s": 1.0},
        **changed,
    }  # fmt: skip


def test_growth_tells_both_ends_and_the_slope_of_the_second_half() -> None:
    climbing = [(float(second), 10.0 if second < 1800 else second / 180) for second in range(3600)]
    found = soak_report.growth(climbing)
    assert found.first == 10.0
    assert found.last == pytest.approx(3150 / 180, abs=0.01)
    assert found.per_hour == pytest.approx(20.0)
    assert (found.smallest, found.largest) == (10.0, pytest.approx(3599 / 180))


def test_jitter_is_the_distance_from_the_grid_and_left_out_ticks_are_counted_apart() -> None:
    gaps = [1000, 1010, 990, 3005, 400]
    assert soak_report.off_grid(gaps, 1000) == [0, 10, 10, 5, 600]
    assert soak_report.skipped(gaps, 1000) == 2


def test_a_soak_becomes_a_page_and_a_plot(tmp_path: Path) -> None:
    soak_report.write(document(samples(12)), tmp_path)
    text = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert "| resident memory | 40.00 MB | 40.00 MB | 40.00 … 40.00 MB | +0.00 MB |" in text
    assert "| CPU, of one core | 1.0 % | 1.0 % |" in text
    assert "| ticks stored | 30 | 30 | 120 |" in text
    picture = ElementTree.parse(tmp_path / "soak.svg").getroot()
    assert len(picture.findall("{*}polyline")) == 10


def test_a_soak_says_whether_a_budget_was_spent(tmp_path: Path) -> None:
    run = document(samples(3))
    for number, one in enumerate(run["samples"]):
        one |= {"budgets": {"loss": 0.4 * number}, "ticks_over": number // 2}
    run["totals"] |= {"arming": [[5, 0, "the budget loss is spent"]], "canary": {"error": 0.07}}
    soak_report.write(run, tmp_path)
    text = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert "used of a budget: loss 80.0 %" in text
    assert "over a budget among the last ten: 1. Canary: off by 7.0 %." in text
    assert "Disarmed: disarmed (the budget loss is spent)." in text


def test_a_soak_that_was_cut_off_says_so(tmp_path: Path) -> None:
    soak_report.write(document(samples(3), ended_early="the agent ended"), tmp_path)
    assert "**Ended early:** the agent ended" in (tmp_path / "soak.md").read_text(encoding="utf-8")
    soak_report.write(document([]), tmp_path)
    assert "No figures" in (tmp_path / "soak.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "ceiling"), [(0, 1), (0.3, 0.5), (1, 1), (1.01, 2), (2.2, 2.5), (44, 50), (51, 100)]
)
def test_a_scale_ends_at_a_round_figure(value: float, ceiling: float) -> None:
    assert plot.nice_ceiling(value) == pytest.approx(ceiling)


def test_a_plots_text_cannot_break_it() -> None:
    panel = plot.Panel("<&>", [plot.Line('"', [(0, 1), (1, 2)])])
    assert ElementTree.fromstring(plot.page("a & b", [panel])) is not None


def test_a_run_becomes_a_page_with_ratios_and_what_did_not_end() -> None:
    timing = {"wall_ms": 10.0, "wall_min_ms": 9, "wall_max_ms": 11, "cpu_ms": 8, "repetitions": 5}
    rows = [
        {"section": "a", "what": "psutil", "timing": timing, "figure": "", "ratio": 4.0,
         "against": "modules"},
        {"section": "e", "what": "memory", "timing": None, "figure": "40 MB", "ratio": None,
         "against": ""},
    ]  # fmt: skip
    run = {"machine": {"cpu": "one"}, "rows": rows, "failed": {"f": "no engine\nmore"}}
    text = report.page(run, "Bench")
    assert "| psutil | 10.0 | 9.0 … 11.0 (5) | 8.0 | 4 x modules |" in text
    assert "| memory | | | | 40 MB |" in text
    assert "Not whole: no engine" in text


def test_an_account_sums_what_lies_between_two_ticks_and_tells_of_blind_ones() -> None:
    def row(identity: str, name: str, at_s: int, cpu: float, rest: float | None) -> tuple[Any, ...]:
        return (identity, name, at_s * 1000, cpu, None if rest is None else 25.0, rest, 3)

    rows = [
        row("a", "mixed_burns_x", 0, 900.0, 900.0),  # what was before is not of the run
        row("a", "mixed_burns_x", 20, 50.0, 5.0),
        row("a", "mixed_burns_x", 30, 100.0, -10.0),
        row("b", "mixed_visit_x_0", 0, 0.0, None),
        row("b", "mixed_visit_x_0", 20, 50.0, None),
        row("b", "mixed_visit_x_0", 40, 50.0, 0.0),
        row("c", "somebody", 0, 100.0, 0.0),
        row("c", "somebody", 20, 100.0, 0.0),
    ]
    burns, visits = mixed_load.accounts(rows, {"burns": "a"}, {"burns": 20.5})
    assert (burns.charged_s, burns.cpu_s, burns.short_lived_s) == (20.5, 20.0, 7.5)
    assert (burns.unexplained_s, burns.unexplained_abs_s) == (0.0, 2.0)
    assert (burns.starts, burns.ticks, burns.blind_ticks) == (6, 2, 0)
    assert (visits.cpu_s, visits.ticks, visits.blind_ticks) == (10.0, 1, 1)


@pytest.fixture
def no_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel without the modules, and no crowd: what is left is quick."""
    monkeypatch.setattr(processes, "SYSINFO", tmp_path / "none")
    monkeypatch.setattr(processes, "crowd", lambda wanted: contextlib.nullcontext())


@pytest.mark.usefixtures("no_modules")
def test_a_snapshot_section_without_the_modules_is_not_whole_and_keeps_the_rest() -> None:
    with pytest.raises(IncompleteError, match="modules are not loaded") as caught:
        processes.measure(1, 2)
    assert [row.what.partition(" · ")[2] for row in caught.value.rows] == [
        "psutil, same fields",
        "/proc by hand",
    ]


@pytest.mark.parametrize(
    ("state", "missing"), [("ready", ""), ("off", "off"), ("off (--no-bpf)", "--no-bpf")]
)
def test_a_section_on_the_probes_is_not_whole_without_them(state: str, missing: str) -> None:
    assert missing in agent_cost._without(state)
    assert bool(agent_cost._without(state)) is (state != "ready")


@pytest.mark.usefixtures("no_modules")
def test_a_run_without_its_subject_says_so_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    words = ["bench", "--quick", "--sections", "a", "--counts", "1", "--json", str(file)]
    monkeypatch.setattr("sys.argv", words)
    assert bench.main() == 1
    said = capsys.readouterr()
    assert "Section a is not whole: the modules are not loaded" in said.err
    assert "psutil, same fields" in said.out
    document = json.loads(file.read_text(encoding="utf-8"))
    assert "not loaded" in document["failed"]["a"]
    assert len(document["rows"]) == 2
    assert "Not whole: the modules are not loaded" in report.page(document, "x")
