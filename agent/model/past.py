"""What the history has of a moment that has gone by, for whoever decides on it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple


class PastContainer(NamedTuple):
    """One row of `container_totals`. Its id is the short one. What seldom changes comes first."""

    container_id: str
    name: str
    image: str
    """"" where nobody asked for it."""
    tier: str
    """The same of a row that says which rule claimed it."""
    governed: int
    rule: str | None
    """The rule that claimed it; None where none did, and in rows of before there were rules."""
    engine: str
    processes: int
    held_mb: float
    cpu_percent: float
    timestamp_ms: int = 0
    """Of its tick."""

    @property
    def runs(self) -> bool:
        """As far as its figures tell: one without a process holds nothing."""
        return self.processes > 0 or self.held_mb > 0


PastRow = tuple[str, str, str, str, int, str | None, str, int, float, float, int]
"""A `PastContainer` as the database gives it: a month has millions of them, and most are never
looked at by name."""
STATIC = slice(0, 7)
"""Of such a row: what seldom changes."""
PROCESSES: Final = 7
HELD_MB: Final = 8
CPU_PERCENT: Final = 9


class PastTick(NamedTuple):
    """One tick."""

    timestamp_ms: int
    available_mb: float
    psi_memory: float | None
    engine_answered: bool
    disputed: frozenset[str] | None
    """Short ids; None where the witnesses disagreed and of whom is not stored any more."""
    rows: Sequence[PastRow]
    took_ms: int = 0
    """From its beginning, when it looked, to its row."""

    @property
    def containers(self) -> tuple[PastContainer, ...]:
        return tuple(map(PastContainer._make, self.rows))


class PastState(NamedTuple):
    """One row of `container_states`: what seldom changes of a container, from then on."""

    timestamp_ms: int
    engine: str
    container_id: str
    state: str
    health: str
    created_ms: int
    started_ms: int
    """Its last start, 0 where that was not known."""
    disputed: int


class PastDecision(NamedTuple):
    """One row of `deletions`."""

    timestamp_ms: int
    decision: str
    container_id: str
    container_name: str
    reason: str
    outcome: str
    error: str
    action: str
    rule: str
    engine: str
    held_mb: float


class PastPassContainer(NamedTuple):
    """One row of `pass_containers`."""

    container_id: str
    name: str
    rule: str
    state: str
    held_mb: float
    cpu_percent: float | None
    disputed: int
    decision: str
    """Of its row in `deletions`, "" for none."""
    engine: str


class PastPass(NamedTuple):
    """One pass between two ticks, and what it rested on."""

    timestamp_ms: int
    samples: tuple[tuple[int, float | None, float | None], ...]
    """How long before it (ms), available MB, pressure; oldest first."""
    containers: tuple[PastPassContainer, ...]
