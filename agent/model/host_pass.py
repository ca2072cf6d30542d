"""What a pass between two ticks rested on: samples of memory, and the containers it chose of.

Between two ticks nothing else of it would be stored, and nobody could say later why it decided so.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.container import ContainerTotals
from agent.model.host import MemoryReading
from agent.model.state_seen import StateSeen


@dataclass(frozen=True, slots=True)
class PassContainer:
    """One container that a rule claims, as the pass saw it."""

    totals: ContainerTotals
    rule: str
    disputed: bool
    decision: str = ""
    """The id of the decision on it, "" where none was made."""


@dataclass(frozen=True, slots=True)
class HostPass:
    """One pass that decided something."""

    read_ns: int
    """Boot clock, of its own reading: the last of `samples`."""
    samples: tuple[MemoryReading, ...]
    """One a second from where a bound came near, oldest first."""
    containers: tuple[PassContainer, ...]
    states: tuple[StateSeen, ...] = ()
    """Of every container of this look."""
