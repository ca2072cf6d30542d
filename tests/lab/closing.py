"""The end of a whole test run: what each layer took, what was skipped and why, and one last line.

Reads pytest's reports of all layers, so that the last line counts every test once and a layer that
fell over without a report counts as failed and never as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LabError
from .report import Case, counts, figure_lines, read_report

if TYPE_CHECKING:
    from collections.abc import Sequence

# pytest's own statuses for «all passed» and «some failed»; with another the layer itself failed.
_ORDINARY = (0, 1)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's run. `skipped` is why it did not run at all, else empty."""

    name: str
    seconds: int
    status: int
    report: Path
    skipped: str = ""


def parse_layer(text: str) -> Layer:
    """A layer of `NAME,SECONDS,STATUS,REPORT[,WHY SKIPPED]`."""
    try:
        name, seconds, status, report, *why = text.split(",", 4)
        return Layer(name, int(seconds), int(status), Path(report), "".join(why))
    except ValueError as error:
        raise LabError(f"{text!r} is no layer", "NAME,SECONDS,STATUS,REPORT[,WHY]") from error


def cases_of(layer: Layer) -> list[Case]:
    """Its tests, and one more that failed (or was skipped) when the layer itself did not run."""
    itself = f"the layer {layer.name}"
    if layer.skipped:
        return [Case(itself, "skipped", layer.skipped, 0)]
    try:
        cases = read_report(layer.report)
    except LabError:
        return [Case(itself, "failed", f"ended with {layer.status}, without a report", 0)]
    if layer.status not in _ORDINARY or (layer.status == 1 and not counts(cases)["failed"]):
        cases.append(Case(itself, "failed", f"ended with {layer.status}", 0))
    return cases


def closing(layers: Sequence[Layer], *, strict: bool) -> tuple[list[str], bool]:
    """The closing lines and whether all is well; `strict` takes no skipped vm layer for well."""
    lines: list[str] = []
    total: list[Case] = []
    for layer in layers:
        cases = cases_of(layer)
        total += cases
        lines += [f"{layer.name}: {line}" for line in figure_lines(cases)]
        for outcome in ("failed", "skipped"):
            for case in cases:
                if case.outcome == outcome:
                    reason = case.reason.splitlines()[0] if case.reason else "no reason given"
                    lines.append(f"{outcome}: {layer.name}: {case.name}: {reason}")
    lines.append(f"{'layer':14} {'time':>7} {'passed':>7} {'failed':>7} {'skipped':>8}")
    for layer in layers:
        number = counts(cases_of(layer))
        clock = f"{layer.seconds // 60}:{layer.seconds % 60:02}"
        lines.append(
            f"{layer.name:14} {clock:>7} {number['passed']:7} {number['failed']:7} "
            f"{number['skipped']:8}"
        )
    seconds = sum(layer.seconds for layer in layers)
    lines.append(f"{'all':14} {seconds // 60:4}:{seconds % 60:02}")
    missing = [layer.name for layer in layers if layer.skipped and layer.name.startswith("vm")]
    if strict and missing:
        lines.append(f"not run, which CI does not accept: {', '.join(missing)}")
    number = counts(total)
    lines.append(", ".join(f"{number[outcome]} {outcome}" for outcome in number))
    return lines, not number["failed"] and not (strict and missing)
