"""What one tick stores: the rows of every table, before they are SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from agent.model.accounts import ContainerShare
from agent.model.attribution import AttributionCounts, Basis, Verified
from agent.model.container import ContainerCgroup, ContainerKey, ContainerTotals
from agent.model.ended import EndedProcess
from agent.model.host import HostFigures, Memory
from agent.model.oom import OomKill
from agent.model.policy_state import PolicyState
from agent.model.process import Source
from agent.model.removal import RemovalPass
from agent.model.state_seen import StateSeen


class ProcessUsage(msgspec.Struct, frozen=True, gc=False):
    """A process's figures over the last interval. 100 percent is one CPU."""

    pid: int
    name: str
    rss_kb: int
    cpu_percent: float


class ContainerProcessUsage(msgspec.Struct, frozen=True, gc=False):
    """A container's process's figures over the last interval."""

    container: ContainerKey
    container_name: str
    pid: int
    name: str
    rss_kb: int
    cpu_percent: float
    verified: Verified
    basis: Basis


@dataclass(frozen=True, slots=True)
class TickRecord:
    """Everything that one tick stores, in one transaction."""

    wall_ns: int
    memory: Memory
    host: HostFigures
    source: Source
    container_count: int | None
    """Of the engines that answer; None while none does."""
    deleted_count: int
    tick_ms: int
    processes: tuple[ProcessUsage, ...]
    container_processes: tuple[ContainerProcessUsage, ...]
    totals: tuple[ContainerTotals, ...]
    passes: tuple[RemovalPass, ...]
    checks: AttributionCounts
    cgroups: Mapping[ContainerKey, ContainerCgroup] = field(default_factory=dict)
    """As read in this tick; empty while no engine answers."""
    silent: frozenset[str] = frozenset()
    """Engines that did not answer."""
    shares: Mapping[ContainerKey, ContainerShare] = field(default_factory=dict)
    """Whose each container's CPU was since the last tick, where BPF has an account of it."""
    oom_kills: tuple[OomKill, ...] = ()
    """Since the last tick that was stored."""
    oom_causes: tuple[str, ...] = ()
    """Of those since the last tick, stored or not."""
    ended: tuple[EndedProcess, ...] = ()
    policy_state: tuple[PolicyState, ...] | None = None
    """What the rules remember, None where nothing of it is to be written."""
    states: tuple[StateSeen, ...] = ()
    """What seldom changes of each container; a row where it did."""
