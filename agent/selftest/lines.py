"""What the canary was asked to do against what was measured of it, line by line. Pure.

Each line has a tolerance of its own: attribution and counts must be exact, CPU and memory may be
off by what the container's own bookkeeping costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.cli.views.tables import aligned


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `asked` None: nothing to hold it against, only told."""

    what: str
    asked: float | None
    measured: float
    unit: str
    tolerance: float = 0.0
    """Relative to `asked`."""
    note: str = ""

    @property
    def error(self) -> float | None:
        """Relative; None where nothing was asked or 0 was."""
        if not self.asked:
            return None
        return (self.measured - self.asked) / self.asked

    @property
    def is_right(self) -> bool:
        if self.asked is None:
            return True
        return abs(self.measured - self.asked) <= abs(self.asked) * self.tolerance


def is_alive(lines: Sequence[Line]) -> bool:
    """Whether every line is within its tolerance."""
    return all(line.is_right for line in lines)


def text(lines: Sequence[Line]) -> list[str]:
    """Fixed columns, the free text last."""
    rows = [("WHAT", "ASKED", "MEASURED", "ERROR", "", "")]
    for line in lines:
        asked = "-" if line.asked is None else _figure(line.asked, line.unit)
        error = "-" if line.error is None else f"{100 * line.error:+.2f}%"
        mark = "ok" if line.is_right else "OFF"
        if line.asked is None:
            mark = ""
        rows.append((line.what, asked, _figure(line.measured, line.unit), error, mark, line.note))
    return aligned(rows, right=frozenset({1, 2, 3}), least=(34, 12, 12, 8, 3), gap=1)


def _figure(value: float, unit: str) -> str:
    number = f"{value:.0f}" if value == int(value) else f"{value:.2f}"
    return f"{number} {unit}".strip()
