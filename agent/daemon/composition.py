"""Brings everything up, runs the ticks, and takes down what it brought: `agent start` and its end.

The order is the contract. Lock, database, modules and Docker come before the first tick; cron, the
first generation, Grafana and BPF come up beside the loop and never hold it. Each undoes itself in
reverse, after a signal, a failure or `--once` alike.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agent import __version__
from agent.cli.views.status import tick_line
from agent.clock import Clock
from agent.config import Config
from agent.daemon import status
from agent.daemon.auxiliary import Beside
from agent.daemon.collector import Observer, Stopwatch
from agent.daemon.lock import GeneratorLock
from agent.daemon.outside import Outside
from agent.daemon.sdnotify import Notifier
from agent.daemon.signals import Stopper, StopRequestedError
from agent.daemon.tick import Service, TickReport
from agent.engine_api.client import other_docker_host
from agent.errors import AgentError, SourceError
from agent.sources.engine.kept_list import KeptList
from agent.sources.process_source import Loading, ProcessReader
from agent.sources.host_metrics import HostProbe
from agent.sources.own_container import OwnContainer
from agent.sources.process_source import ProcessReader
from agent.store.installation import installation_id
from agent.store.store import Store
from agent.util.memory_tuning import settle_collector
from agent.util.terminal import Say
from agent.util.undo import UndoStack

if TYPE_CHECKING:
    from agent.model.bpf import BpfView
    from agent.sources.bpf.witness import Witness

log = logging.getLogger(__name__)

_PASS_PAUSE_S = 0.5
"""Container starts come in bursts: one look at the limit serves all of a burst."""

_REMOVAL_WAIT_S = 5.0
"""A tick waits this long for its removals, and never past four fifths of its interval; so does the
stop."""

_ONCE_REMOVAL_WAIT_S = 30.0
"""After a single tick no other tells how its removals ended."""

_NEWS_S = 5.0
"""How long what changed between two ticks may be missing from `agent status`."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `agent start` was asked to do beside the configuration."""

    once: bool = False
    dry_run: bool = False

    @property
    def governs(self) -> bool:
        """Whether cron, generator and Grafana come up, and containers go at stop."""
        return not (self.once or self.dry_run)


@dataclass(frozen=True, slots=True)
class _Standing:
    """The words of the status file that are not a tick's."""

    grafana: str
    cron: str
    bpf: str
    problems: tuple[str, ...]


def start(
    config: Config, options: Options, clock: Clock, say: Say, outside: Outside | None = None
) -> int:
    """Runs the agent until a signal (or for one tick) and gives its exit status.

    `outside` is this host where none is given. Raises AgentError, with nothing changed on the host,
    where it cannot begin.
    """
    outside = outside or Outside(config, clock, say)
    stopper = outside.stopper()
    undo = UndoStack()
    generator = outside.generator_lock()
    notifier = outside.notifier()
    with ExitStack() as stack:
        stack.enter_context(stopper.installed())
        # Let go of last: a generator that comes late then finds no agent, and makes nothing.
        stack.callback(generator.release)
        stack.enter_context(outside.agent_lock())
        stack.enter_context(undo)
        agent = _Agent(outside, options, stopper, undo, generator, notifier)
        try:
            agent.bring_up()
            agent.loop()
        except StopRequestedError:
            pass
        notifier.stopping()
        say("Stopping: taking down what the agent brought. Press Ctrl-C again to shorten the wait.")
    if undo.failures:
        say(f"Stopped, but not everything could be undone: {'; '.join(undo.failures)}")
        say("Run `sudo agent cleanup`.")
        return 1
    say("Stopped.")
    return 0


