"""Brings everything up, runs the ticks, and takes down what it brought: `agent start` and its end.

The order is the contract. Lock, database, modules and Docker come before the first tick; cron, the
first generation, Grafana and BPF come up beside the loop and never hold it. Each undoes itself in
reverse, after a signal, a failure or `--once` alike.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from agent import __version__, status
from agent.actions import cron, kmod
from agent.actions.compose import Grafana
from agent.actions.containers import Remover, remove_installation
from agent.clock import Clock
from agent.config import Config
from agent.errors import AgentError, EngineUnavailableError, SourceError
from agent.host import HostProbe
from agent.lock import AgentLock, GeneratorLock
from agent.reader import ProcessReader
from agent.render import tick_line
from agent.run import environment, kill_session
from agent.sdnotify import Notifier
from agent.service import Service, TickReport
from agent.sources import cgroups, proc_modules, proc_psutil
from agent.sources.engine import Engine, EngineEvents
from agent.store.installation import installation_id
from agent.store.store import Store
from agent.terminal import Say
from agent.undo import UndoStack

if TYPE_CHECKING:
    from agent.books import BpfView
    from agent.sources.bpf import Witness

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRAFANA_WAIT_S = 30.0
_PASS_PAUSE_S = 0.5
"""Container starts come in bursts: one look at the limit serves all of a burst."""


class StopRequestedError(BaseException):
    """A signal came while something long ran that may be cut short."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `agent start` was asked to do beside the configuration."""

    once: bool = False
    dry_run: bool = False

    @property
    def governs(self) -> bool:
        """Whether cron, generator and Grafana come up, and containers go at stop."""
        return not (self.once or self.dry_run)


