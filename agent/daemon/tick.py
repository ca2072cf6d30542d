"""One tick: a look at everything, the decisions on it, what is carried out, and one row of it all.

Everything that can fail outside (Docker, the modules, the disk) has its own way to degrade here: a
tick stores what is known, reports once what is not, and removes no container on half knowledge.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.clock import Clock
from agent.config import PolicySettings
from agent.daemon.applied import Applied
from agent.daemon.autopsies import Autopsies, Findings
from agent.daemon.collector import Collector, Stopwatch, look
from agent.daemon.left_alone import LeftAlone
from agent.daemon.removals import Removals
from agent.daemon.tick_values import (
    CHANGED,
    NO_HOST_FIGURES,
    TickReport,
    by_tier,
    rested_on_now,
    running_count,
    states_now,
)
from agent.daemon.trust import Trust
from agent.engine_api.own_container import OwnContainer
from agent.errors import StoreError
from agent.model.container import Container, ContainerKey, Governance
from agent.model.host_pass import HostPass
from agent.model.record import TickRecord
from agent.model.removal import Decision, Outcome, Removal
from agent.model.tick import Carried, Tick
from agent.policy import decide, governance, original
from agent.policy.alerts import Lasting
from agent.policy.host_bounds import as_seen, is_of_host
from agent.policy.host_watch import HostWatch
from agent.policy.memory import RuleMemory
from agent.policy.recreation import Recreations
from agent.store.store import Store

if TYPE_CHECKING:
    from agent.daemon.metrics import Metrics

log = logging.getLogger(__name__)


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
        trust: Trust,
        applied: Applied,
        watch: HostWatch | None = None,
        metrics: Metrics | None = None,
        stands: Callable[[Lasting], None] = lambda _: None,
    ) -> None:
        """`mark` is called with the moment of each tick's snapshot (boot clock); `carried` is what
        a tick before the first would have left; `memory` is what the rules of an earlier run
        remembered, `applied` what is carried out outside the ticks; `watch` is the host's memory
        between two ticks; `stands` is told what lasts, each time it was looked at."""
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
        self._watch = watch or HostWatch()
        self._number = 0
        self._rules = original.rule_set(settings)
        self._memory = memory
        self._applied = applied
        self._trust = trust
        self._stands = stands
        self._under_way: frozenset[ContainerKey] = frozenset()
        """Whom something was being done to when the last look began."""
        self._is_trusted = True
        """Whether the figures of the last look are within the budgets."""
        self.recreations = Recreations(installation)
        self._left_alone = LeftAlone(self.recreations)

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
        self._note_ended(self._removals.take_up(self._applied.take()))
        tick = self._look(for_tick=True)
        self._mark(tick.sample.snapshot.snapshot_ns)
        decisions = self._stopwatch.time("decide", lambda: self._decide(tick))
        if decisions:
            self._stopwatch.time("remove", lambda: self._carry_out(decisions))
        self._tell_what_lasts(tick, decisions)
        gone = self._removals.away_since_row
        count = running_count(tick, gone)
        snapshot = tick.sample.snapshot
        view = tick.sample.cgroups.value
        findings = self._find(tick)
        record = TickRecord(
            wall_ns=self._clock.wall_ns(),
            memory=snapshot.memory,
            host=tick.host or NO_HOST_FIGURES,
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
            states=states_now(tick, self._clock),
        )
        self._carried = tick.carried
        removed, failed = self._removals.removed_since_row, self._removals.failed_since_row
        stored = self._stopwatch.time("store", lambda: self._write(record))
        if self._metrics is not None:
            self._metrics.show(
                record,
                armed=self._removals.armed and self._trust.word.armed,
                stored=stored,
                uses=self._trust.uses,
                spent=self._trust.spent,
            )
        return TickReport(
            number=self._number,
            wall_ns=record.wall_ns,
            source=snapshot.source,
            processes=len(snapshot.processes),
            mapped=len(tick.attribution.rows),
            checks=tick.attribution.counts,
            container_count=count,
            tiers=by_tier(tick.totals, gone),
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
        if not (settled := self._settled()):
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
        if not (decisions := self._decide(tick)):
            return 0
        rested_on = self._rested_on(tick, decisions)
        done = self._carry_out(decisions)
        if done or self._removals.under_way:
            self._store_pass(rested_on)
        removed = sum(one.outcome is Outcome.REMOVED for one in done)
        self._removals.write(self._clock.wall_ns())
        log.info("pass=at-once running=%d removed=%d", running.total(), removed)
        return removed

    @property
    def waits_for_a_tick(self) -> bool:
        """Whether an engine had been away and answers again, so that a whole tick is all that
        keeps decisions back."""
        unsettled = frozenset(self._collector.engines) - self._settled()
        if not unsettled:
            return False
        return any(one.engine in unsettled for one in self._collector.list_containers())

    def relieve(self) -> int:
        """A pass at once for the rules that have a bound of the host's memory, which was passed.

        One container at a time: none while another is going, and the next on figures of after it.
        Gives how many containers were acted on. Raises SourceError as `tick` does.
        """
        done: Sequence[Removal] = ()
        try:
            self.settle()
            if self._watch.under_way:
                return 0
            tick = self._look(for_tick=False)
            self._carried = replace(self._carried, unknown_cgroups=tick.carried.unknown_cgroups)
            decisions = self._decide(tick, for_host_alone=True)
            rested_on = self._rested_on(tick, decisions)
            if decisions:
                log.info(
                    "pass=before-oom available_mb=%d pressure=%s",
                    tick.sample.snapshot.memory.available_kb // 1024,
                    self._watch.pressure,
                )
                done = self._carry_out(decisions)
                if done or self._watch.under_way:
                    self._store_pass(rested_on)
        finally:
            acted = bool(done) or self._watch.under_way
            self._watch.looked(self._clock.boot_ns(), acted=acted)
            self._removals.write(self._clock.wall_ns())
        return len(done)

    def _rested_on(self, tick: Tick, decisions: Sequence[Decision]) -> HostPass:
        return rested_on_now(tick, self._acting(tick), decisions, self._watch, self._clock)

    def _store_pass(self, rested_on: HostPass) -> None:
        try:
            self._store.write_host_pass(rested_on, self._clock.wall_ns())
        except StoreError as error:
            log.warning("outcome=unstored what=host-pass %s", error)

    def settle(self) -> None:
        """Takes up what has ended since, and stores it; for the watch, which waits for that."""
        if ended := self._removals.collect():
            self._note_ended(ended)
            self._removals.write(self._clock.wall_ns())

    def finish(self, wait_s: float) -> None:
        """Waits for removals under way, up to `wait_s`, and writes how they ended; for the stop."""
        self._removals.finish(wait_s, self._clock.wall_ns())
        self._applied.says(self._removals.under_way)

    def _look(self, *, for_tick: bool) -> Tick:
        # Before the list is asked for: what ends meanwhile may be in it.
        self._under_way = frozenset(one.container for one in self._removals.under_way)
        self._applied.looks()
        tick = look(self._collector, self._own, self._carried, self._govern, for_tick=for_tick)
        self._is_trusted = self._trust.judge(tick)
        if tick.engine_answers:
            self._removals.forget_all_but(
                {one.key for one in tick.containers}, frozenset(tick.sample.silent)
            )
            self._left_alone.seen(tick.containers, self._clock.boot_ns())
        return tick

    def _govern(self, container: Container) -> Governance:
        return governance.claim(container, self._rules, self._installation, self._own.ids)

    def _decide(self, tick: Tick, *, for_host_alone: bool = False) -> tuple[Decision, ...]:
        """Nothing on half knowledge, and nothing where the engine went away since the look: of
        each engine for itself. Nothing on figures that are off; while disarmed what would be done
        is decided, and not done."""
        acting = self._acting(tick)
        if not acting:
            return ()
        if not self._is_trusted and self._trust.word.armed:
            return ()
        now = self._memory.moment(tick, self._rules)
        now = as_seen(now, self._watch.now(now.now_ns, now.pressure))
        arming, boot_ns = self._memory.arming, self._clock.boot_ns()
        # In a dry run the first one stays the one that would go.
        spent = arming.spent(self._rules, boot_ns) if self._removals.armed else frozenset()
        totals = [one for one in tick.totals if one.container.engine in acting]
        standing = decide.standings(
            totals, tick.attribution.disputed, self._rules, now, spent, self._under_way
        )
        if tick.host is not None:
            # A look between two ticks knows less of the host, and re-arms nothing.
            arming.seen(standing, frozenset(self._collector.engines) - acting)
        decisions = decide.decisions_of(standing, self._rules, lambda: secrets.token_hex(6))
        due = arming.due(decisions, self._rules, boot_ns)
        due = self._left_alone.out_of(due, tick.containers)
        if for_host_alone:
            due = tuple(filter(self._is_for_host, due))
        acts = self._removals.armed and self._trust.word.armed
        # Where memory is short nobody waits for a person's plan.
        waits = not for_host_alone
        return self._applied.leaves(due, self._removals.under_way, acts=acts, waits=waits)

    def _is_for_host(self, decision: Decision) -> bool:
        return is_of_host(self._rules.named(decision.rule))

    def _settled(self) -> frozenset[str]:
        """The engines that a whole tick has seen since they were last away."""
        seen = self._carried.engines_seen
        counts = self._collector.interruptions
        return frozenset(name for name, count in counts.items() if seen.get(name, 0) == count)

    def _acting(self, tick: Tick) -> frozenset[str]:
        """The engines whose containers something may be done to now."""
        return tick.may_act & self._settled()

    def _carry_out(self, decisions: Sequence[Decision]) -> Sequence[Removal]:
        """How those ended that did so in time."""
        if any(self._is_for_host(one) and one.action.is_destructive for one in decisions):
            # From now on, not once this returns: who waits for them looks at the memory.
            self._watch.under_way = True
        word = self._trust.look()
        done = self._removals.carry_out(decisions, "" if word.armed else word.why)
        self._note_ended(done)
        return done

    def _tell_what_lasts(self, tick: Tick, decisions: Sequence[Decision]) -> None:
        """Rules that hold are known where every engine answered; owners and the policy's state are
        always."""
        seen = frozenset(self._collector.engines) <= self._acting(tick)
        word = self._trust.word
        withheld = () if word.armed else self._removals.withheld(decisions)
        self._stands(
            Lasting(
                word,
                [(rule, key.id) for rule, key in self._memory.arming.kept] if seen else None,
                [(one.rule, one.container_id) for one in withheld if one.action.is_destructive]
                if seen
                else None,
                self.recreations.returning,
            )
        )

    def _note_ended(self, removals: Sequence[Removal]) -> None:
        now_ns = self._clock.boot_ns()
        self._watch.under_way = any(map(self._is_for_host, self._removals.under_way))
        if any(one.outcome in CHANGED and self._is_for_host(one.decision) for one in removals):
            self._watch.gone(now_ns)
        self.recreations.removed(removals, now_ns)
        self._memory.done(removals, now_ns)
        self._applied.says(self._removals.under_way)

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
