"""How a container is called on a terminal: with its pod and, of several engines, its engine.

Kubernetes' names have their pod already (`namespace/pod/container`), older rows excepted. podman's
are one container's without it, and have it put before them where there is room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from agent.util.terminal import printable


class OfEngine(Protocol):
    """What is needed of any row with a container."""

    @property
    def container_name(self) -> str: ...
    @property
    def engine(self) -> str: ...


class NamedRow(OfEngine, Protocol):
    """What is needed of a row of `container_totals`."""

    @property
    def pod(self) -> str: ...


R = TypeVar("R", bound=NamedRow)


def are_several(*groups: Iterable[OfEngine]) -> bool:
    """Whether the rows are of more engines than one."""
    return len({row.engine for rows in groups for row in rows}) > 1


def shown_names(rows: Iterable[R], *, with_engine: bool | None = None) -> dict[R, str]:
    """What to call each row: `name`, `pod/name`, or `engine: …` where the rows have several.

    `with_engine` is the answer where more than these rows decides.
    """
    every = tuple(rows)
    several = are_several(every) if with_engine is None else with_engine
    return {row: engine_name(row.engine, _in_pod(row), with_engine=several) for row in every}


def shown_name(row: OfEngine, *, with_engine: bool) -> str:
    """One row's name, as it is stored."""
    return engine_name(row.engine, row.container_name, with_engine=with_engine)


def engine_name(engine: str, name: str, *, with_engine: bool) -> str:
    """A name with what steers a terminal as escapes."""
    return printable(f"{engine}: {name}" if with_engine else name)


def _in_pod(row: NamedRow) -> str:
    if not row.pod or row.container_name.startswith(f"{row.pod}/"):
        return row.container_name
    return f"{row.pod}/{row.container_name}"
