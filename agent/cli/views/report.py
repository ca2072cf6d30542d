"""How `agent report` looks: tables and sparklines on a terminal, aligned lines in a pipe.

Names that workloads chose are shown with everything that steers a terminal escaped, and never as
markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from agent.cli.views.drawing import draw
from agent.cli.views.moments import moment, span
from agent.cli.views.names import are_several, shown_name, shown_names
from agent.cli.views.report_figures import ContainerNow, Curve, Report
from agent.cli.views.tables import Cell, Sheet, sheet_lines
from agent.model.removal import Reason
from agent.util.terminal import printable

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*#@"
_KB_PER_GB = 1024 * 1024
_WIDTH = 60
"""Of a sparkline where there is room."""

VERDICT_STYLES = {"agree": "green", "conflict": "bold red", "unverified": "yellow"}
TIER_STYLES = {"low": "green", "high": "yellow", "none": "dim"}
OUTCOME_STYLES = {
    "removed": "green",
    "failed": "bold red",
    "gone": "dim",
    "left alone": "yellow",
    "dry-run": "cyan",
    "stopped": "green",
    "restarted": "green",
    "paused": "green",
    "notified": "cyan",
}


def sparkline(points: Sequence[float | None], ascii_only: bool = False, width: int = _WIDTH) -> str:
    """One character a point, from 0 to the largest; a space where nothing is known.

    More points than `width` are averaged, so that the newest is never cut off.
    """
    points = _shrunk(points, width)
    marks = _ASCII if ascii_only else _BLOCKS
    most = max((point for point in points if point is not None), default=0.0)
    if most <= 0:
        return "".join(" " if point is None else marks[0] for point in points)
    top = len(marks) - 1
    return "".join(
        " " if point is None else marks[min(top, max(0, round(point / most * top)))]
        for point in points
    )


def _shrunk(points: Sequence[float | None], width: int) -> Sequence[float | None]:
    count = len(points)
    if count <= width:
        return points
    cells: list[float | None] = []
    for place in range(width):
        part = points[place * count // width : (place + 1) * count // width]
        known = [point for point in part if point is not None]
        cells.append(sum(known) / len(known) if known else None)
    return cells


def sheets(report: Report, ascii_only: bool = False, columns: int = 200) -> Iterator[Sheet]:
    """All tables of a report, in reading order, for a terminal of so many columns."""

    def spark(curve: Curve | None, beside: int = 55) -> Cell:
        width = min(_WIDTH, max(10, columns - beside))
        return Cell("" if curve is None else sparkline(curve.points, ascii_only, width), "cyan")

    yield _host(report, spark)
    several = are_several(
        (one.row for one in report.containers),
        (*report.top_held, *report.top_container_cpu),
        report.short_lived,
    )
    names = shown_names((one.row for one in report.containers), with_engine=several)
    yield Sheet(
        "Containers at the last tick",
        ("NAME", "TIER", "PROCS", "HELD MB", "RSS MB", "CPU %", "VERIFIED", "HELD OVER TIME"),
        tuple(_container(one, names[one.row], spark(one.held, 90)) for one in report.containers),
        frozenset({2, 3, 4, 5}),
        "none was running"
        if report.last.container_count is not None
        else "unknown: Docker did not answer",
    )
    yield _spans(
        "Containers that held most, in one tick",
        report,
        tuple(
            (shown_name(one, with_engine=several), one.tier, one.max_held_mb)
            for one in report.top_held
        ),
        "HELD MB",
    )
    yield _spans(
        "Containers that used most CPU, while they were there",
        report,
        tuple(
            (shown_name(one, with_engine=several), one.tier, one.mean_cpu_percent)
            for one in report.top_container_cpu
        ),
        "CPU %",
    )
    for title, rows in (
        ("Processes by RAM at the last tick", report.top_ram),
        ("Processes by CPU at the last tick", report.top_cpu),
    ):
        yield Sheet(
            title,
            ("PID", "RAM MB", "CPU %", "NAME"),
            tuple(
                (
                    Cell(str(one.pid)),
                    Cell(f"{one.ram_mb:.1f}"),
                    Cell(f"{one.cpu_percent:.1f}"),
                    Cell(printable(one.name)),
                )
                for one in rows
            ),
            frozenset({0, 1, 2}),
            "rows a process are kept for some hours only",
        )
    yield Sheet(
        "Processes that no tick saw, by what they cost",
        ("COUNT", "CPU MS", "PEAK MB", "STARTED BY", "CONTAINER", "NAME"),
        tuple(
            (
                Cell(str(one.processes)),
                Cell(f"{one.cpu_ms:.1f}"),
                Cell("-" if one.peak_rss_mb is None else f"{one.peak_rss_mb:.1f}"),
                Cell(printable(one.parent)),
                Cell(shown_name(one, with_engine=several)),
                Cell(printable(one.name)),
            )
            for one in report.short_lived
        ),
        frozenset({0, 1, 2}),
        "none, or BPF was not there",
    )
    yield _removed(report)


def plain(report: Report, ascii_only: bool = False) -> str:
    """Aligned columns without colour, for a pipe."""
    lines = [_headline(report), *_notes(report)]
    for sheet in sheets(report, ascii_only):
        lines += ["", *sheet_lines(sheet)]
    return "\n".join(lines)


def show(report: Report, console: Console) -> None:
    """Tables in colour on `console`."""
    ascii_only = not (console.encoding or "").lower().startswith("utf")
    parts: list[RenderableType] = [Text(_headline(report), style="bold")]
    parts += [Text(note, style="yellow") for note in _notes(report)]
    for sheet in sheets(report, ascii_only, console.width):
        parts.append(Text())
        parts.append(draw(sheet))
    console.print(Group(*parts))


def _headline(report: Report) -> str:
    sources = ", ".join(f"{count} from {name}" for name, count in sorted(report.sources.items()))
    age = span(report.to_ms - report.last.timestamp_ms)
    return (
        f"{moment(report.from_ms)} to {moment(report.to_ms)}: "
        f"{report.ticks} ticks ({sources}), the last {age} before the end"
    )


def _notes(report: Report) -> list[str]:
    """What deserves attention, one line each."""
    notes = []
    if not report.policy.armed:
        since = moment(report.policy.since_ms)
        notes.append(f"The policy is disarmed since {since}: {printable(report.policy.why)}.")
    if report.stops:
        times = "once" if report.stops == 1 else f"{report.stops} times"
        notes.append(f"The agent did not run {times}, {span(report.stopped_ms)} in all.")
    verdicts = report.verdicts
    if verdicts.conflict_ticks:
        notes.append(
            f"The two witnesses disagreed in {verdicts.conflict_ticks} ticks: those processes are "
            "in no total."
        )
    if verdicts.events_lost:
        missed = verdicts.events_missed
        which = f", {missed} of them runs that the kernel skipped" if missed else ""
        notes.append(f"BPF lost {verdicts.events_lost} events{which}.")
    if verdicts.events_corrected:
        notes.append(
            f"BPF met {verdicts.events_corrected} processes in another cgroup than their history "
            "says."
        )
    if verdicts.events_late:
        notes.append(
            f"The end of {verdicts.events_late} processes reached BPF late: no loss, their CPU is "
            "in its place."
        )
    if report.oom_kills:
        whom = "A process was" if report.oom_kills == 1 else f"{report.oom_kills} processes were"
        notes.append(f"{whom} killed for lack of memory: see agent oom.")
    if failed := report.removals.outcomes.get("failed", 0):
        notes.append(f"{failed} removals failed.")
    return notes


def _host(report: Report, spark: Callable[[Curve | None], Cell]) -> Sheet:
    last = report.last
    whole = last.total_kb / _KB_PER_GB
    rows: list[tuple[Cell, ...]] = []

    def add(name: str, curve: Curve | None, scale: float, digits: int) -> None:
        if curve is None:
            return
        figures = (curve.last, curve.least, curve.mean, curve.most)
        rows.append(
            (
                Cell(name),
                *(Cell("-" if one is None else f"{one / scale:.{digits}f}") for one in figures),
                spark(curve),
            )
        )

    add(f"RAM used, of {whole:.1f} GB", report.used_kb, _KB_PER_GB, 2)
    add("RAM available, GB", report.available_kb, _KB_PER_GB, 2)
    add("CPU, % of all", report.cpu_percent, 1, 1)
    add(f"load, {last.cpu_count} CPUs", report.load1, 1, 2)
    add("pressure CPU, %", report.psi_cpu, 1, 1)
    add("pressure memory, %", report.psi_memory, 1, 1)
    add("processes", report.process_count, 1, 0)
    add("containers", report.container_count, 1, 0)
    return Sheet(
        "Host",
        ("", "LAST", "LEAST", "MEAN", "MOST", "OVER TIME"),
        tuple(rows),
        frozenset({1, 2, 3, 4}),
    )


def _container(one: ContainerNow, name: str, held: Cell) -> tuple[Cell, ...]:
    row = one.row
    verdict = one.verified or "no process"
    if one.unusual:
        verdict += f", {one.unusual} unusual"
    return (
        Cell(name),
        Cell(row.tier, TIER_STYLES.get(row.tier, "")),
        Cell(str(row.processes)),
        Cell(f"{row.held_mb:.1f}"),
        Cell(f"{row.rss_mb:.1f}"),
        Cell(f"{row.cpu_percent:.1f}"),
        Cell(verdict, VERDICT_STYLES.get(one.verified, "dim")),
        held,
    )


def _spans(
    title: str, report: Report, rows: tuple[tuple[str, str, float], ...], column: str
) -> Sheet:
    return Sheet(
        title,
        (column, "TIER", "NAME"),
        tuple(
            (
                Cell(f"{value:.1f}"),
                Cell(tier, TIER_STYLES.get(tier, "")),
                Cell(name),
            )
            for name, tier, value in rows
        ),
        frozenset({0}),
        "no container in this time"
        if report.container_count is not None
        else "unknown: Docker did not answer",
    )


def _removed(report: Report) -> Sheet:
    removals = report.removals
    endings = dict(removals.outcomes)
    if removals.left_alone:
        endings["left alone"] = removals.left_alone
        endings["gone"] -= removals.left_alone
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(endings.items()) if count)
    reasons = ", ".join(f"{count} {name}" for name, count in sorted(removals.reasons.items()))
    title = f"Removals: {outcomes}" if outcomes else "Removals"
    if reasons:
        title += f" (removed for {reasons})"
    return Sheet(
        title,
        ("WHEN", "RANK", "REASON", "HELD MB", "CPU %", "OUTCOME", "AVAILABLE MB", "NAME"),
        tuple(
            (
                Cell(moment(one.timestamp_ms)),
                Cell(str(one.rank)),
                Cell(one.reason if one.reason != Reason.RULE else f"rule {one.rule}"),
                Cell(f"{one.held_mb:.1f}"),
                Cell(f"{one.cpu_percent:.1f}"),
                Cell(one.ending, OUTCOME_STYLES.get(one.ending, "")),
                Cell(f"{one.available_before_mb:.0f} -> {one.available_after_mb:.0f}"),
                Cell(printable(one.container_name + (f": {one.error}" if one.error else ""))),
            )
            for one in removals.last
        ),
        frozenset({1, 3, 4}),
        "none in this time",
    )
