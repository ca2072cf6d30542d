"""One tick: a look at everything, the decisions on it, what is carried out, and one row of it all.

Everything that can fail outside (Docker, the modules, the disk) has its own way to degrade here: a
tick stores what is known, reports once what is not, and removes no container on half knowledge.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.clock import Clock
from agent.config import PolicySettings
from agent.daemon.autopsies import Autopsies, Findings
from agent.daemon.collector import Collector, Stopwatch, look
from agent.daemon.removals import Removals
from agent.engine_api.own_container import OwnContainer
from agent.errors import StoreError
from agent.model.attribution import AttributionCounts
from agent.model.container import Container, ContainerKey, ContainerTotals, Governance, Tier
from agent.model.host import HostFigures
from agent.model.record import TickRecord
from agent.model.removal import BUILT_IN_NAMES, Decision, Outcome, Removal, RemovalPass
from agent.model.tick import Carried, Tick
from agent.policy import decide, dependants, governance, original
from agent.policy.memory import RuleMemory
from agent.policy.recreation import Recreations
from agent.store.store import Store

if TYPE_CHECKING:
    from agent.daemon.metrics import Metrics

log = logging.getLogger(__name__)

_MAX_SHOWN = 256
"""Characters of an owner's name in a line of the log."""


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one tick did, for its line on the terminal and for `agent status`."""

    number: int
    wall_ns: int
    source: str
    processes: int
    mapped: int
    checks: AttributionCounts
    container_count: int | None
    tiers: Mapping[str, int]
    removed: int
    failed: int
    used_kb: int
    total_kb: int
    tick_ms: int
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    stored: bool = True


class Ticker:
    """Runs ticks, and the passes that hold the limit between two of them.

    What one tick hands to the next is one immutable value, `Carried`.
    """

    def __init__(
        self,
        *,
        collector: Collector,
        own: OwnContainer,
        removals: Removals,
        store: Store,
        clock: Clock,
        settings: PolicySettings,
        installation: str,
        stopwatch: Stopwatch,
        mark: Callable[[int], None],
        carried: Carried,
        autopsies: Autopsies,
        memory: RuleMemory,
        applied: Callable[[], Sequence[RemovalPass]],
        metrics: Metrics | None = None,
    ) -> None:
        """`mark` is called with the moment of each tick's snapshot (boot clock); `carried` is what
        a tick before the first would have left: the host's counters, for the first interval;
        `memory` is what the rules of an earlier run remembered, `applied` gives what was
        carried out outside the ticks."""
        self._collector = collector
        self._own = own
        self._removals = removals
        self._store = store
        self._clock = clock
        self._settings = settings
        self._installation = installation
        self._stopwatch = stopwatch
        self._mark = mark
        self._carried = carried
        self._metrics = metrics
        self._autopsies = autopsies
        self._number = 0
        self._rules = original.rule_set(settings)
        self._memory = memory
        self._applied = applied
        self._needed_reported: set[ContainerKey] = set()
        self.recreations = Recreations(installation)

    def use(self, settings: PolicySettings) -> None:
        """Goes by other rules from now on. What was measured and done so far stays known."""
        self._settings = settings
        self._rules = original.rule_set(settings)

    def tick(self) -> TickReport:
        """Looks, holds the policy, stores one row of everything.

        Raises SourceError where no process source works; removals that ended by then are stored. A
        full disk or a broken database is not raised: the tick is counted as unstored by the store,
        which is asked for it in `status`.
        """
        try:
            return self._tick()
        finally:
            self._removals.write(self._clock.wall_ns())

    def _tick(self) -> TickReport:
        began_ns = self._clock.boot_ns()
        self._number += 1
        self._stopwatch.stages_ms.clear()
        self._note_ended(self._removals.collect())
        self._note_ended(self._removals.take_up(self._applied()))
        tick = self._look(for_tick=True)
        self._mark(tick.sample.snapshot.snapshot_ns)
        if decisions := self._stopwatch.time("decide", lambda: self._decide(tick)):
            self._stopwatch.time("remove", lambda: self._carry_out(decisions))
        gone = self._removals.away_since_row
        count = _running_count(tick, gone)
        snapshot = tick.sample.snapshot
        view = tick.sample.cgroups.value
        findings = self._find(tick)
        record = TickRecord(
            wall_ns=self._clock.wall_ns(),
            memory=snapshot.memory,
            host=tick.host or _NO_HOST_FIGURES,
            source=snapshot.source,
            container_count=count,
            deleted_count=self._removals.removed_since_row,
            tick_ms=(self._clock.boot_ns() - began_ns) // 10**6,
            processes=tick.processes,
            container_processes=tick.container_processes,
            totals=tick.totals,
            passes=self._removals.passes,
            checks=tick.attribution.counts,
            oom_kills=findings.kills,
            oom_causes=findings.causes,
            ended=findings.ended,
            cgroups=view.containers if view else {},
            silent=frozenset(tick.sample.silent),
            shares=tick.cpu_shares,
            policy_state=self._memory.rows(),
        )
        self._carried = tick.carried
        removed, failed = self._removals.removed_since_row, self._removals.failed_since_row
        stored = self._stopwatch.time("store", lambda: self._write(record))
        if self._metrics is not None:
            self._metrics.show(record, armed=self._removals.armed, stored=stored)
        return TickReport(
            number=self._number,
            wall_ns=record.wall_ns,
            source=snapshot.source,
            processes=len(snapshot.processes),
            mapped=len(tick.attribution.rows),
            checks=tick.attribution.counts,
            container_count=count,
            tiers=_by_tier(tick.totals, gone),
            removed=removed,
            failed=failed,
            used_kb=snapshot.memory.used_kb,
            total_kb=snapshot.memory.total_kb,
            tick_ms=(self._clock.boot_ns() - began_ns) // 10**6,
            stages_ms=dict(self._stopwatch.stages_ms),
            stored=stored,
        )

    def _find(self, tick: Tick) -> Findings:
        """Who ended, and why whom the OOM killer chose, since the last tick."""
        autopsies, before = self._autopsies, self._carried
        return self._stopwatch.time("oom", lambda: autopsies.of(tick, before))

    def hold_limit(self) -> int:
        """A pass at once where more governed containers run than allowed, not at the next tick.

        Gives how many containers were removed; `deletions` is written here, the next tick's row
        counts them. Raises SourceError as `tick` does.
        """
        settled = self._settled()
        if not settled:
            return 0
        running = Counter(
            one.engine
            for one in self._collector.list_containers()
            if one.engine in settled
            and one.state.is_running
            and decide.counts_to_limit(self._rules.named(self._govern(one).rule))
        )
        if not any(decide.over_limit(count, self._settings) for count in running.values()):
            return 0
        tick = self._look(for_tick=False)
        # The next tick's interval begins at the last stored one, whatever was seen in between.
        self._carried = replace(self._carried, unknown_cgroups=tick.carried.unknown_cgroups)
        decisions = self._decide(tick)
        if not decisions:
            return 0
        removed = self._carry_out(decisions)
        self._removals.write(self._clock.wall_ns())
        log.info("pass=at-once running=%d removed=%d", running.total(), removed)
        return removed

    def finish(self, wait_s: float) -> None:
        """Waits for removals under way, up to `wait_s`, and writes how they ended; for the stop."""
        self._removals.finish(wait_s, self._clock.wall_ns())

    def _look(self, *, for_tick: bool) -> Tick:
        tick = look(self._collector, self._own, self._carried, self._govern, for_tick=for_tick)
        if tick.engine_answers:
            self._removals.forget_all_but(
                {one.key for one in tick.containers}, frozenset(tick.sample.silent)
            )
            for owner in self.recreations.seen(tick.containers, self._clock.boot_ns()):
                log.warning("outcome=owner-recreates owner=%r", owner[:_MAX_SHOWN])
        return tick

    def _govern(self, container: Container) -> Governance:
        return governance.claim(container, self._rules, self._installation, self._own.ids)

    def _decide(self, tick: Tick) -> tuple[Decision, ...]:
        """Nothing on half knowledge, and nothing where the engine went away since the look: of
        each engine for itself."""
        acting = tick.may_act & self._settled()
        if not acting:
            return ()
        now = self._memory.moment(tick, self._rules)
        totals = [one for one in tick.totals if one.container.engine in acting]
        standing = decide.standings(totals, tick.attribution.disputed, self._rules, now)
        if tick.host is not None:
            # A look between two ticks knows less of the host, and re-arms nothing.
            self._memory.arming.seen(standing, frozenset(self._collector.engines) - acting)
        decisions = decide.decisions_of(standing, self._rules, lambda: secrets.token_hex(6))
        due = self._memory.arming.due(decisions, self._rules, self._clock.boot_ns())
        needed = dependants.needed_by(tick.containers)
        self._report_needed(due, needed)
        return tuple(
            one
            for one in due
            if not (self._is_left_to_its_owner(one) or dependants.spares(one, needed))
        )

    def _report_needed(self, due: Sequence[Decision], needed: Mapping[ContainerKey, str]) -> None:
        """The built-in set goes on, and whoever looks after the other container must hear of it."""
        now = {one.container for one in due if one.container in needed}
        for key in now - self._needed_reported:
            log.warning("container=%s outcome=needed %s", key.short_id, needed[key][:_MAX_SHOWN])
        self._needed_reported = now

    def _is_left_to_its_owner(self, decision: Decision) -> bool:
        """Whether somebody brings it back each time. The built-in set goes on removing."""
        return (
            decision.rule not in BUILT_IN_NAMES
            and decision.action.is_destructive
            and self.recreations.is_returning(decision.container)
        )

    def _settled(self) -> frozenset[str]:
        """The engines that a whole tick has seen since they were last away."""
        seen = self._carried.engines_seen
        counts = self._collector.interruptions
        return frozenset(name for name, count in counts.items() if seen.get(name, 0) == count)

    def _carry_out(self, decisions: Sequence[Decision]) -> int:
        """How many were removed."""
        done = self._removals.carry_out(decisions)
        self._note_ended(done)
        return sum(one.outcome is Outcome.REMOVED for one in done)

    def _note_ended(self, removals: Sequence[Removal]) -> None:
        now_ns = self._clock.boot_ns()
        self.recreations.removed(removals, now_ns)
        self._memory.done(removals, now_ns)

    def _write(self, record: TickRecord) -> bool:
        """Whether the tick is stored. Why it is not the store says, once for an outage."""
        self._removals.handed_over()
        if self._metrics is not None:
            self._metrics.ticked(record)
        try:
            self._store.write_tick(record)
        except StoreError:
            return False
        self._removals.counted()
        self._autopsies.stored()
        self._memory.stored(record.policy_state)
        return True


_NO_HOST_FIGURES = HostFigures(0.0, 1, 0.0, None, None)


def _running_count(tick: Tick, gone: frozenset[ContainerKey]) -> int | None:
    """Running containers without Grafana that remain; None while the engine does not answer."""
    if not tick.engine_answers:
        return None
    return sum(
        container.state.is_running
        and container.key not in gone
        and not governance.is_grafana(container)
        for container in tick.containers
    )


def _by_tier(totals: Sequence[ContainerTotals], gone: frozenset[ContainerKey]) -> dict[str, int]:
    counts = {str(tier): 0 for tier in Tier}
    for one in totals:
        if one.container.state.is_running and one.container.key not in gone:
            counts[one.tier] += 1
    return counts
