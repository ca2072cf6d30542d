"""One tick: sources → attribution → policy → actions → store, composed from parts that do one each.

Everything that can fail outside (Docker, the modules, the disk) has its own way to degrade here: a
tick stores what is known, says once what is not, and removes no container on half knowledge.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from agent import attribution, books, policy, usage
from agent.actions.containers import Remover
from agent.clock import Clock
from agent.config import PolicySettings
from agent.errors import EngineUnavailableError, StoreError
from agent.host import HostProbe, available_kb
from agent.model import (
    AttributedProcess,
    Attribution,
    AttributionCounts,
    CgroupView,
    Container,
    ContainerTotals,
    Decision,
    Outcome,
    Removal,
    RemovalPass,
    Snapshot,
    TickRecord,
    Tier,
)
from agent.reader import ProcessReader
from agent.sources import cgroups
from agent.sources.engine import Engine
from agent.store.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

_REMOVAL_WAIT_NS = 5 * 10**9
"""A tick waits this long for its removals, and never past four fifths of its interval."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at one moment, before anything is decided."""

    snapshot: Snapshot
    containers: tuple[Container, ...]
    engine_answers: bool
    view: CgroupView | None
    second: books.BpfView | None
    """What BPF holds; None while there are no probes."""
    attribution: Attribution
    totals: tuple[ContainerTotals, ...]


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