class _Agent:
    """The parts of one run. Its life is the block in `start`."""

    def __init__(
        self,
        outside: Outside,
        options: Options,
        stopper: Stopper,
        undo: UndoStack,
        generator: GeneratorLock,
        notifier: Notifier,
    ) -> None:
        self._outside = outside
        self._notifier = notifier
        self._config = outside.config
        self._options = options
        self._clock = outside.clock
        self._say = outside.say
        self._stopper = stopper
        self._undo = undo
        self._run_dir = outside.run_dir
        self._since_ms = self._clock.wall_ns() // 10**6
        self._beside = Beside(outside, stopper, undo, generator)
        self._starts_seen = threading.Event()
        """Not for handlers: what they wake is the stopper's pipe."""
        self._bpf_said = False
        self._report: TickReport | None = None
        self._told: _Standing | None = None

    def bring_up(self) -> None:
        """Everything that the first tick needs, and beside it what it does not need.

        Raises StopRequestedError where a signal came while the modules were built.
        """
        config, clock, outside = self._config, self._clock, self._outside
        self._undo.push("status", lambda: status.clear(self._run_dir))
        self._store = outside.store()
        self._undo.push("database", self._store.close)
        self._installation = outside.installation()
        self._layout = outside.layout()
        self._reader = ProcessReader(
            config.source,
            read_modules=outside.read_modules,
            read_psutil=lambda: outside.read_psutil(self._layout),
            begin_loading=outside.begin_loading,
            wait=self._wait_for_loading,
            clock=clock,
        )
        if not config.modules.keep:
            self._undo.push("modules", self._unload_modules)
        self._undo.push("loading of the modules", self._reader.close)
        self._end_where_stopped()
        if config.source != "psutil":
            self._say("Loading the kernel modules (the first time on a kernel builds them) …")
        self._reader.load()
        self._end_where_stopped()
        self._witness = self._start_witness()
        stopwatch = Stopwatch(clock)
        events = self._events = outside.events(self._on_engine_event)
        self._observer = Observer(
            reader=self._reader,
            engine=KeptList(outside.engine(), clock, lambda: events.quiet_since_ns),
            layout=self._layout,
            settings=config.policy,
            installation=self._installation,
            stopwatch=stopwatch,
            second_witness=self._second_witness,
            read_cgroups=outside.read_cgroups,
        )
        self._service = Service(
            observer=self._observer,
            store=self._store,
            host=outside.host_probe(),
            clock=clock,
            settings=config.policy,
            stopwatch=stopwatch,
            removal_wait_s=(
                _ONCE_REMOVAL_WAIT_S
                if self._options.once
                else min(_REMOVAL_WAIT_S, 0.8 * config.interval_s)
            ),
            remover=None if self._options.dry_run else outside.remover(),
            remover=remover,
            installation=self._installation,
        )
        self._undo.push("removals", lambda: self._service.finish_removals(_REMOVAL_WAIT_S))
        if not self._options.once:
            events.start()
            self._undo.push("events", events.close)
        if self._options.governs:
            self._beside.bring_up(self._installation)

    def _end_where_stopped(self) -> None:
        if self._stopper.stopping:
            raise StopRequestedError

    def _wait_for_loading(self, loading: Loading, seconds: float) -> bool:
        """Sleeps until it has ended or the time is over; False where the agent stops."""
        self._notifier.alive()
        pause_s = min(seconds, self._notifier.pause_s, _NEWS_S)
        if not self._stopper.stopping:
            self._stopper.wait(pause_s, loading.fileno())
        return not self._stopper.stopping

    def loop(self) -> None:
        """A tick at once and then one each interval; a late one is skipped, never made up for."""
        interval_ns = int(self._config.interval_s * 10**9)
        began_ns = next_ns = self._clock.boot_ns()
        while not self._stopper.stopping:
            self._tick()
            if self._options.once:
                return
            if next_ns == began_ns:
                settle_collector()
            now_ns = self._clock.boot_ns()
            next_ns += interval_ns * max(1, -(-(now_ns - next_ns) // interval_ns))
            self._wait_until(next_ns)

    def _tick(self) -> None:
        self._notifier.alive()
        try:
            report = self._service.tick()
        except AgentError as error:
            log.warning("outcome=no-tick %s", error)
            return
        line = tick_line(report)
        self._say(line)
        self._report = report
        self._tell(report, self._standing())
        self._notifier.ticked(line)

    def _wait_until(self, deadline_ns: int) -> None:
        while not self._stopper.stopping:
            left_s = (deadline_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0:
                return
            self._notifier.alive()
            self._beside.look()
            self._tell_news()
            if self._starts_seen.is_set():
                self._starts_seen.clear()
                self._hold_limit()
                # No second pass within the pause: a burst of starts is looked at once.
                self._pause(min(_PASS_PAUSE_S, left_s))
            else:
                self._stopper.wait(min(left_s, self._notifier.pause_s, _NEWS_S))

    def _pause(self, seconds: float) -> None:
        deadline_ns = self._clock.boot_ns() + int(seconds * 10**9)
        while not self._stopper.stopping:
            left_s = (deadline_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0:
                return
            self._stopper.wait(left_s)

    def _hold_limit(self) -> None:
        try:
            removed = self._service.hold_limit()
        except AgentError as error:
            log.warning("outcome=no-pass %s", error)
            return
        if removed:
            self._say(
                f"More than {self._config.policy.max_containers} ran: {removed} removed at once"
            )

    def _on_engine_event(self, kind: str, container_id: str) -> None:
        """Called by the event thread."""
        del container_id
        if kind == "resync":
            self._observer.interrupt()
        elif kind in ("start", "unread"):
            self._starts_seen.set()
            self._stopper.wake()

    def _start_witness(self) -> Witness | None:
        if not self._config.bpf.enabled:
            return None
        witness = self._outside.witness(self._layout)
        self._undo.push("bpf", witness.close)
        return witness

    def _second_witness(self, snapshot_ns: int) -> BpfView | None:
        if self._witness is None:
            return None
        state = self._witness.poll()
        if state.status == "off" and not self._bpf_said:
            self._bpf_said = True
            self._say(f"bpf: {state.reason} {state.hint}".rstrip() + " Rows are unverified.")
        if state.status != "ready":
            return None
        try:
            return self._witness.witness(snapshot_ns)
        except SourceError as error:
            log.warning("bpf=unreadable rows are unverified: %s", error)
            return None

    def _unload_modules(self) -> None:
        if gone := self._outside.unload_modules():
            self._say(f"Unloaded the kernel modules {' and '.join(gone)}.")

    def _standing(self) -> _Standing:
        """What is there and what is not working, apart from any tick."""
        problems = list(self._beside.problems.values())
        if self._reader.problem:
            problems.append(f"modules: {self._reader.problem}")
        if self._observer.engine_problem:
            problems.append(f"docker: {self._observer.engine_problem}")
        elif self._events.problem:
            problems.append(
                "events: Docker's events are not followed, so the limit is looked at with each "
                f"tick only: {self._events.problem}"
            )
        problems += self._observer.notices
        if self._events.refusal:
            problems.append(
                f"events: {self._events.refusal} The limit is looked at with each tick instead."
            )
        problems += self._service.recreations.problems
        stored = self._store.state
        if stored.problem:
            problems.append(f"database: {stored.problem}")
        if stored.retention:
            problems.append(f"retention: {stored.retention}")
        bpf_word = "off (--no-bpf)"
        if self._witness is not None:
            state = self._witness.poll()
            bpf_word = state.status if not state.reason else f"{state.status}: {state.reason}"
            if state.status == "off":
                problems.append(f"bpf: {state.reason} {state.hint}".strip())
        words = self._beside.words
        return _Standing(words["grafana"], words["cron"], bpf_word, tuple(problems))

    def _tell_news(self) -> None:
        """BPF and Grafana become ready between two ticks, which may be an hour apart."""
        if self._report is not None and self._told != (standing := self._standing()):
            self._tell(self._report, standing)

    def _tell(self, report: TickReport, standing: _Standing) -> None:
        """Writes the status file; a full disk there must not stop the agent."""
        self._told = standing
        value = status.Status(
            version=__version__,
            pid=os.getpid(),
            since_wall_ms=self._since_ms,
            interval_s=self._config.interval_s,
            scope=str(self._config.policy.scope),
            dry_run=self._options.dry_run,
            source=report.source,
            database=self._config.paths.database,
            grafana=standing.grafana,
            cron=standing.cron,
            bpf=standing.bpf,
            unstored_ticks=self._store.unstored_ticks,
            problems=list(standing.problems),
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
