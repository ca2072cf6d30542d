"""What seldom changes of a container, and what decisions rest on all the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from agent.model.container import ContainerKey, ContainerState, ContainerTotals

_MS_NS = 10**6


@dataclass(frozen=True, slots=True)
class StateSeen:
    """One container as a look found it."""

    key: ContainerKey
    state: ContainerState
    health: str
    created_ms: int
    """Wall clock."""
    started_ms: int
    """Its last start by the engine's word, 0 where that is not known."""
    disputed: bool
    """Whether the witnesses disagreed on it."""


def states_seen(
    totals: Iterable[ContainerTotals], disputed: Collection[ContainerKey]
) -> tuple[StateSeen, ...]:
    """Of each container of a look."""
    return tuple(
        StateSeen(
            one.container.key,
            one.container.state,
            one.container.health,
            max(0, one.container.created_ns // _MS_NS),
            max(0, one.container.started_ns // _MS_NS),
            one.container.key in disputed,
        )
        for one in totals
    )
