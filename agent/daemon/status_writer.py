"""Keeps the status file true: written after each tick, and between two where something changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agent import __version__
from agent.config import Config
from agent.daemon import status
from agent.daemon.tick_values import TickReport
from agent.model.proof import ARMED, ArmingWord, BudgetUse

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """What the status file says beside the last tick."""

    grafana: str
    cron: str
    bpf: str
    unstored_ticks: int
    problems: tuple[str, ...]
    """One sentence for each thing that does not work."""
    engines: Mapping[str, str] = field(default_factory=dict)
    """How each engine is doing, by its name."""
    reloads: int = 0
    word: ArmingWord = ARMED
    budgets: tuple[BudgetUse, ...] = ()
    waiting: tuple[tuple[str, int], ...] = ()
    """By receiver: messages that wait."""


class StatusWriter:
    """The status file of one run."""

    def __init__(
        self,
        run_dir: Path,
        config: Config,
        *,
        dry_run: bool,
        since_ms: int,
        state: Callable[[], Condition],
    ) -> None:
        """`since_ms` is the wall clock at the run's begin."""
        self._run_dir = run_dir
        self._config = config
        self._dry_run = dry_run
        self._since_ms = since_ms
        self._state = state
        self._report: TickReport | None = None
        self._written: Condition | None = None

    def use(self, config: Config) -> None:
        """The settings that hold from now on."""
        self._config = config

    def ticked(self, report: TickReport) -> None:
        """Writes what a tick did."""
        self._report = report
        self._write(report, self._state())

    def look(self) -> None:
        """Writes again where something changed since: BPF and Grafana become ready between two
        ticks, which may be an hour apart."""
        if self._report is not None and self._written != (state := self._state()):
            self._write(self._report, state)

    def clear(self) -> None:
        """Takes the file away: nobody runs any more."""
        status.clear(self._run_dir)

    def _write(self, report: TickReport, state: Condition) -> None:
        """A full disk there must not stop the agent."""
        self._written = state
        value = status.Status(
            version=__version__,
            pid=os.getpid(),
            since_wall_ms=self._since_ms,
            interval_s=self._config.interval_s,
            scope=str(self._config.policy.scope),
            dry_run=self._dry_run,
            source=report.source,
            database=self._config.paths.database,
            grafana=state.grafana,
            cron=state.cron,
            bpf=state.bpf,
            unstored_ticks=state.unstored_ticks,
            problems=list(state.problems),
            engines=dict(state.engines),
            reloads=state.reloads,
            armed=state.word.armed,
            disarmed_since_ms=0 if state.word.armed else state.word.since_ms,
            disarmed_why=state.word.why,
            budgets={str(one.name): round(one.used, 4) for one in state.budgets},
            notify=dict(state.waiting),
            tick=status.TickStatus(
                number=report.number,
                wall_ms=report.wall_ns // 10**6,
                processes=report.processes,
                mapped=report.mapped,
                container_count=report.container_count,
                removed=report.removed,
                failed=report.failed,
                used_kb=report.used_kb,
                total_kb=report.total_kb,
                tick_ms=report.tick_ms,
                tiers=dict(report.tiers),
                checks={name: int(count) for name, count in asdict(report.checks).items()},
                stages_ms=dict(report.stages_ms),
            ),
        )
        try:
            status.write(self._run_dir, value)
        except OSError as error:
            log.warning("outcome=no-status %s", error.strerror)
