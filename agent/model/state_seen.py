"""What seldom changes of a container, and what decisions rest on all the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

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
    started_ns: int
    """When its first process started, by the boot clock; 0 where that was not seen."""
    disputed: bool
    """Whether the witnesses disagreed on it."""
    boot_ns: int = field(default=0, compare=False)
    """The wall clock when the boot clock began, as the look had it: clocks are set, and a container
    is another one for no such reason."""

    @property
    def started_ms(self) -> int:
        """The same by the wall clock, 0 where it was not seen."""
        return max(0, self.boot_ns + self.started_ns) // _MS_NS if self.started_ns else 0


def states_seen(
    totals: Iterable[ContainerTotals],
    disputed: Collection[ContainerKey],
    started_ns: Mapping[ContainerKey, int],
    boot_ns: int,
) -> tuple[StateSeen, ...]:
    """Of each container of a look."""
    return tuple(
        StateSeen(
            one.container.key,
            one.container.state,
            one.container.health,
            max(0, one.container.created_ns // _MS_NS),
            started_ns.get(one.container.key, 0),
            one.container.key in disputed,
            boot_ns,
        )
        for one in totals
    )
