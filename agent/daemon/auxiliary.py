"""What comes up beside the loop and never holds it: cron, the first generation, Grafana.

Each step has its undo in place before it begins, so that a stop in the middle of one finds it. What
cannot be had is one line with its cause, and the loop runs without.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from agent.actions import cron, kernel_modules
from agent.actions.grafana import Grafana
from agent.config import Config
from agent.daemon import teardown
from agent.daemon.lock import GeneratorLock
from agent.daemon.signals import Stopper
from agent.errors import AgentError
from agent.util.subprocess import environment, kill_session
from agent.util.terminal import Say
from agent.util.undo import UndoStack

_GRAFANA_WAIT_S = 30.0


class Beside:
    """Brings the load and Grafana up and, through the undo stack, down."""

    def __init__(
        self,
        config: Config,
        say: Say,
        stopper: Stopper,
        undo: UndoStack,
        generator: GeneratorLock,
    ) -> None:
        self._config = config
        self._say = say
        self._stopper = stopper
        self._undo = undo
        self._generator = generator
        self._first_generation: subprocess.Popen[bytes] | None = None
        self._grafana = Grafana.configured(config)
        self.words = {"cron": "off", "grafana": "off"}
        """How each is doing, for `agent status`."""
        self.problems: dict[str, str] = {}
        """One sentence for each that does not work."""

    def bring_up(self, installation: str) -> None:
        """Starts all that is wanted. Raises nothing: what fails is in `problems` and said."""
        wants_grafana, wants_cron = self._config.grafana.enabled, self._config.cron.enabled
        thread = threading.Thread(
            target=self._step, args=("grafana", self._bring_up_grafana), daemon=True
        )
        if wants_grafana:
            if not self._config.grafana.keep:
                self._undo.push("grafana", self._grafana.down)
            self._undo.push("grafana start", lambda: self._end_grafana_start(thread))
        self._undo.push(
            "containers",
            lambda: teardown.remove_containers(self._config.docker_host, installation, self._say),
        )
        self._undo.push("generator", self._stop_generator)
        if wants_cron:
            self._undo.push("cron", lambda: cron.remove(self._config.cron))
            self._step("cron", self._install_cron)
        else:
            self.words["cron"] = "off (--no-cron)"
        if wants_grafana:
            self.words["grafana"] = "starting"
            thread.start()
        else:
            self.words["grafana"] = "off (--no-grafana)"

    def _step(self, name: str, work: Callable[[], str]) -> None:
        try:
            self.words[name] = work()
        except AgentError as error:
            self.words[name] = f"not working: {error.message}"
            self.problems[name] = f"{name}: {error}"
            self._say(f"{name}: {error}")

    def _install_cron(self) -> str:
        script = kernel_modules.script().with_name("generar_contenedores.sh")
        cron.check_trusted(script)
        try:
            path = cron.install(self._config, script)
        finally:
            # Load is there once even where nothing can be put in cron's directory.
            self._generate(script)
        problem = cron.daemon_problem()
        if problem is not None:
            raise problem
        return f"{path}, every minute"

    def _generate(self, script: Path) -> None:
        """Starts the first generation. Raises AgentError where that cannot be."""
        try:
            self._first_generation = subprocess.Popen(
                ["bash", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(cron.generator_environment(self._config)),
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            raise AgentError(f"bash cannot be run: {error.strerror}.", "Install bash.") from error

    def _stop_generator(self) -> None:
        teardown.hold_generator(
            self._generator,
            give_up=lambda: self._stopper.asked > 1,
            at_last=self._end_first_generation,
        )

    def _end_first_generation(self) -> None:
        if self._first_generation is not None:
            kill_session(self._first_generation)

    def _end_grafana_start(self, thread: threading.Thread) -> None:
        """A start under way gives up, or compose would bring up what stop takes down."""
        self._grafana.cancel()
        if thread.is_alive():
            thread.join(_GRAFANA_WAIT_S)

    def _bring_up_grafana(self) -> str:
        return f"up at {self._grafana.up(self._say)}"