class Service:
    """Holds what one tick hands to the next."""

    def __init__(
        self,
        *,
        reader: ProcessReader,
        engine: Engine,
        layout: cgroups.CgroupLayout,
        store: Store,
        host: HostProbe,
        clock: Clock,
        settings: PolicySettings,
        installation: str,
        interval_s: float,
        remover: Remover | None,
        second_witness: Callable[[int], books.BpfView | None] = lambda _snapshot_ns: None,
    ) -> None:
        self._reader = reader
        self._engine = engine
        self._layout = layout
        self._store = store
        self._host = host
        self._clock = clock
        self._settings = settings
        self._installation = installation
        self._removal_wait_ns = min(_REMOVAL_WAIT_NS, int(interval_s * 0.8 * 10**9))
        self._remover = remover
        self._second_witness = second_witness
        self._before = usage.Reading()
        self._books = books.Books()
        self._number = 0
        self._deleted_since_row = 0
        self._failed_since_row = 0
        self._settling = threading.Event()
        self._asked_for: set[int] = set()
        self._stages_ms: dict[str, float] = {}
        self._dry_decisions: set[str] = set()
        self.engine_problem = ""

    def engine_was_interrupted(self) -> None:
        """Docker came back: nothing is removed before one whole tick has seen it. Any thread."""
        self._settling.set()

    def tick(self) -> TickReport:
        """Observes, holds the policy, stores one row of everything.

        Raises SourceError where no process source works. A full disk or a broken database is not
        raised: the tick is counted as unstored by the store, which is asked for it in `status`.
        """
        began_ns = self._clock.boot_ns()
        self._number += 1
        self._stages_ms = {}
        passes: list[RemovalPass] = []
        if self._remover is not None and (late := tuple(self._remover.collect())):
            passes.append(self._finish_pass(late, available_kb()))
        settling = self._settling.is_set()
        observed = self.observe()
        if observed.engine_answers and settling:
            self._settling.clear()
        if observed.engine_answers and not settling:
            decisions = self._timed("decide", lambda: self._decide(observed))
            if decisions:
                passes.append(self._timed("remove", lambda: self._carry_out(decisions)))
        host = self._host.read()
        removed_ids = {
            removal.decision.container_id
            for removal_pass in passes
            for removal in removal_pass.removals
            if removal.outcome in (Outcome.REMOVED, Outcome.GONE)
        }
        count = self._running_count(observed, removed_ids)
        tick_ms = (self._clock.boot_ns() - began_ns) // 10**6
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
            totals=self._close_books(observed),
            passes=tuple(passes),
            checks=observed.attribution.counts,
        )
        removed, failed = self._deleted_since_row, self._failed_since_row
        self._timed("store", lambda: self._write(record))
        self._before = usage.reading(observed.snapshot, observed.view)
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
            stages_ms=dict(self._stages_ms),
        )

    def hold_limit(self) -> int:
        """A pass at once where more governed containers run than allowed, not at the next tick.

        Gives how many containers were removed; `deletions` is written here, the next tick's row
        counts them. Raises SourceError as `tick` does.
        """
        if self._settling.is_set():
            return 0
        try:
            listing = self._engine.list()
        except EngineUnavailableError:
            return 0
        running = sum(
            1
            for container in listing.containers
            if container.state.is_running
            and policy.classify(container, self._installation, self._settings.scope).governed
        )
        if not policy.over_limit(running, self._settings):
            return 0
        observed = self.observe()
        decisions = self._decide(observed) if observed.engine_answers else ()
        if not decisions or self._settling.is_set():
            return 0
        done = self._carry_out(decisions)
        try:
            self._store.write_removals(done, self._clock.wall_ns())
        except StoreError as error:
            log.warning("outcome=unstored what=deletions %s", error)
        removed = _count(done.removals, Outcome.REMOVED)
        log.info("pass=at-once running=%d removed=%d", running, removed)
        return removed

    def observe(self) -> Observation:
        """Reads everything once; asks Docker once more for unknown cgroups, and both witnesses once
        more where they disagree."""
        observed = self._observe_once()
        new = observed.attribution.unknown_cgroups - self._asked_for
        # A unit with private namespaces is unknown at every tick: each id is asked for once.
        self._asked_for = set(observed.attribution.unknown_cgroups)
        if (observed.engine_answers and new) or observed.attribution.counts.conflict:
            observed = self._observe_once()
        if observed.attribution.counts.conflict:
            log.warning(
                "attribution=conflict rows=%d containers=%s",
                observed.attribution.counts.conflict,
                ",".join(sorted(identity[:12] for identity in observed.attribution.doubtful)),
            )
        return observed

    def _observe_once(self) -> Observation:
        # Docker's list comes first: what is read after it lies close together, or the parts of a
        # container's CPU would not sum up to the whole. A container born behind it is asked for.
        containers = self._list_containers()
        snapshot = self._timed("read", self._reader.read)
        second = self._timed("bpf", lambda: self._second_witness(snapshot.snapshot_ns))
        if containers is None:
            nothing = Attribution(rows=(), counts=AttributionCounts())
            return Observation(snapshot, (), False, None, second, nothing, ())
        view = self._timed(
            "cgroups", lambda: cgroups.read(self._layout, containers, frozenset(self._asked_for))
        )
        answer = self._timed(
            "attribute",
            lambda: attribution.attribute(
                snapshot,
                view,
                containers,
                second.cgroup_ids if second else None,
                second.lost - self._books.lost if second else 0,
            ),
        )
        totals = self._totals(snapshot, containers, view, answer)
        return Observation(snapshot, containers, True, view, second, answer, totals)

    def _list_containers(self) -> tuple[Container, ...] | None:
        """Docker's list, None while it is away: said once, and nothing is removed for a while."""
        try:
            containers = self._timed("docker", self._engine.list).containers
        except EngineUnavailableError as error:
            self._settling.set()
            if not self.engine_problem:
                log.warning("docker=away only system rows are stored: %s", error)
            self.engine_problem = str(error)
            return None
        if self.engine_problem:
            log.info("docker=back")
            self.engine_problem = ""
        return containers

    def _close_books(self, observed: Observation) -> tuple[ContainerTotals, ...]:
        """The totals with each container's CPU explained, where BPF saw its processes."""
        view, second = observed.view, observed.second
        if view is None or second is None:
            return observed.totals
        shares, self._books = books.close_books(
            self._books,
            second,
            books.owners(second, view),
            {process.key: process.cpu_ns for process in observed.snapshot.processes},
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

    def _totals(
        self,
        snapshot: Snapshot,
        containers: Sequence[Container],
        view: CgroupView,
        answer: Attribution,
    ) -> tuple[ContainerTotals, ...]:
        rows: dict[str, list[AttributedProcess]] = defaultdict(list)
        for row in answer.rows:
            rows[row.container_id].append(row)
        totals = []
        for container in containers:
            governance = policy.classify(container, self._installation, self._settings.scope)
            totals.append(
                usage.container_totals(
                    container,
                    governance.tier,
                    governance.governed,
                    rows.get(container.id, ()),
                    view.containers.get(container.id),
                    snapshot,
                    self._before,
                )
            )
        return tuple(totals)

    def _decide(self, observed: Observation) -> tuple[Decision, ...]:
        return policy.decide(
            observed.totals,
            observed.attribution.doubtful,
            self._settings,
            lambda: secrets.token_hex(6),
        )

    def _carry_out(self, decisions: Sequence[Decision]) -> RemovalPass:
        before_kb = available_kb()
        for decision in decisions:
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
        if self._remover is None:
            removals: Sequence[Removal] = self._record_dry(decisions)
        else:
            deadline_ns = self._clock.boot_ns() + self._removal_wait_ns
            removals = self._remover.remove(decisions, deadline_ns)
        return self._finish_pass(removals, before_kb)

    def _record_dry(self, decisions: Sequence[Decision]) -> list[Removal]:
        """A dry run would decide the same at every tick: each container is recorded once."""
        new = [one for one in decisions if one.container_id not in self._dry_decisions]
        self._dry_decisions.update(one.container_id for one in new)
        return [Removal(decision, Outcome.DRY_RUN, 0) for decision in new]

    def _finish_pass(self, removals: Sequence[Removal], before_kb: int) -> RemovalPass:
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
        return RemovalPass(tuple(removals), before_kb, available_kb())

    def _running_count(self, observed: Observation, removed: set[str]) -> int | None:
        """Running containers without Grafana that remain; None while Docker does not tell."""
        if not observed.engine_answers:
            return None
        return sum(
            1
            for container in observed.containers
            if container.state.is_running
            and container.id not in removed
            and not policy.is_grafana(container)
        )

    def _write(self, record: TickRecord) -> None:
        try:
            self._store.write_tick(record)
        except StoreError as error:
            log.warning("outcome=unstored what=tick %s", error)
            return
        self._deleted_since_row = 0
        self._failed_since_row = 0

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        began_ns = self._clock.boot_ns()
        try:
            return work()
        finally:
            spent_ms = (self._clock.boot_ns() - began_ns) / 10**6
            self._stages_ms[stage] = self._stages_ms.get(stage, 0.0) + spent_ms


def _by_tier(totals: Sequence[ContainerTotals], removed: set[str]) -> dict[str, int]:
    counts = {str(tier): 0 for tier in Tier}
    for one in totals:
        if one.container.state.is_running and one.container.id not in removed:
            counts[one.tier] += 1
    return counts


def _count(removals: Sequence[Removal], outcome: Outcome) -> int:
    return sum(1 for removal in removals if removal.outcome is outcome)
