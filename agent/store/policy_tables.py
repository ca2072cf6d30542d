"""What decisions rest on beside a tick's figures, as tables: passes, states, samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agent.store.description import Columns, Stored
from agent.store.values import clean, known, mb, mb_or_none, percent_or_none

if TYPE_CHECKING:
    from agent.model.host import MemoryReading
    from agent.model.host_pass import HostPass, PassContainer
    from agent.model.state_seen import StateSeen


class SampleOf(NamedTuple):
    """One sample of the host's memory, and the pass that rested on it."""

    sample: MemoryReading
    of: HostPass


_sample: Columns[SampleOf] = Columns()
_chosen: Columns[PassContainer] = Columns()
_state: Columns[StateSeen] = Columns()


@dataclass(frozen=True, slots=True)
class HostSample(Stored):
    """One row for each second of the host's memory before a pass for its sake."""

    before_ms: int = _sample(lambda one: (one.of.read_ns - one.sample.read_ns) // 10**6)
    """How long before the pass."""
    available_mb: float | None = _sample(lambda one: mb_or_none(one.sample.available_kb))
    psi_memory: float | None = _sample(lambda one: one.sample.pressure)


@dataclass(frozen=True, slots=True)
class PassRow(Stored):
    """One row for each container that a rule claims, in a pass for the host's sake."""

    container_id: str = _chosen(lambda one: clean(one.totals.container.short_id))
    container_name: str = _chosen(lambda one: clean(one.totals.container.name))
    rule: str = _chosen(lambda one: clean(one.rule))
    state: str = _chosen(lambda one: str(one.totals.container.state))
    held_mb: float = _chosen(lambda one: mb(one.totals.held_kb))
    cpu_percent: float | None = _chosen(
        lambda one: percent_or_none(known(one.totals.cpu_percent)), "cpu_usage"
    )
    disputed: bool = _chosen(lambda one: one.disputed)
    decision: str = _chosen(lambda one: clean(one.decision))
    """Of the row in `deletions`; "" where none was made on it."""
    engine: str = _chosen(lambda one: one.totals.container.engine)
    """Whose id it is."""


@dataclass(frozen=True, slots=True)
class StateRow(Stored):
    """One row each time that what seldom changes of a container did, and once an hour."""

    engine: str = _state(lambda one: one.key.engine)
    container_id: str = _state(lambda one: clean(one.key.short_id))
    state: str = _state(lambda one: str(one.state))
    health: str = _state(lambda one: clean(one.health))
    """Docker's word, "" without a health check."""
    created_ms: int = _state(lambda one: one.created_ms, "created")
    started_ms: int = _state(lambda one: one.started_ms, "started")
    """Of its last start, 0 where that is not known."""
    disputed: bool = _state(lambda one: one.disputed)
