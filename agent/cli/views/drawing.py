"""Tables on a terminal, drawn with rich: cells are text and never markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.cli.views.tables import Cell, Sheet
from agent.util.terminal import fit

_NAMES = frozenset({"NAME", "CONTAINER"})
"""Columns of names that workloads chose."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name in whatever room a table has for it, both ends kept."""

    text: str
    style: str = ""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = cell_len(self.text)
        return Measurement(min(8, whole), whole)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        fits = cell_len(self.text) <= room
        text = self.text if fits else fit(self.text, room)
        yield Text(text, self.style, no_wrap=True, overflow="ellipsis")


def draw(sheet: Sheet) -> RenderableType:
    """A sheet as a table of rich, its cells as text and never as markup."""
    title = Text(sheet.title, style="bold")
    if not sheet.rows:
        return Group(title, Padding(Text(sheet.empty, style="dim"), (0, 0, 0, 2)))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(sheet.columns):
        last = place == len(sheet.columns) - 1
        table.add_column(
            Text(name),
            justify="right" if place in sheet.right else "left",
            # What may wrap gives way first, and a name never does wrap.
            no_wrap=name not in _NAMES,
            overflow="ellipsis" if last else "crop",
            min_width=8 if name in _NAMES else min(len(name), 8),
        )
    for row in sheet.rows:
        table.add_row(
            *(
                (_Name if name in _NAMES else Text)(cell.text, cell.style)
                for name, cell in zip(sheet.columns, row, strict=True)
            )
        )
    return Group(title, Padding(table, (0, 0, 0, 2)))


def folded(rows: Sequence[Sequence[Cell]], columns: Sequence[str] = ()) -> RenderableType:
    """Rows of sentences, each whole and folded within its column; `columns` are their headings."""
    table = Table(box=None, pad_edge=False, show_header=bool(columns), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        if not table.columns:
            for _ in row:
                table.add_column(overflow="fold")
        table.add_row(*(Text(cell.text, cell.style) for cell in row))
    return table
