"""What the rules say of the containers at this moment, from outside a running agent.

The engine says what there is, the last stored tick what it holds and uses, the kernel when each
started and what the host has left, and `policy_state` since when something has been so.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from agent.clock import Clock, SystemClock
from agent.config import Config
from agent.daemon.engines import engine_of
from agent.engine_api import own_container
from agent.errors import EngineUnavailableError, SourceError
from agent.model.container import Container, ContainerKey, ContainerTotals, Governance, HeldBasis
from agent.model.removal import Decision
from agent.policy import decide, dependants, governance, idle, original, reclaim
from agent.policy.conditions import IDLE, KB_PER_MB, HostMoment
from agent.policy.decide import Standing
from agent.policy.idle import Idleness
from agent.policy.memory import RuleMemory
from agent.policy.reclaim import BY_HAND, Offer
from agent.policy.rules import RuleSet, needs_labels
from agent.sources import activity, host_metrics, procfs
from agent.sources.cgroup import reader
from agent.sources.memory_pressure import why_missing
from agent.store import handover
from agent.store.installation import existing_installation_id
from agent.store.queries import ContainerRow, History
from agent.store.under_way import under_way
from agent.util.terminal import Say

_STALE_TICKS = 3
_DONE_ALREADY = "done already; it acts again once this was false for a moment"


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that a decision would rest on now."""

    rules: RuleSet
    totals: tuple[ContainerTotals, ...]
    protected: dict[str, str]
    """By full id."""
    standings: tuple[Standing, ...]
    in_doubt: frozenset[ContainerKey]
    """Disputed, or of unknown figures."""
    under_way: frozenset[ContainerKey]
    """Whom the running agent is doing something to: they go first, and are nobody else's."""
    now: HostMoment
    memory: RuleMemory
    installation: str
    age_s: float
    """How old the last stored tick is."""

    @property
    def own_ids(self) -> frozenset[str]:
        """Ids of the container that we run in."""
        return own_container.own_ids()

    def due(self) -> tuple[Decision, ...]:
        """What the rules would do now, rank 1 first."""
        decisions = decide.decisions_of(self.standings, self.rules, lambda: secrets.token_hex(6))
        due = self.memory.arming.due(decisions, self.rules, self.now.now_ns)
        needed = dependants.needed_by(one.container for one in self.totals)
        return tuple(
            one
            for one in due
            if one.container not in self.under_way and not dependants.spares(one, needed)
        )

    def offer(self) -> Offer:
        """Who may go for the memory that it holds, for `plan --free`."""
        return reclaim.offer(
            self.totals,
            self.in_doubt,
            self.own_ids,
            self.rules,
            lambda: f"{BY_HAND}{secrets.token_hex(6)}",
            self.under_way,
        )

    def explained(self) -> tuple[Standing, ...]:
        """The standings, with a word on those that something is being done to, and on those whose
        rule has acted already and holds still."""
        due = {(one.rule, one.container) for one in self.due()}
        done = self.memory.arming.kept.keys() - due

        def told(one: Standing) -> Standing:
            key = one.totals.container.key
            if key in self.under_way:
                return replace(one, why=reclaim.AT_IT)
            if one.acts and (one.rule.name, key) in done:
                return replace(one, why=f"{one.why}; {_DONE_ALREADY}")
            return one

        return tuple(map(told, self.standings))

    def is_stale(self, interval_s: float) -> bool:
        return self.age_s > _STALE_TICKS * interval_s


