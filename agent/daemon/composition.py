"""Composes one run of the agent and takes it apart again: `agent start` and its end.

The order is the contract. Lock, database, modules, Docker and cron come before the first tick; the
first generation, Grafana and BPF come up in the background and never hold it. Each undoes itself in
reverse, after a signal, a failure or `--once` alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.cli.views.status import tick_line
from agent.clock import Clock
from agent.config import Config
from agent.daemon import keeping
from agent.daemon.autopsies import Autopsies
from agent.daemon.auxiliary import Auxiliary
from agent.daemon.bpf_polling import BpfPolling
from agent.daemon.collector import Collector, Stopwatch
from agent.daemon.engines import Engines
from agent.daemon.events import StartsSeen
from agent.daemon.last_word import LastWord
from agent.daemon.lock import GeneratorLock
from agent.daemon.memory_watch import MemoryWatch
from agent.daemon.outlets import Outlets
from agent.daemon.outside import Outside
from agent.daemon.reload import Reloading
from agent.daemon.removals import Removals
from agent.daemon.scheduler import NEWS_S, Scheduler
from agent.daemon.sdnotify import Notifier
from agent.daemon.signals import Stopper, StopRequestedError
from agent.daemon.status_writer import Condition, StatusWriter
from agent.daemon.tick import Ticker
from agent.daemon.trust import Trust
from agent.model.tick import Carried
from agent.place import SCRIPTS
from agent.policy import idle, original
from agent.policy.host_bounds import bounds_of
from agent.policy.host_watch import HostWatch
from agent.policy.memory import RuleMemory
from agent.policy.original import RulesInForce
from agent.policy.rules import needs_labels
from agent.sources.process_source import Loading, ProcessReader
from agent.store.rules_in_force import RuleRows
from agent.util.memory_tuning import settle_collector
from agent.util.terminal import Say
from agent.util.undo import UndoStack

_REMOVAL_WAIT_S = 5.0
"""A tick waits this long for its removals, and never past four fifths of its interval; so does the
stop."""

_ONCE_REMOVAL_WAIT_S = 30.0
"""After a single tick no other reports how its removals ended."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `agent start` was asked to do beside the configuration."""

    once: bool = False
    dry_run: bool = False
    config_file: Path | None = None
    """The one that was named; a flush to the centre reads it too."""
    read_again: Callable[[], Config] | None = None
    """Gives the settings as they are at a reload. Raises AgentError for what cannot be used."""

    @property
    def governs(self) -> bool:
        """Whether cron, generator and Grafana come up, and containers go at stop."""
        return not (self.once or self.dry_run)


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
        undo.push("keep", lambda: keeping.forget(outside.run_dir))
        with suppress(StopRequestedError):
            _Run(outside, options, stopper, undo, generator, notifier).run()
        notifier.stopping()
        say("Stopping: taking down what the agent brought. Press Ctrl-C again to shorten the wait.")
    if undo.failures:
        say(f"Stopped, but not everything could be undone: {'; '.join(undo.failures)}")
        say("Run `sudo agent cleanup`.")
        return 1
    say("Stopped.")
    return 0


