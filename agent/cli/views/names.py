"""How a container is called on a terminal: with its pod and, of several engines, its engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from agent.util.terminal import printable


class NamedRow(Protocol):
    """What is needed of a row of `container_totals`."""

    @property
    def container_name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def pod(self) -> str: ...


R = TypeVar("R", bound=NamedRow)


def shown_names(rows: Iterable[R]) -> dict[R, str]:
    """What to call each row: `name`, `pod/name`, or `engine: …` where the rows have several."""
    every = tuple(rows)
    several = len({row.engine for row in every}) > 1
    return {row: shown_name(row, with_engine=several) for row in every}


def shown_name(row: NamedRow, *, with_engine: bool) -> str:
    """One row's name, with what steers a terminal as escapes."""
    name = f"{row.pod}/{row.container_name}" if row.pod else row.container_name
    return printable(f"{row.engine}: {name}" if with_engine else name)
