"""Counters that outlive the agent's runs: what a container's ticks add up to, and the host's.

A tick knows what happened since the tick before. Whoever scrapes wants sums that never fall while
the container lives, whatever becomes of the agent; they are kept in the database. Pure: one state
and one tick in, the next state out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from agent.model.accounts import ContainerShare
from agent.model.container import ContainerKey
from agent.model.record import TickRecord
from agent.model.removal import BUILT_IN_NAMES, Action, Removal

TICKS = ("ticks",)
EVENTS_LOST = ("bpf_events_lost",)
OOM_KILLS = ("oom_kills",)
OOM_VICTIMS = "oom_victims"
"""With the cause."""
REMOVALS = "removals"
"""By rule, reason and outcome."""
ACTIONS = "actions"
"""What rules did other than remove: by rule, action and outcome."""
BUILT_IN = "original"
"""The rule of what no rule of one's own decided."""

MAX_SERIES = 1000
"""Removals of more rules than this are counted under one name, `OTHERS`."""
OTHERS = "(others)"

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContainerCounters:
    """One container's sums since the agent first saw it. CPU in nanoseconds."""

    living_ns: int = 0
    """CPU of processes that a tick saw, ended ones too. Never falls."""
    short_lived_ns: int = 0
    """CPU of processes that lived less than a tick. Never falls."""
    unexplained_ns: int = 0
    """CPU that no process accounts for; may be negative and may fall."""
    starts: int = 0
    exits: int = 0
    pending_ns: int = 0
    """At most 0: what later ticks have to make up for before `living_ns` rises again. A process
    that one tick counts as seen and the next as short-lived is taken back in between."""

    def plus(self, share: ContainerShare) -> ContainerCounters:
        """With one more interval."""
        living = self.pending_ns + share.living_ns + share.ended_ns
        return ContainerCounters(
            living_ns=self.living_ns + max(0, living),
            short_lived_ns=self.short_lived_ns + max(0, share.short_lived_ns),
            unexplained_ns=self.unexplained_ns + share.unexplained_ns,
            starts=self.starts + max(0, share.events.starts),
            exits=self.exits + max(0, share.events.exits),
            pending_ns=min(0, living),
        )


_NONE = ContainerCounters()


@dataclass(frozen=True, slots=True)
class LastingCounters:
    """All of them at one moment."""

    containers: Mapping[ContainerKey, ContainerCounters] = field(default_factory=dict)
    """Every container that its engine lists and BPF has an account of."""
    host: Mapping[Key, int] = field(default_factory=dict)
    """By name and labels."""

    def after(self, record: TickRecord) -> LastingCounters:
        """With one more tick. Removals are counted apart, as they end."""
        containers = self.containers
        if record.container_count is not None:
            # An engine's list is whole: what is not in it has ended its life.
            listed = {totals.container.key for totals in record.totals}
            containers = {
                key: old
                for key, old in containers.items()
                if key in listed or key.engine in record.silent
            }
            for key, share in record.shares.items():
                if key in listed:
                    containers[key] = containers.get(key, _NONE).plus(share)
        changes: dict[Key, int] = {
            TICKS: 1,
            EVENTS_LOST: max(0, record.checks.events_lost),
            OOM_KILLS: sum(
                totals.oom_kills for totals in record.totals if isinstance(totals.oom_kills, int)
            ),
        }
        for cause in record.oom_causes:
            victims = (OOM_VICTIMS, cause)
            changes[victims] = changes.get(victims, 0) + 1
        return LastingCounters(containers, _added(self.host, changes))

    def with_removals(self, removals: Iterable[Removal]) -> LastingCounters:
        """With what ended, under the rule that decided it."""
        host = self.host
        for removal in removals:
            key = key_of(removal)
            if key not in host and len(host) >= MAX_SERIES:
                key = (key[0], OTHERS, *key[2:])
            host = _added(host, {key: 1})
        return replace(self, host=host)


def key_of(removal: Removal) -> Key:
    """What counts it. Only a removal counts as one; the built-in set's rules are one rule."""
    decision = removal.decision
    rule = BUILT_IN if decision.rule in ("", *BUILT_IN_NAMES) else decision.rule
    if decision.action is Action.REMOVE:
        return (REMOVALS, rule, str(decision.reason), str(removal.outcome))
    return (ACTIONS, rule, str(decision.action), str(removal.outcome))


def _added(host: Mapping[Key, int], changes: Mapping[Key, int]) -> dict[Key, int]:
    return {**host, **{key: host.get(key, 0) + change for key, change in changes.items()}}