class _Run:
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
        self._options = options
        self._stopper = stopper
        self._undo = undo
        self._notifier = notifier
        self._config = outside.config
        self._clock = outside.clock
        self._say = outside.say
        self._outlets = Outlets()
        self._auxiliary = Auxiliary(outside, stopper, undo, generator)
        self._reloading = Reloading(options.read_again, self._use)

    def run(self) -> None:
        """Everything that the first tick needs, in the background what it does not need, the loop.

        Raises StopRequestedError where a signal came while the modules were built.
        """
        config, clock, outside, undo = self._config, self._clock, self._outside, self._undo
        self._status = StatusWriter(
            outside.run_dir,
            config,
            dry_run=self._options.dry_run,
            since_ms=clock.wall_ns() // 10**6,
            state=self._state,
        )
        undo.push("status", self._status.clear)
        self._store = outside.store()
        undo.push("database", self._store.close)
        self._rules_since_ms = clock.wall_ns() // 10**6
        self._store.kept.append(
            RuleRows(lambda: RulesInForce(self._rules_since_ms, self._config.policy))
        )
        installation = outside.installation()
        layout = outside.layout()
        self._processes = ProcessReader(
            config.source,
            read_modules=outside.read_modules,
            read_psutil=lambda: outside.read_psutil(layout),
            begin_loading=outside.begin_loading,
            wait=self._wait_for_loading,
            clock=clock,
        )
        self._load_modules()
        witness = outside.witness(layout) if config.bpf.enabled else None
        if witness is not None:
            undo.push("bpf", witness.close)
        self._bpf = BpfPolling(witness, clock, self._say)
        starts = StartsSeen(self._stopper)
        self._engines = Engines(outside, layout.root, starts, self._interrupted)
        if other := outside.other_engine():
            self._say(f"docker: {other}")
        stopwatch = Stopwatch(clock)
        self._collector = Collector(
            read_processes=self._processes.read,
            engines=self._engines.lists,
            layout=layout,
            read_cgroups=outside.read_cgroups,
            read_bpf=self._bpf.read,
            read_host=outside.read_host,
            stopwatch=stopwatch,
            lives=self._engines.lives,
            read_activity=outside.read_activity,
        )
        self._collector.measures_idle = idle.is_asked_for(original.rule_set(config.policy))
        if not self._options.once:
            self._outlets.start(config, self._options.config_file, self._store, clock, undo)
        self._trust = Trust(
            config,
            self._store,
            clock,
            self._options.config_file,
            with_canary=not self._options.once,
        )
        undo.push("canary", self._trust.close)
        own = outside.own_container()
        self._last_word = LastWord(self._trust.now)
        self._removals = removals = Removals(
            None if self._options.dry_run else outside.remover(own, self._last_word),
            self._store,
            clock,
            _ONCE_REMOVAL_WAIT_S
            if self._options.once
            else min(_REMOVAL_WAIT_S, 0.8 * config.interval_s),
            self._outlets.removed,
        )
        watch = HostWatch()
        self._ticker = Ticker(
            collector=self._collector,
            own=own,
            removals=removals,
            store=self._store,
            clock=clock,
            settings=config.policy,
            installation=installation,
            stopwatch=stopwatch,
            mark=self._bpf.mark,
            carried=Carried(host=outside.read_host()),
            watch=watch,
            metrics=self._outlets.metrics,
            autopsies=Autopsies(
                marks=self._bpf.ooms,
                ended=self._bpf.ended,
                kernel_log=outside.kernel_log(undo),
                started=self._engines.started,
                clock=clock,
            ),
            stands=self._outlets.stands,
            trust=self._trust,
            applied=outside.applied(),
            # A tick may be late by one; more than that nobody has observed.
            memory=RuleMemory(
                int(2.5 * config.interval_s * 10**9), outside.remembered(), clock.boot_ns()
            ),
        )
        self._memory = MemoryWatch(
            watch,
            outside.memory_sampler(),
            clock,
            set_trigger=outside.pressure_trigger,
            survive=outside.survive,
            settle=self._ticker.settle,
        )
        undo.push("memory watch", self._memory.close)
        removals.hurry_where(self._memory.is_pressing)
        undo.push("removals", lambda: self._ticker.finish(_REMOVAL_WAIT_S))
        if not self._options.once:
            self._engines.start()
            undo.push("events", self._engines.close)
        if self._options.governs:
            self._auxiliary.start(installation)
        if not self._options.once:
            self._memory.use(bounds_of(original.rule_set(config.policy)))
        Scheduler(
            interval_s=config.interval_s,
            clock=clock,
            stopper=self._stopper,
            notifier=self._notifier,
            starts=starts,
            tick=self._tick,
            hold_limit=self._hold_limit,
            memory=self._memory,
            relieve=self._relieve,
            look=self._look,
            after_first=settle_collector,
        ).run(once=self._options.once)

    def _interrupted(self, engine: str) -> None:
        """It was away. Called by its event thread, once the collector is there."""
        self._collector.interrupt(engine)

    def _load_modules(self) -> None:
        if not self._config.modules.keep:
            self._undo.push("modules", self._unload_modules)
        self._undo.push("loading of the modules", self._processes.close)
        self._end_where_stopped()
        if self._config.source != "psutil":
            self._say("Loading the kernel modules (the first time on a kernel builds them) …")
        self._processes.load()
        self._end_where_stopped()

    def _end_where_stopped(self) -> None:
        if self._stopper.stopping:
            raise StopRequestedError

    def _wait_for_loading(self, loading: Loading, seconds: float) -> bool:
        """Sleeps until it has ended or the time is over; False where the agent stops."""
        self._notifier.alive()
        pause_s = min(seconds, self._notifier.pause_s, NEWS_S)
        if not self._stopper.stopping:
            self._stopper.wait(pause_s, loading.fileno())
        return not self._stopper.stopping

    def _unload_modules(self) -> None:
        if gone := self._outside.unload_modules():
            self._say(f"Unloaded the kernel modules {' and '.join(gone)}.")

    def _tick(self) -> None:
        report = self._ticker.tick()
        line = tick_line(report)
        self._say(line)
        self._status.ticked(report)
        self._notifier.ticked(line)

    def _hold_limit(self) -> None:
        if removed := self._ticker.hold_limit():
            limit = self._config.policy.max_containers
            self._say(f"More than {limit} ran: {removed} removed at once")

    def _relieve(self) -> None:
        if self._ticker.waits_for_a_tick:
            # An engine that was slow for a moment, as where memory is short, must not keep the
            # remedy back for a whole interval.
            self._tick()
        if acted := self._ticker.relieve():
            self._say(f"Memory is short: {acted} acted on at once, before the kernel kills one")

    def _look(self) -> None:
        """What may have changed between two ticks."""
        if self._stopper.take_reload():
            self._reloading.run()
        self._auxiliary.look()
        self._trust.look()
        self._outlets.look()
        self._status.look()

    def _use(self, config: Config) -> None:
        """Only the rules: everything else of the settings is for the next start."""
        self._last_word.rules_changed(
            self._removals.under_way,
            original.rule_set(self._config.policy),
            original.rule_set(config.policy),
        )
        self._config = msgspec.structs.replace(self._config, policy=config.policy)
        self._rules_since_ms = self._clock.wall_ns() // 10**6
        self._ticker.use(config.policy)
        self._collector.measures_idle = idle.is_asked_for(original.rule_set(config.policy))
        self._engines.ask_all_labels(needs_labels(config.policy.rule))
        self._memory.use(bounds_of(original.rule_set(config.policy)))
        self._status.use(self._config)

    def _state(self) -> Condition:
        """What is there and what is not working, apart from any tick."""
        stored = self._store.state
        problems = [
            *self._auxiliary.problems.values(),
            *_named("modules", self._processes.problem),
            *self._engine_problems(),
            *self._ticker.recreations.problems,
            *self._outlets.problems,
            *_named("canary", self._trust.problem),
            *self._memory.problems,
            *_named("rules", self._reloading.problem),
            *_named("database", stored.problem),
            *_named("retention", stored.retention),
        ]
        if problem := self._bpf.problem:
            problems.append(problem)
        words = self._auxiliary.words
        return Condition(
            words["grafana"],
            words["cron"],
            self._bpf.word,
            self._store.unstored_ticks,
            tuple(problems),
            self._engines.states(self._collector),
            self._reloading.count,
            self._trust.word,
            self._trust.uses,
            self._outlets.waiting,
        )

    def _engine_problems(self) -> list[str]:
        problems = self._engines.problems(self._collector)
        if odd := self._processes.odd:
            problems.append(
                f"modules: {odd} entries are odd: a figure counts as 0, or the entry "
                f"is left out. Run `sudo {SCRIPTS}/load_modules.sh` to build them again."
            )
        return problems


def _named(what: str, problem: str) -> list[str]:
    return [f"{what}: {problem}"] if problem else []