def look(config: Config) -> Look:
    """Raises EngineUnavailableError, StoreError where no history can be read, and AgentError where
    whom the agent is acting on cannot be.

    One of which the last tick knows no figures is in doubt: nothing would be done to it.
    """
    clock = SystemClock()
    database = Path(config.paths.database)
    rules = original.rule_set(config.policy)
    installation = existing_installation_id(database.parent) or ""
    own_ids = own_container.own_ids()
    # Before the list is asked for: what ends meanwhile may be in it.
    acted_on = under_way(database.parent)
    containers = _listed(config, clock)
    # Before the history: what the agent takes meanwhile is known twice and not missed.
    waiting = handover.waiting(database.parent)
    with History.open(database) as history:
        tick = history.last_tick()
        rows = history.containers_at(tick.timestamp_ms) if tick else ()
        processes = history.container_processes_at(tick.timestamp_ms) if tick else ()
        kept = history.policy_state()
    by_key = {(row.engine, row.container_id): row for row in rows}
    disputed = {(row.engine, row.container_id) for row in processes if row.verified == "conflict"}
    protected: dict[str, str] = {}
    totals = []
    for container in containers:
        seen_as = governance.claim(container, rules, installation, own_ids)
        if seen_as.protected:
            protected[container.id] = seen_as.protected
        row = by_key.get((container.engine, container.short_id))
        totals.append(_totals(container, row, seen_as))
    in_doubt = frozenset(
        one.key
        for one in containers
        if (one.engine, one.short_id) in disputed
        or (one.state.is_running and (one.engine, one.short_id) not in by_key)
    )
    now_ns = clock.boot_ns()
    longest_gap_ns = int(2.5 * config.interval_s * 10**9)
    memory = RuleMemory(longest_gap_ns, kept, now_ns)
    for applied in waiting:
        memory.done(applied.removals, now_ns)
    now = HostMoment(
        now_ns=now_ns,
        available_kb=host_metrics.available_kb(),
        pressure=host_metrics.read().psi_memory_some_avg10,
        started_ns=_started_ns(containers),
        since=memory.timers.since,
        idle=_idle(containers, memory.timers.since) if idle.is_asked_for(rules) else {},
        pressure_missing=missing.reason if (missing := why_missing()) else "",
    )
    standings = decide.standings(totals, in_doubt, rules, now, under_way=acted_on)
    age_s = (clock.wall_ns() / 10**6 - tick.timestamp_ms) / 1000 if tick else float("inf")
    return Look(
        rules,
        tuple(totals),
        protected,
        tuple(standings),
        in_doubt,
        acted_on,
        now,
        memory,
        installation,
        age_s,
    )


def _listed(config: Config, clock: Clock) -> tuple[Container, ...]:
    """The containers of every engine that answers; of one that does not it is said.

    Raises EngineUnavailableError where none does.
    """
    found: list[Container] = []
    problems: list[EngineUnavailableError] = []
    all_labels = needs_labels(config.policy.rule)
    for settings in config.engines:
        try:
            with closing(engine_of(settings, clock, all_labels=all_labels)) as engine:
                found += engine.list().containers
        except EngineUnavailableError as error:
            problems.append(error)
    if len(problems) == len(config.engines):
        raise problems[0]
    say = Say(sys.stderr)
    for problem in problems:
        say(f"Left out: {problem}")
    return tuple(found)


def _totals(container: Container, row: ContainerRow | None, seen_as: Governance) -> ContainerTotals:
    """The container as it is now with the figures of the last tick."""
    return ContainerTotals(
        container=container,
        tier=seen_as.tier,
        governed=seen_as.governed,
        processes=row.processes if row else 0,
        held_kb=round(row.held_mb * KB_PER_MB) if row else 0,
        held_basis=HeldBasis(row.held_basis) if row else HeldBasis.RSS,
        rss_kb=round(row.rss_mb * KB_PER_MB) if row else 0,
        cache_kb=None,
        cpu_percent=row.cpu_percent if row else float("nan"),
        rule=seen_as.rule,
    )


def _idle(
    containers: Sequence[Container], since: Mapping[tuple[ContainerKey, str], int]
) -> dict[ContainerKey, Idleness]:
    """Who was idle at the agent's last tick; what cannot be read now is unknown."""
    try:
        layout = reader.detect()
        seen = activity.read(layout, containers, reader.read(layout, containers))
    except SourceError as error:
        return {one.key: Idleness(None, missing=error.message) for one in containers}
    return {
        key: Idleness(None, missing=one.missing)
        if one.missing
        else Idleness(True, "idle")
        if (key, IDLE) in since
        else Idleness(False, "not idle at the last tick")
        for key, one in seen.items()
    }


def _started_ns(containers: tuple[Container, ...]) -> dict[ContainerKey, int]:
    found = {}
    for one in containers:
        if one.first_pid:
            try:
                found[one.key] = procfs.read_stat("/proc", one.first_pid).start_ns
            except (OSError, ValueError):
                continue
    return found
