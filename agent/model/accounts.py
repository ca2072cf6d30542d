"""The CPU accounts of containers, from one tick to the next, and one account settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.model.bpf import CgroupEvents
from agent.model.process import ProcessKey


class Stay(NamedTuple):
    """A process's time in a container that is not over."""

    base_ns: int
    """Its CPU when the stay began."""
    counted_ns: int
    """Its CPU up to which the account has been closed."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """One container's figures at the last tick."""

    usage_ns: int
    stays: Mapping[ProcessKey, Stay]


@dataclass(frozen=True, slots=True)
class Books:
    """What the next tick needs to know of this one."""

    ledgers: Mapping[str, Ledger] = field(default_factory=dict)
    totals: Mapping[int, CgroupEvents] | None = None
    """Of each cgroup that was a container's, up to the last tick; None before the first."""
    lost: int = 0


@dataclass(frozen=True, slots=True)
class ContainerShare:
    """One container's CPU over one interval and whose it was; the parts sum up to `usage_ns`."""

    usage_ns: int
    living_ns: int
    """Processes that live."""
    ended_ns: int
    """Processes that were seen at the last tick, or before, and are over."""
    short_lived_ns: int
    """Processes that lived less than a tick."""
    unexplained_ns: int
    """Negative where a cost was seen before the cgroup was charged for it."""
    events: CgroupEvents


@dataclass(frozen=True, slots=True)
class Reading:
    """What the next tick needs to know of this one."""

    snapshot_ns: int = 0
    process_cpu_ns: Mapping[ProcessKey, int] = field(default_factory=dict)
    container_cpu_ns: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By container: boot clock of the reading, CPU time used until then."""
    oom_kills: Mapping[str, int] = field(default_factory=dict)
    """By container: since its cgroup was made."""
