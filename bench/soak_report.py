"""From a soak's samples to its report and plot: first against last quarter, growth an hour, ticks.

`python -m bench.soak_report soak.json DIRECTORY` makes `soak.md` and `soak.svg` again from a file
that an earlier run left, also from one that was cut off.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import in_words
from bench.plot import Line, Panel, page

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Growth:
    """One figure over the run: medians of its first and last quarter, its slope, its extremes."""

    first: float
    last: float
    per_hour: float
    """Slope of a straight line through the second half of the samples."""
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    unit: str
    value: Callable[[Sample], float]
    digits: int = 1


FIGURES = (
    Figure("resident memory", "MB", lambda one: one["rss_kb"] / 1024, 2),
    Figure("of it anonymous", "MB", lambda one: one["anonymous_kb"] / 1024, 2),
    Figure("descriptors", "", lambda one: one["descriptors"], 0),
    Figure("threads", "", lambda one: one["threads"], 0),
    Figure("database", "MB", lambda one: one["database_bytes"] / 2**20),
    Figure("write-ahead log", "MB", lambda one: one["wal_bytes"] / 2**20),
)


def growth(points: Iterable[tuple[float, float]]) -> Growth:
    """The growth of a series of (seconds, value); it needs at least two points."""
    series = list(points)
    values = [value for _, value in series]
    quarter = max(1, len(values) // 4)
    half = series[len(series) // 2 :] if len(series) > 3 else series
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope if len(half) > 1 else 0.0
    return Growth(
        first=statistics.median(values[:quarter]),
        last=statistics.median(values[-quarter:]),
        per_hour=slope * 3600,
        smallest=min(values),
        largest=max(values),
    )


def write(document: dict[str, Any], directory: Path) -> None:
    """Makes `soak.md` and `soak.svg`; without two samples, a report that says so."""
    samples: list[Sample] = document["samples"]
    (directory / "soak.md").write_text(_report(document, samples), encoding="utf-8")
    if len(samples) > 1:
        title = f"{_minutes(samples):.0f} minutes at an interval of {document['interval_s']:g} s"
        (directory / "soak.svg").write_text(page(title, _panels(samples)), encoding="utf-8")


def _report(document: dict[str, Any], samples: list[Sample]) -> str:
    lines = ["# Soak", ""]
    if len(samples) < 2:
        why = document.get("ended_early", "it ended before its second sample")
        return "\n".join([*lines, f"No figures: {why}", ""])
    asked, seen = document["minutes_asked"], _minutes(samples)
    lines += [
        (
            f"{seen:.0f} of {asked:g} minutes on {document['date']}, the agent at an interval of "
            f"{document['interval_s']:g} s, a sample each {document['every_s']:g} s. "
            f"Source: {document['totals']['source']}; BPF: {document['totals']['bpf']}."
        ),
        "",
        f"Machine: {in_words(document['machine'])}.",
        "",
    ]
    if "ended_early" in document:
        lines += [f"**Ended early:** {document['ended_early']}", ""]
    lines += [
        "![over time](soak.svg)",
        "",
        (
            "| | median, first quarter | median, last quarter | smallest … largest | slope of the "
            "second half, an hour |"
        ),
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for figure in FIGURES:
        found = growth((one["at_s"], figure.value(one)) for one in samples)
        lines.append(_line(figure, found))
    shares = _cpu_shares(samples)
    lines.append(_line(Figure("CPU, of one core", "%", lambda _: 0), growth(shares)))
    lines += ["", "## Ticks", "", *_ticks(document, samples), "", "## Load", "", *_load(document)]
    return "\n".join(lines) + "\n"


def _line(figure: Figure, found: Growth) -> str:
    digits, unit = figure.digits, f" {figure.unit}" if figure.unit else ""
    return (
        f"| {figure.name} | {found.first:.{digits}f}{unit} | {found.last:.{digits}f}{unit} | "
        f"{found.smallest:.{digits}f} … {found.largest:.{digits}f}{unit} | "
        f"{found.per_hour:+.{max(digits, 1)}f}{unit} |"
    )


def _ticks(document: dict[str, Any], samples: list[Sample]) -> list[str]:
    interval_ms = document["interval_s"] * 1000
    lines = [
        "| | first quarter | last quarter | whole run |",
        "| --- | ---: | ---: | ---: |",
    ]
    quarter = max(1, len(samples) // 4)
    parts = (samples[:quarter], samples[-quarter:], samples)
    rows: list[tuple[str, Callable[[list[int], list[int]], str]]] = [
        ("ticks stored", lambda took, _: f"{len(took)}"),
        ("duration, median ms", lambda took, _: f"{statistics.median(took):.0f}"),
        ("duration, 95 of 100 below ms", lambda took, _: f"{_share(took, 0.95):.0f}"),
        ("duration, longest ms", lambda took, _: f"{max(took)}"),
        (
            "jitter, median ms (start's distance from the interval's grid)",
            lambda _, gaps: f"{statistics.median(off_grid(gaps, interval_ms)):.0f}",
        ),
        (
            "jitter, 95 of 100 below ms",
            lambda _, gaps: f"{_share(off_grid(gaps, interval_ms), 0.95):.0f}",
        ),
        ("ticks skipped since one took too long", lambda _, gaps: f"{skipped(gaps, interval_ms)}"),
    ]
    for name, value in rows:
        cells = []
        for part in parts:
            took = [ms for one in part for ms in one["tick_ms"]]
            gaps = [ms for one in part for ms in one["gap_ms"]]
            cells.append(value(took, gaps) if took else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    totals = document["totals"]
    checks = ", ".join(f"{name} {count}" for name, count in totals["checks"].items())
    removals = ", ".join(f"{name} {count}" for name, count in totals["deletions"].items())
    lines += [
        "",
        (
            f"Ticks that could not be stored: {totals['unstored_ticks']}. "
            f"Attribution: {checks}. Removals: {removals or 'none'}. "
            f"Problems at the end: {'; '.join(totals['problems'] or []) or 'none'}."
        ),
    ]
    if stop := document.get("stop"):
        lines.append(f"Stopped in {stop['seconds']} s with status {stop['status']}.")
    return [*lines, *_proof(document["samples"], totals)]


def _proof(samples: list[Sample], totals: dict[str, Any]) -> list[str]:
    """Whether a budget was spent although nothing was wrong."""
    names = sorted({name for one in samples for name in one.get("budgets", {})})
    if not names:
        return []
    used = ", ".join(
        f"{name} {100 * max(one.get('budgets', {}).get(name, 0) for one in samples):.1f} %"
        for name in names
    )
    over = sum(one["ticks_over"] > 0 for one in samples)
    changes = "; ".join(
        f"{'armed' if armed else 'disarmed'} ({why})" for _, armed, why in totals["arming"]
    )
    canary = totals["canary"]
    off = "none ran" if canary is None else f"off by {100 * canary['error']:.1f} %"
    return [
        "",
        "## Proof",
        "",
        (
            f"Most that a sampled tick used of a budget: {used}. Samples with a tick over a budget "
            f"among the last ten: {over}. Canary: {off}. Disarmed: {changes or 'never'}."
        ),
    ]


def off_grid(gaps_ms: list[int], interval_ms: float) -> list[float]:
    """How far each start is from a whole number of intervals after the one before."""
    return [abs(gap - max(1, round(gap / interval_ms)) * interval_ms) for gap in gaps_ms]


def skipped(gaps_ms: list[int], interval_ms: float) -> int:
    """Ticks that were left out: whole intervals between two starts, but one."""
    return sum(max(0, round(gap / interval_ms) - 1) for gap in gaps_ms)


def _load(document: dict[str, Any]) -> list[str]:
    load = document["load"]
    done = ", ".join(f"{count} x {name}" for name, count in sorted(load["done"].items()))
    lines = [
        (
            f"{done or 'nothing'}, and three processes a second that come and go. A dashboard "
            f"query took {load.get('query_ms_median', 0):.0f} ms in the median, "
            f"{load.get('query_ms_max', 0):.0f}"
            " at most. Containers bear a governed name and live 110 s: the policy removes those "
            "above three at once, half of the others go by themselves, half stay exited for "
            "the agent."
        ),
    ]
    failures = load["failures"]
    if failures:
        lines += ["", "Failures of the load:", ""]
        lines += [f"- {count} x {text}" for text, count in failures.items()]
    return lines


def _cpu_shares(samples: list[Sample]) -> list[tuple[float, float]]:
    return [
        (after["at_s"], 100 * (after["cpu_s"] - before["cpu_s"]) / (after["at_s"] - before["at_s"]))
        for before, after in itertools.pairwise(samples)
    ]


def _panels(samples: list[Sample]) -> list[Panel]:
    def over(value: Callable[[Sample], float]) -> list[tuple[float, float]]:
        return [(one["at_s"] / 60, value(one)) for one in samples]

    def of_ticks(value: Callable[[list[int]], float]) -> list[tuple[float, float]]:
        return [(one["at_s"] / 60, value(one["tick_ms"])) for one in samples if one["tick_ms"]]

    return [
        Panel(
            "Resident memory, MB",
            [
                Line("all", over(lambda one: one["rss_kb"] / 1024)),
                Line("anonymous", over(lambda one: one["anonymous_kb"] / 1024)),
            ],
        ),
        Panel(
            "Descriptors and threads",
            [
                Line("descriptors", over(lambda one: one["descriptors"])),
                Line("threads", over(lambda one: one["threads"])),
            ],
        ),
        Panel(
            "Database, MB (bound 16)",
            [
                Line("database", over(lambda one: one["database_bytes"] / 2**20)),
                Line("write-ahead log", over(lambda one: one["wal_bytes"] / 2**20)),
            ],
        ),
        Panel(
            "Duration of a tick, ms",
            [Line("longest", of_ticks(max)), Line("median", of_ticks(statistics.median))],
        ),
        Panel(
            "Largest distance between two starts, ms",
            [
                Line(
                    "start to start",
                    [(one["at_s"] / 60, max(one["gap_ms"])) for one in samples if one["gap_ms"]],
                )
            ],
        ),
        Panel(
            "CPU, % of one core",
            [Line("agent", [(at / 60, share) for at, share in _cpu_shares(samples)])],
        ),
    ]


def _share(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _minutes(samples: list[Sample]) -> float:
    return float(samples[-1]["at_s"]) / 60


if __name__ == "__main__":
    file, target = (Path(word) for word in sys.argv[1:3])
    write(json.loads(file.read_text(encoding="utf-8")), target)
