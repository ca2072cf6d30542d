"""What the history has of a moment that has gone by, for whoever decides on it again."""

from __future__ import annotations

from typing import NamedTuple


class PastContainer(NamedTuple):
    """One row of `container_totals`. Its id is the short one."""

    container_id: str
    name: str
    image: str
    tier: str
    governed: int
    processes: int
    held_mb: float
    cpu_percent: float
    rule: str | None
    """The rule that claimed it; None where none did, and in rows of before there were rules."""
    engine: str
    timestamp_ms: int = 0
    """Of its tick."""

    @property
    def runs(self) -> bool:
        """As far as its figures tell: one without a process holds nothing."""
        return self.processes > 0 or self.held_mb > 0


class PastTick(NamedTuple):
    """One tick."""

    timestamp_ms: int
    available_mb: float
    psi_memory: float | None
    engine_answered: bool
    disputed: frozenset[str] | None
    """Short ids; None where the witnesses disagreed and of whom is not stored any more."""
    containers: tuple[PastContainer, ...]


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


class PastPass(NamedTuple):
    """One pass between two ticks, and what it rested on."""

    timestamp_ms: int
    samples: tuple[tuple[int, float | None, float | None], ...]
    """How long before it (ms), available MB, pressure; oldest first."""
    containers: tuple[PastPassContainer, ...]
