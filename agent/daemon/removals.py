"""Carries out decisions and keeps count of how they ended, until rows of the history have it.

Between two rows removals end, ticks fail and disks are full: what was removed is counted once, by
one row, and each removal is in `deletions` once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from agent.actions.remover import Remover
from agent.clock import Clock
from agent.errors import StoreError
from agent.model.container import ContainerKey
from agent.model.removal import (
    Action,
    Decision,
    Outcome,
    Removal,
    RemovalPass,
    withheld_because,
)
from agent.sources.host_metrics import available_kb
from agent.store.store import Store

log = logging.getLogger(__name__)

_MAX_SHOWN = 256
"""Characters of a name in a line of the log."""


class Removals:
    """The removals of one run. Without a remover (a dry run) decisions are recorded alone."""

    def __init__(
        self,
        remover: Remover | None,
        store: Store,
        clock: Clock,
        wait_s: float,
        ended: Callable[[Sequence[Removal]], None] = lambda _: None,
    ) -> None:
        """`wait_s` is how long a pass waits for its removals; `ended` is called with those that
        did, once each."""
        self._remover = remover
        self._store = store
        self._clock = clock
        self._wait_ns = int(wait_s * 10**9)
        self._note_ended = ended
        self._passes: list[RemovalPass] = []
        """Carried out, and not with the store yet: a tick may fail in between."""
        self._recorded_dry: set[tuple[ContainerKey, str, Action]] = set()
        """By container, rule and action."""
        self._withheld: set[tuple[ContainerKey, str, Action]] = set()
        """The same of what was withheld since the policy was disarmed."""
        self._under_way: dict[ContainerKey, Decision] = {}
        self._last_available_kb = 0
        self.removed_since_row = 0
        self.failed_since_row = 0

    def hurry_where(self, urgent: Callable[[], bool]) -> None:
        """A pass stops waiting for its removals where `urgent` says so."""
        if self._remover is not None:
            self._remover.hurry = urgent

    @property
    def under_way(self) -> tuple[Decision, ...]:
        """What was begun and has not ended yet."""
        return tuple(self._under_way.values())

    @property
    def armed(self) -> bool:
        """Whether decisions are carried out, not only recorded."""
        return self._remover is not None

    @property
    def passes(self) -> tuple[RemovalPass, ...]:
        """What ended and is not with the store yet."""
        return tuple(self._passes)

    @property
    def away_since_row(self) -> frozenset[ContainerKey]:
        """Those of them that are away, whoever took them."""
        return frozenset(
            removal.decision.container
            for one in self._passes
            for removal in one.removals
            if removal.is_away
        )

    def collect(self) -> Sequence[Removal]:
        """Takes up what has ended since the last pass."""
        late = tuple(self._remover.collect()) if self._remover is not None else ()
        if late:
            self._ended(late, self._available_kb())
        return late

    def take_up(self, done: Sequence[RemovalPass]) -> Sequence[Removal]:
        """Counts and stores what was carried out outside the ticks, by `agent policy apply`."""
        removals = tuple(removal for one in done for removal in one.removals)
        self.removed_since_row += _count(removals, Outcome.REMOVED)
        self.failed_since_row += _count(removals, Outcome.FAILED)
        self._note_ended(removals)
        self._passes += done
        return removals

    def carry_out(self, decisions: Sequence[Decision], disarmed: str = "") -> Sequence[Removal]:
        """Begins them all, and gives how those ended that did so in time.

        While the policy is `disarmed` (why) nothing is touched: what would be is recorded once.
        """
        before_kb = self._available_kb()
        if not disarmed:
            self._withheld.clear()
        if disarmed and self._remover is not None:
            reports = [one for one in decisions if one.action is Action.NOTIFY]
            others = [one for one in decisions if one.action is not Action.NOTIFY]
            removals: Sequence[Removal] = (
                *_reported(reports),
                *self._record_withheld(others, disarmed),
            )
        elif self._remover is None:
            removals = self._record_dry(decisions)
        else:
            reports = [one for one in decisions if one.action is Action.NOTIFY]
            others = [one for one in decisions if one.action is not Action.NOTIFY]
            removals = _reported(reports)
            if others:
                deadline_ns = self._clock.boot_ns() + self._wait_ns
                ended = self._remover.remove(others, deadline_ns, self._begin)
                removals = (*removals, *ended)
        self._ended(removals, before_kb)
        return removals

    def withheld(self, decisions: Sequence[Decision]) -> Sequence[Decision]:
        """Those of them that a disarmed policy keeps back; what is under way tells its own end."""
        return self._not_begun(decisions) if self._remover is not None else ()

    def forget_all_but(self, containers: set[ContainerKey], silent: frozenset[str]) -> None:
        """A dry run's memory is of containers that are still there, or of a silent engine."""
        for memory in (self._recorded_dry, self._withheld):
            memory -= {
                one for one in memory if one[0] not in containers and one[0].engine not in silent
            }

    def handed_over(self) -> None:
        """The store has the passes now, and keeps what it cannot write."""
        self._passes.clear()

    def counted(self) -> None:
        """A row has counted what was removed."""
        self.removed_since_row = 0
        self.failed_since_row = 0

    def finish(self, wait_s: float, wall_ns: int) -> None:
        """Waits for what is under way; no row comes after, so the last one counts the rest."""
        if self._remover is not None and (late := tuple(self._remover.close(wait_s))):
            self._ended(late, self._available_kb())
        self.write(wall_ns, uncounted=self.removed_since_row)

    def write(self, wall_ns: int, uncounted: int = 0) -> None:
        """Stores what no tick's row has taken along; the store keeps what it cannot write."""
        if not self._passes and not uncounted:
            return
        passes, self._passes = self._passes, []
        for number, one in enumerate(passes or [RemovalPass((), 0, 0)]):
            try:
                self._store.write_removals(one, wall_ns, uncounted if number == 0 else 0)
            except StoreError as error:
                log.warning("outcome=unstored what=deletions %s", error)

    def _begin(self, decision: Decision) -> None:
        self._under_way[decision.container] = decision
        _log_decision(decision)

    def _record_dry(self, decisions: Sequence[Decision]) -> list[Removal]:
        """A dry run would decide the same at every tick: each container is recorded once."""
        new = [one for one in decisions if _dry_key(one) not in self._recorded_dry]
        self._recorded_dry.update(_dry_key(one) for one in new)
        for one in new:
            _log_decision(one)
        return [Removal(decision, Outcome.DRY_RUN, 0) for decision in new]

    def _record_withheld(self, decisions: Sequence[Decision], why: str) -> list[Removal]:
        """Each is decided afresh at every tick while the policy is disarmed."""
        new = [one for one in self._not_begun(decisions) if _dry_key(one) not in self._withheld]
        self._withheld.update(_dry_key(one) for one in new)
        for one in new:
            _log_decision(one)
        return [Removal(one, Outcome.NOTIFIED, 0, withheld_because(why)) for one in new]

    def _not_begun(self, decisions: Sequence[Decision]) -> list[Decision]:
        return [one for one in decisions if one.container not in self._under_way]

    def _ended(self, removals: Sequence[Removal], before_kb: int) -> None:
        for removal in removals:
            self._under_way.pop(removal.decision.container, None)
            if removal.is_withheld:
                self._withheld.add(_dry_key(removal.decision))
        self.removed_since_row += _count(removals, Outcome.REMOVED)
        self.failed_since_row += _count(removals, Outcome.FAILED)
        self._note_ended(removals)
        for removal in removals:
            log.info(
                "decision=%s outcome=%s ms=%d%s",
                removal.decision.id,
                removal.outcome,
                removal.duration_ms,
                f" error={removal.error!r}" if removal.error else "",
            )
        if removals:
            self._passes.append(RemovalPass(tuple(removals), before_kb, self._available_kb()))

    def _available_kb(self) -> int:
        """As of now, or as last known: no row is lost because the host cannot be read."""
        with suppress(OSError):
            self._last_available_kb = available_kb()
        return self._last_available_kb


def _dry_key(decision: Decision) -> tuple[ContainerKey, str, Action]:
    return (decision.container, decision.rule, decision.action)


def _reported(decisions: Sequence[Decision]) -> tuple[Removal, ...]:
    """A rule that only reports has done so with its line and its row."""
    for one in decisions:
        _log_decision(one)
    return tuple(Removal(one, Outcome.NOTIFIED, 0) for one in decisions)


def _log_decision(decision: Decision) -> None:
    """Logs a decision that is carried out: its id is in a row of `deletions` too."""
    log.info(
        "decision=%s action=%s rule=%s rank=%d reason=%s container=%s name=%s tier=%s "
        "held_mb=%.1f cpu=%.1f",
        decision.id,
        decision.action,
        decision.rule or "none",
        decision.rank,
        decision.reason,
        decision.container_id[:12],
        decision.container_name[:_MAX_SHOWN],
        decision.tier,
        decision.held_mb,
        decision.cpu_percent,
    )


def _count(removals: Sequence[Removal], outcome: Outcome) -> int:
    return sum(1 for removal in removals if removal.outcome is outcome)
