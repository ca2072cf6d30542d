"""One tick: sources → attribution → policy → actions → store, composed from parts that do one each.

Everything that can fail outside (Docker, the modules, the disk) has its own way to degrade here: a
tick stores what is known, says once what is not, and removes no container on half knowledge.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.actions.remover import Remover
from agent.analysis import cpu_accounting, usage
from agent.clock import Clock
from agent.config import PolicySettings
from agent.daemon.collector import Observation, Observer, Stopwatch
from agent.errors import StoreError
from agent.model.accounts import Books, Reading
from agent.model.attribution import AttributionCounts
from agent.model.container import ContainerTotals, Tier
from agent.model.record import TickRecord
from agent.model.removal import Decision, Outcome, Removal, RemovalPass
from agent.policy import decide
from agent.policy.recreation import Recreations
from agent.sources.host_metrics import HostProbe, available_kb
from agent.store.store import Store

log = logging.getLogger(__name__)


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


class Service:
    """Holds what one tick hands to the next."""

    def __init__(
        self,
        *,
        observer: Observer,
        store: Store,
        host: HostProbe,
        clock: Clock,
        settings: PolicySettings,
        stopwatch: Stopwatch,
        removal_wait_s: float,
        remover: Remover | None,
        installation: str = "",
    ) -> None:
        self._observer = observer
        self._store = store
        self._host = host
        self._clock = clock
        self._settings = settings
        self._stopwatch = stopwatch
        self._removal_wait_ns = int(removal_wait_s * 10**9)
        self._remover = remover
        self._before = Reading()
        self._books = Books()
        self._number = 0
        self._deleted_since_row = 0
        self._failed_since_row = 0
        self._settled = 0
        """How many of Docker's interruptions are followed by a whole tick that saw it."""
        self._dry_decisions: set[str] = set()
        self._passes: list[RemovalPass] = []
        """Carried out, and not with the store yet: a tick may fail in between."""
        self.recreations = Recreations(installation)

    def tick(self) -> TickReport:
        """Observes, holds the policy, stores one row of everything.

        Raises SourceError where no process source works; removals that ended by then are stored. A
        full disk or a broken database is not raised: the tick is counted as unstored by the store,
        which is asked for it in `status`.
        """
        try:
            return self._tick()
        finally:
            self._write_removals()

    def _tick(self) -> TickReport:
        began_ns = self._clock.boot_ns()
        self._number += 1
        self._stopwatch.stages_ms.clear()
        if self._remover is not None and (late := tuple(self._remover.collect())):
            self._finish_pass(late, available_kb())
        interruptions = self._observer.interruptions
        observed = self._observe()
        if observed.engine_answers:
            self._dry_decisions &= {one.id for one in observed.containers}
        if observed.engine_answers and self._is_settled():
            decisions = self._stopwatch.time("decide", lambda: self._decide(observed))
            if decisions:
                self._stopwatch.time("remove", lambda: self._carry_out(decisions))
        host = self._host.read()
        removed_ids = {
            removal.decision.container_id
            for removal_pass in self._passes
            for removal in removal_pass.removals
            if removal.is_away
        }
        count = self._running_count(observed, removed_ids)
        tick_ms = (self._clock.boot_ns() - began_ns) // 10**6
        now = usage.reading(observed.snapshot, observed.view)
        record = TickRecord(
            wall_ns=self._clock.wall_ns(),
            memory=observed.snapshot.memory,
            host=host,
            source=observed.snapshot.source,
            container_count=count,
            deleted_count=self._deleted_since_row,
            tick_ms=tick_ms,
            processes=usage.process_usages(observed.snapshot, self._before),
            container_processes=usage.container_process_usages(
                observed.attribution.rows, observed.snapshot, self._before
            ),
            totals=self._close_books(observed, now),
            passes=tuple(self._passes),
            checks=observed.attribution.counts,
        )
        if observed.engine_answers:
            self._settled = interruptions
        removed, failed = self._deleted_since_row, self._failed_since_row
        stored = self._stopwatch.time("store", lambda: self._write(record))
        self._before = now
        return TickReport(
            number=self._number,
            wall_ns=record.wall_ns,
            source=observed.snapshot.source,
            processes=len(observed.snapshot.processes),
            mapped=len(observed.attribution.rows),
            checks=observed.attribution.counts,
            container_count=count,
            tiers=_by_tier(observed.totals, removed_ids),
            removed=removed,
            failed=failed,
            used_kb=observed.snapshot.memory.used_kb,
            total_kb=observed.snapshot.memory.total_kb,
            tick_ms=(self._clock.boot_ns() - began_ns) // 10**6,
            stages_ms=dict(self._stopwatch.stages_ms),
            stored=stored,
        )

    def hold_limit(self) -> int:
        """A pass at once where more governed containers run than allowed, not at the next tick.

        Gives how many containers were removed; `deletions` is written here, the next tick's row
        counts them. Raises SourceError as `tick` does.
        """
        running = self._observer.running_governed() if self._is_settled() else 0
        if not decide.over_limit(running, self._settings):
            return 0
        observed = self._observe()
        decisions = self._decide(observed) if observed.engine_answers else ()
        if not decisions or not self._is_settled():
            return 0
        done = self._carry_out(decisions)
        self._write_removals()
        removed = _count(done.removals, Outcome.REMOVED)
        log.info("pass=at-once running=%d removed=%d", running, removed)
        return removed

    def finish_removals(self, wait_s: float) -> None:
        """Waits for removals under way, up to `wait_s`, and writes how they ended; for the stop.

        No row comes after: the last one of the run counts what no row has counted.
        """
        if self._remover is not None and (late := tuple(self._remover.close(wait_s))):
            self._finish_pass(late, available_kb())
        self._write_removals(uncounted=self._deleted_since_row)

    def _write_removals(self, uncounted: int = 0) -> None:
        """Stores what no tick's row has taken along; the store keeps what it cannot write."""
        if not self._passes and not uncounted:
            return
        passes, self._passes = self._passes, []
        for number, one in enumerate(passes or [RemovalPass((), 0, 0)]):
            try:
                self._store.write_removals(
                    one, self._clock.wall_ns(), uncounted if number == 0 else 0
                )
            except StoreError as error:
                log.warning("outcome=unstored what=deletions %s", error)

    def _observe(self) -> Observation:
        observed = self._observer.observe(self._before, self._books.lost)
        if observed.engine_answers:
            now_ns = self._clock.boot_ns()
            for owner in self.recreations.seen(observed.containers, now_ns):
                log.warning("outcome=owner-recreates owner=%r", owner[:256])
        return observed

    def _is_settled(self) -> bool:
        """Nothing is removed before one whole tick has seen Docker again after it was away."""
        return self._settled == self._observer.interruptions

    def _close_books(self, observed: Observation, now: Reading) -> tuple[ContainerTotals, ...]:
        """The totals with each container's CPU explained, where BPF saw its processes."""
        view, second = observed.view, observed.second
        if view is None or second is None:
            return observed.totals
        shares, self._books = cpu_accounting.close_books(
            self._books,
            second,
            cpu_accounting.owners(second, view),
            cpu_accounting.process_cpu_ns(observed.snapshot, second, now.process_cpu_ns),
            {
                key: cgroup.cpu_ns
                for key, cgroup in view.containers.items()
                if cgroup.cpu_ns is not None
            },
        )
        return tuple(
            usage.with_share(totals, shares.get(totals.container.id), view, self._before)
            for totals in observed.totals
        )

    def _decide(self, observed: Observation) -> tuple[Decision, ...]:
        return decide.decide(
            observed.totals,
            observed.attribution.doubtful,
            self._settings,
            lambda: secrets.token_hex(6),
        )

    def _carry_out(self, decisions: Sequence[Decision]) -> RemovalPass:
        before_kb = available_kb()
        if self._remover is None:
            removals: Sequence[Removal] = self._record_dry(decisions)
        else:
            deadline_ns = self._clock.boot_ns() + self._removal_wait_ns
            removals = self._remover.remove(decisions, deadline_ns, _log_decision)
        return self._finish_pass(removals, before_kb)

    def _record_dry(self, decisions: Sequence[Decision]) -> list[Removal]:
        """A dry run would decide the same at every tick: each container is recorded once."""
        new = [one for one in decisions if one.container_id not in self._dry_decisions]
        self._dry_decisions.update(one.container_id for one in new)
        for one in new:
            _log_decision(one)
        return [Removal(decision, Outcome.DRY_RUN, 0) for decision in new]

    def _finish_pass(self, removals: Sequence[Removal], before_kb: int) -> RemovalPass:
        self.recreations.removed(removals, self._clock.boot_ns())
        self._deleted_since_row += _count(removals, Outcome.REMOVED)
        self._failed_since_row += _count(removals, Outcome.FAILED)
        for removal in removals:
            log.info(
                "decision=%s outcome=%s ms=%d%s",
                removal.decision.id,
                removal.outcome,
                removal.duration_ms,
                f" error={removal.error!r}" if removal.error else "",
            )
        done = RemovalPass(tuple(removals), before_kb, available_kb())
        if done.removals:
            self._passes.append(done)
        return done

    def _running_count(self, observed: Observation, removed: set[str]) -> int | None:
        """Running containers without Grafana that remain; None while Docker does not tell."""
        if not observed.engine_answers:
            return None
        return sum(
            1
            for container in observed.containers
            if container.state.is_running
            and container.id not in removed
            and not decide.is_grafana(container)
        )

    def _write(self, record: TickRecord) -> bool:
        """Whether the tick is stored. Why it is not the store says, once for an outage."""
        self._passes.clear()  # the store has them now, and keeps what it cannot write
        try:
            self._store.write_tick(record)
        except StoreError:
            return False
        self._deleted_since_row = 0
        self._failed_since_row = 0
        return True


def _log_decision(decision: Decision) -> None:
    """Logs a decision that is carried out: its id is in a row of `deletions` too."""
    log.info(
        "decision=%s rank=%d reason=%s container=%s name=%s tier=%s held_mb=%.1f cpu=%.1f",
        decision.id,
        decision.rank,
        decision.reason,
        decision.container_id[:12],
        decision.container_name,
        decision.tier,
        decision.held_mb,
        decision.cpu_percent,
    )


def _by_tier(totals: Sequence[ContainerTotals], removed: set[str]) -> dict[str, int]:
    counts = {str(tier): 0 for tier in Tier}
    for one in totals:
        if one.container.state.is_running and one.container.id not in removed:
            counts[one.tier] += 1
    return counts


def _count(removals: Sequence[Removal], outcome: Outcome) -> int:
    return sum(1 for removal in removals if removal.outcome is outcome)