class Stopper:
    """Turns signals into one event. Made in the main thread, which alone receives them."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.asked = 0
        self._interruptible = False

    @property
    def stopping(self) -> bool:
        return self.asked > 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked += 1
        self.wake.set()
        if self._interruptible:
            self._interruptible = False
            raise StopRequestedError

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within the block a signal raises StopRequestedError: a build must not hold a stop."""
        if self.stopping:
            raise StopRequestedError
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The block runs with our handlers; the caller's come back after it."""
        before = {number: signal.signal(number, self.handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def start(config: Config, options: Options, clock: Clock, say: Say) -> int:
    """Runs the agent until a signal (or for one tick) and gives its exit status.

    Raises AgentError, with nothing changed on the host, where it cannot begin.
    """
    run_dir = Path(config.paths.run)
    stopper = Stopper()
    undo = UndoStack()
    generator = GeneratorLock(run_dir)
    notifier = Notifier.from_environment(os.environ)
    with ExitStack() as stack:
        stack.enter_context(stopper.installed())
        # Let go of last: a generator that comes late then finds no agent, and makes nothing.
        stack.callback(generator.release)
        stack.enter_context(AgentLock(run_dir))
        stack.enter_context(undo)
        agent = _Agent(config, options, clock, say, stopper, undo, generator, notifier)
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
        config: Config,
        options: Options,
        clock: Clock,
        say: Say,
        stopper: Stopper,
        undo: UndoStack,
        generator: GeneratorLock,
        notifier: Notifier,
    ) -> None:
        self._generator = generator
        self._notifier = notifier
        self._config = config
        self._options = options
        self._clock = clock
        self._say = say
        self._stopper = stopper
        self._undo = undo
        self._run_dir = Path(config.paths.run)
        self._since_ms = clock.wall_ns() // 10**6
        self._beside: dict[str, str] = {}
        self._beside_problems: dict[str, str] = {}
        self._starts_seen = threading.Event()
        self._first_generation: subprocess.Popen[bytes] | None = None

    def bring_up(self) -> None:
        """Everything that the first tick needs, and beside it what it does not need."""
        config, clock = self._config, self._clock
        database = Path(config.paths.database)
        self._undo.push("status", lambda: status.clear(self._run_dir))
        self._store = Store.open(database, clock=clock, retention=config.retention)
        self._undo.push("database", self._store.close)
        self._installation = installation_id(database.parent)
        self._layout = cgroups.detect()
        self._reader = ProcessReader(
            config.source,
            read_modules=lambda: proc_modules.read(
                Path(config.modules.sysinfo_path), Path(config.modules.continfo_path), clock
            ),
            read_psutil=lambda: proc_psutil.read(clock, self._layout),
            load_modules=lambda: kmod.load(Path(config.paths.build)),
            clock=clock,
        )
        if not config.modules.keep:
            self._undo.push("modules", self._unload_modules)
        with self._stopper.interruptible():
            if config.source != "psutil":
                self._say("Loading the kernel modules (the first time on a kernel builds them) …")
            self._reader.load()
        self._engine = Engine(config.docker_host, clock)
        self._witness = self._start_witness()
        self._grafana = Grafana(
            config.grafana, Path(config.paths.install), database, config.docker_host
        )
        remover = None
        if not self._options.dry_run:
            remover = Remover(config.docker_host, clock, config.policy.stop_grace_s)
            self._undo.push("removals", lambda: remover.close(5.0))
        self._service = Service(
            reader=self._reader,
            engine=self._engine,
            layout=self._layout,
            store=self._store,
            host=HostProbe(),
            clock=clock,
            settings=config.policy,
            installation=self._installation,
            interval_s=config.interval_s,
            remover=remover,
            second_witness=self._second_witness,
        )
        if not self._options.once:
            events = EngineEvents(config.docker_host, self._on_engine_event)
            events.start()
            self._undo.push("events", events.close)
        if self._options.governs:
            self._bring_up_beside()

    def loop(self) -> None:
        """A tick at once and then one each interval; a late one is skipped, never made up for."""
        interval_ns = int(self._config.interval_s * 10**9)
        next_ns = self._clock.boot_ns()
        while not self._stopper.stopping:
            self._tick()
            if self._options.once:
                return
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
        self._tell(report)
        self._notifier.ticked(line)

    def _wait_until(self, deadline_ns: int) -> None:
        while not self._stopper.stopping:
            left_s = (deadline_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0:
                return
            self._notifier.alive()
            self._stopper.wake.wait(min(left_s, self._notifier.pause_s))
            if self._stopper.stopping:
                return
            if self._stopper.wake.is_set():
                self._stopper.wake.clear()
                if self._starts_seen.is_set():
                    self._starts_seen.clear()
                    self._hold_limit()
                    # No second pass within the pause: a burst of starts is looked at once.
                    self._pause(min(_PASS_PAUSE_S, left_s))

    def _pause(self, seconds: float) -> None:
        deadline_ns = self._clock.boot_ns() + int(seconds * 10**9)
        while not self._stopper.stopping:
            left_s = (deadline_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0:
                break
            self._stopper.wake.wait(left_s)
            if not self._stopper.stopping:
                self._stopper.wake.clear()
        if self._starts_seen.is_set():
            self._stopper.wake.set()

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
            self._service.engine_was_interrupted()
        elif kind == "start":
            self._starts_seen.set()
            self._stopper.wake.set()

    def _start_witness(self) -> Witness | None:
        if not self._config.bpf.enabled:
            self._beside["bpf"] = "off (--no-bpf)"
            return None
        from agent.sources import bpf  # noqa: PLC0415 - ctypes and libbpf only where asked for

        witness = bpf.Witness.start(self._layout.hierarchy, self._clock)
        self._undo.push("bpf", witness.close)
        return witness

    def _second_witness(self, snapshot_ns: int) -> BpfView | None:
        if self._witness is None or self._witness.poll().status != "ready":
            return None
        try:
            return self._witness.witness(snapshot_ns)
        except SourceError as error:
            log.warning("bpf=unreadable rows are unverified: %s", error)
            return None

    def _bring_up_beside(self) -> None:
        """Undo first, then the steps: a stop in the middle of one finds its undo in place."""
        grafana_thread = threading.Thread(
            target=self._beside_step, args=("grafana", self._bring_up_grafana), daemon=True
        )
        if self._config.grafana.enabled:
            if not self._config.grafana.keep:
                self._undo.push("grafana", self._take_down_grafana)
            # Down waits for up, or compose would bring up what stop has just taken down.
            self._undo.push("grafana start", lambda: grafana_thread.join(_GRAFANA_WAIT_S))
        else:
            self._beside["grafana"] = "off (--no-grafana)"
        self._undo.push("containers", self._remove_containers)
        self._undo.push("generator", self._stop_generator)
        if self._config.cron.enabled:
            self._undo.push("cron", lambda: cron.remove(self._config.cron))
            self._beside_step("cron", self._install_cron)
        else:
            self._beside["cron"] = "off (--no-cron)"
        if self._config.grafana.enabled:
            grafana_thread.start()

    def _beside_step(self, name: str, work: Callable[[], str]) -> None:
        try:
            self._beside[name] = work()
        except AgentError as error:
            self._beside[name] = f"not working: {error.message}"
            self._beside_problems[name] = f"{name}: {error}"
            self._say(f"{name}: {error}")

    def _install_cron(self) -> str:
        script = kmod.script().with_name("generar_contenedores.sh")
        path = cron.install(self._config, script)
        self._first_generation = subprocess.Popen(
            ["bash", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(cron.generator_environment(self._config)),
            start_new_session=True,
            cwd="/",
        )
        problem = cron.daemon_problem()
        if problem is not None:
            raise problem
        return f"{path}, every minute"

    def _stop_generator(self) -> None:
        """Takes the generator's lock and keeps it, so that no container is born behind the stop."""
        taken = self._generator.acquire(give_up=lambda: self._stopper.asked > 1)
        if self._first_generation is not None:
            kill_session(self._first_generation)
        if not taken and not self._generator.acquire(1.0):
            raise AgentError("A generator of load is still running.", "Run `sudo agent cleanup`.")

    def _remove_containers(self) -> None:
        try:
            removals = remove_installation(
                self._config.docker_host, self._installation, progress=self._say
            )
        except EngineUnavailableError as error:
            raise AgentError(
                f"Docker is away, so this installation's containers stay: {error.message}",
                "Run `sudo agent cleanup` when it is back.",
            ) from error
        failed = [one for one in removals if one.outcome == "failed"]
        if failed:
            names = ", ".join(one.decision.container_name for one in failed)
            raise AgentError(f"{names} could not be removed: {failed[0].error}")

    def _bring_up_grafana(self) -> str:
        return f"up at {self._grafana.up(self._say)}"

    def _take_down_grafana(self) -> None:
        self._grafana.down()

    def _unload_modules(self) -> None:
        if gone := kmod.unload():
            self._say(f"Unloaded the kernel modules {' and '.join(gone)}.")

    def _tell(self, report: TickReport) -> None:
        """Writes the status file; a full disk there must not stop the agent."""
        problems = list(self._beside_problems.values())
        if self._reader.problem:
            problems.append(f"modules: {self._reader.problem}")
        if self._service.engine_problem:
            problems.append(f"docker: {self._service.engine_problem}")
        if self._store.state.problem:
            problems.append(f"database: {self._store.state.problem}")
        bpf_word = self._beside.get("bpf", "off")
        if self._witness is not None:
            state = self._witness.state
            bpf_word = state.status if not state.reason else f"{state.status}: {state.reason}"
            if state.status == "off":
                problems.append(f"bpf: {state.reason} {state.hint}".strip())
        value = status.Status(
            version=__version__,
            pid=os.getpid(),
            since_wall_ms=self._since_ms,
            interval_s=self._config.interval_s,
            scope=str(self._config.policy.scope),
            dry_run=self._options.dry_run,
            source=report.source,
            database=self._config.paths.database,
            grafana=self._beside.get("grafana", "starting" if self._options.governs else "off"),
            cron=self._beside.get("cron", "starting" if self._options.governs else "off"),
            bpf=bpf_word,
            unstored_ticks=self._store.unstored_ticks,
            problems=problems,
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
