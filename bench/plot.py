"""Lines over time as one SVG file, written by hand: no plotting library is needed to look at what a
soak measured, and the file can be read in a diff.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 170, 70, 20, 34, 26
_COLOURS = ("#1f5fa8", "#c4601d", "#4a7d3a")
_INK, _FAINT = "#222222", "#dddddd"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: points of (minutes, value), in time order."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart; its scale begins at 0, so that growth looks as large as it is."""

    title: str
    lines: Sequence[Line]


def page(title: str, panels: Sequence[Panel]) -> str:
    """The SVG text of all panels below each other, over one time axis in minutes."""
    height = 40 + len(panels) * _PANEL
    end = max((at for panel in panels for line in panel.lines for at, _ in line.points), default=1)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(_LEFT, 24, title, "font-size='15' font-weight='bold'"),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, 40 + number * _PANEL, end)
    return "\n".join([*parts, "</svg>"]) + "\n"


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten that is not below `value`."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.999)


def _panel(panel: Panel, top: float, end: float) -> list[str]:
    highest = max((value for line in panel.lines for _, value in line.points), default=0.0)
    ceiling = nice_ceiling(highest)
    bottom = top + _PANEL - _BOTTOM

    def x(minutes: float) -> float:
        return _LEFT + minutes / (end or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return bottom - value / ceiling * (_PANEL - _TOP - _BOTTOM)

    parts = [_text(_LEFT, top + 18, panel.title, "font-weight='bold'")]
    for share in (0.0, 0.5, 1.0):
        level = y(ceiling * share)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}" '
            f'stroke="{_FAINT}"/>'
        )
        parts.append(
            _text(_LEFT - 6, level + 4, f"{ceiling * share:g}", "text-anchor='end' fill='#555555'")
        )
    step = nice_ceiling(end / 8)
    for tick in range(int(end / step + 1e-9) + 1):
        anchor = "text-anchor='middle' fill='#555555'"
        parts.append(_text(x(tick * step), bottom + 15, f"{tick * step:g}", anchor))
    parts.append(_text(_WIDTH - _RIGHT, bottom + 15, "min", "text-anchor='end' fill='#555555'"))
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points)
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
        )
        place = _WIDTH - _RIGHT - 150 * (len(panel.lines) - 1 - number)
        parts.append(_text(place, top + 18, line.name, f"text-anchor='end' fill='{colour}'"))
    return parts


def _text(x: float, y: float, text: str, more: str = "") -> str:
    fill = "" if "fill=" in more else f" fill='{_INK}'"
    return f'<text x="{x:.1f}" y="{y:.1f}"{fill} {more}>{escape(text)}</text>'
