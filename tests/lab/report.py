"""Reads the report that pytest leaves, so that outcomes and skips are seen outside of a guest.

A skip that nobody sees passes for success: each is shown with its reason.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import LabError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Case:
    """One test: its name, what became of it, why, how long it took, and figures it recorded."""

    name: str
    outcome: str
    reason: str
    seconds: float
    figures: tuple[tuple[str, str], ...] = ()


def read_report(path: Path) -> list[Case]:
    """The tests of a junit.xml in their order; LabError when it is not one."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise LabError(f"{path} is no report: {error}") from error
    cases = []
    for element in root.iter("testcase"):
        name = f"{element.get('classname', '')}::{element.get('name', '')}"
        outcome, reason = "passed", ""
        for child in element:
            if child.tag in ("failure", "error"):
                outcome, reason = "failed", child.get("message") or ""
                break
            if child.tag == "skipped":
                outcome, reason = "skipped", child.get("message") or ""
        figures = tuple(
            (found.get("name", ""), found.get("value", "")) for found in element.iter("property")
        )
        cases.append(Case(name, outcome, reason, float(element.get("time") or 0), figures))
    return cases


def counts(cases: list[Case]) -> dict[str, int]:
    """How many passed, failed and were skipped."""
    return {
        outcome: sum(case.outcome == outcome for case in cases)
        for outcome in ("passed", "failed", "skipped")
    }


def summary_lines(cases: list[Case]) -> list[str]:
    """The counts, then a line a failed or skipped test, with its reason."""
    lines = [", ".join(f"{number} {outcome}" for outcome, number in counts(cases).items())]
    for outcome in ("failed", "skipped"):
        for case in cases:
            if case.outcome == outcome:
                reason = case.reason.splitlines()[0] if case.reason else "no reason given"
                lines.append(f"{outcome}: {case.name}: {reason}")
    return lines + figure_lines(cases)


def figure_lines(cases: list[Case]) -> list[str]:
    """What tests measured and recorded (pytest's record_property), a line a test."""
    return [
        f"measured: {case.name}: {', '.join(f'{name} {value}' for name, value in case.figures)}"
        for case in cases
        if case.figures
    ]
