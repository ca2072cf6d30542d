"""Tables before anybody decides how they are drawn, and as plain lines: for pipes and logs.

`drawing` puts the same sheets on a terminal; it needs rich, which the running agent never loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table; `style` is for terminals alone."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table, before anybody decides how it is drawn."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[int] = field(default_factory=frozenset)
    """Columns of figures."""
    empty: str = "none"
    """What is said where there are no rows."""


def aligned(
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[int] = frozenset(),
    least: Sequence[int] = (),
    gap: int = 2,
) -> list[str]:
    """One line for each row, its columns one below the other; every row has as many.

    `right` are the columns of figures, `least` the fewest characters of the first columns, `gap`
    the spaces between two. A line ends with its last character.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = [max(pair) for pair in zip(widths, [*least, *[0] * len(widths)], strict=False)]
    return [
        (" " * gap)
        .join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]


def sheet_lines(sheet: Sheet) -> list[str]:
    """A sheet as lines: its title, and below it the columns or that there are no rows."""
    if not sheet.rows:
        return [sheet.title, f"  {sheet.empty}"]
    table = [sheet.columns, *([cell.text for cell in row] for row in sheet.rows)]
    return [sheet.title, *(f"  {line}".rstrip() for line in aligned(table, right=sheet.right))]
