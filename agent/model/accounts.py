"""The CPU accounts of containers, from one tick to the next, and one account settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.model.bpf import NO_LOSSES, CgroupEvents, CommandFigures, CommandKey, Losses
from agent.model.container import ContainerKey, ShortLivedCommand
from agent.model.process import ProcessKey


class Residency(NamedTuple):
    """A process's time in a container that is not over."""

    base_ns: int
    """Its CPU when the stay began."""
    counted_ns: int
    """Its CPU up to which the account has been closed."""


@dataclass(frozen=True, slots=True)
class Balance:
    """One container's figures at the last tick."""

    usage_ns: int
    residencies: Mapping[ProcessKey, Residency]
    life_id: int = 0
    """As `ContainerCgroup.life_id`: whose counter `usage_ns` is."""


@dataclass(frozen=True, slots=True)
class CpuAccounts:
    """What the next tick needs to know of this one."""

    balances: Mapping[ContainerKey, Balance] = field(default_factory=dict)
    totals: Mapping[int, CgroupEvents] | None = None
    """Of each cgroup that was a container's, up to the last tick; None before the first."""
    lost: Losses = NO_LOSSES
    owner: Mapping[int, ContainerKey] = field(default_factory=dict)
    """The container of each cgroup in `totals`: one that has ended since has no directory left."""
    short_lived: Mapping[CommandKey, CommandFigures] = field(default_factory=dict)
    read_ns: int = 0
    """Boot clock of the last reading."""


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
    commands: tuple[ShortLivedCommand, ...] = ()
    """Whose `short_lived_ns` was; sums up to it."""
    past_ns: int = 0
    """The part of `usage_ns` of a life that has ended since. Its counter went with its cgroup, so
    it is what its processes cost, and nothing of it is unexplained."""

    def plus(self, past: ContainerShare) -> ContainerShare:
        """This share of the life that is, with that of the one before."""
        return ContainerShare(
            usage_ns=self.usage_ns + past.usage_ns,
            living_ns=self.living_ns + past.living_ns,
            ended_ns=self.ended_ns + past.ended_ns,
            short_lived_ns=self.short_lived_ns + past.short_lived_ns,
            unexplained_ns=self.unexplained_ns + past.unexplained_ns,
            events=self.events.plus(past.events),
            past_ns=past.usage_ns,
        )


class Counters(NamedTuple):
    """What one life of a container had used by one moment.

    A container that is started again gets a new cgroup, whose counters begin at 0: only those of
    the same life can be held against each other.
    """

    life_id: int
    """As `ContainerCgroup.life_id`."""
    read_ns: int
    """Boot clock."""
    cpu_ns: int | None
    oom_kills: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the next tick needs to know of this one."""

    snapshot_ns: int = 0
    process_cpu_ns: Mapping[ProcessKey, int] = field(default_factory=dict)
    counters: Mapping[ContainerKey, Counters] = field(default_factory=dict)
    """By container."""
    engine_ooms: Mapping[ContainerKey, int] = field(default_factory=dict)
    """By container: as `with_engine_ooms` was given them."""
    ooms_ahead: Mapping[ContainerKey, int] = field(default_factory=dict)
    """By container: kills that the kernel counted and the engine may not have told yet."""
