"""What comes up beside the loop and never holds it: cron, the first generation, Grafana.

Each step has its undo in place before it begins, so that a stop in the middle of one finds it. What
is not available is one line with its cause, and the loop runs without.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agent.daemon import teardown
from agent.daemon.lock import GeneratorLock
from agent.daemon.outside import Outside
from agent.daemon.signals import Stopper
from agent.errors import AgentError
from agent.util.subprocess import Program, kill_session
from agent.util.undo import UndoStack

log = logging.getLogger(__name__)

_GRAFANA_WAIT_S = 30.0


class Auxiliary:
    """Brings the load and Grafana up and, through the undo stack, down."""

    def __init__(
        self, outside: Outside, stopper: Stopper, undo: UndoStack, generator: GeneratorLock
    ) -> None:
        self._outside = outside
        self._config = outside.config
        self._say = outside.say
        self._stopper = stopper
        self._undo = undo
        self._generator = generator
        self._first_generation: Program | None = None
        self._grafana = outside.grafana()
        self._grafana_start: threading.Thread | None = None
        self.words = {"cron": "off", "grafana": "off"}
        """How each is doing, for `agent status`."""
        self.problems: dict[str, str] = {}
        """One sentence for each that does not work."""

    def start(self, installation: str) -> None:
        """Starts all that is wanted. Raises nothing: what fails is in `problems` and said."""
        has_docker = bool(self._config.docker_host)
        wants_grafana = self._config.grafana.enabled and has_docker
        wants_cron = self._config.cron.enabled and has_docker
        why_not = "" if has_docker else "no Docker: docker_host is empty"
        if wants_grafana:
            if not self._config.grafana.keep:
                self._undo.push("grafana", self._take_down_grafana)
            self._undo.push("grafana start", self._end_grafana_start)
        self._undo.push("containers", lambda: self._remove_containers(installation))
        self._undo.push("generator", self._stop_generator)
        if wants_cron:
            self._undo.push("cron", self._outside.remove_cron)
            self._step("cron", self._install_cron)
        else:
            self.words["cron"] = f"off ({why_not or '--no-cron'})"
        if wants_grafana:
            self.words["grafana"] = "starting"
            self._start_grafana()
        else:
            self.words["grafana"] = f"off ({why_not or '--no-grafana'})"

    def _take_down_grafana(self) -> None:
        if not self._outside.keeps_containers():
            self._grafana.down()

    def _remove_containers(self, installation: str) -> None:
        if self._outside.keeps_containers():
            self._say("The containers stay, as `agent stop --keep` has it.")
        else:
            self._outside.remove_installation(installation)

    def look(self) -> None:
        """What has ended meanwhile: reaps the first generation, and reports a thread that is gone.

        For the loop, each time that it comes by.
        """
        if self._first_generation is not None:
            status = self._first_generation.poll()
            if status is not None:
                self._first_generation = None
                if status != 0:
                    log.warning(
                        "generator=first-run status=%d see %s/execution.log",
                        status,
                        self._config.paths.log,
                    )
        thread = self._grafana_start
        if thread is not None and not thread.is_alive():
            self._grafana_start = None
            if self.words["grafana"] == "starting":
                self._fail("grafana", AgentError("The thread that starts it has ended."))

    def _step(self, name: str, work: Callable[[], str]) -> None:
        """Whatever goes wrong in one step costs that alone."""
        try:
            self.words[name] = work()
        except AgentError as error:
            self._fail(name, error)
        except Exception as error:
            log.exception("step=%s outcome=failed", name)
            self._fail(
                name,
                AgentError(
                    f"An error inside the agent ({type(error).__name__}: {error}).",
                    "The agent's log has it whole.",
                ),
            )

    def _fail(self, name: str, error: AgentError) -> None:
        self.words[name] = f"not working: {error.message}"
        self.problems[name] = f"{name}: {error}"
        self._say(f"{name}: {error}")

    def _install_cron(self) -> str:
        try:
            path = self._outside.install_cron()
        finally:
            # Load is there once even where nothing can be put in cron's directory.
            self._first_generation = self._outside.start_generator()
        problem = self._outside.cron_problem()
        if problem is not None:
            raise problem
        return f"{path}, every minute"

    def _stop_generator(self) -> None:
        teardown.hold_generator(
            self._generator,
            give_up=lambda: self._stopper.asked > 1,
            at_last=self._end_first_generation,
        )

    def _end_first_generation(self) -> None:
        if self._first_generation is not None:
            kill_session(self._first_generation)

    def _start_grafana(self) -> None:
        thread = threading.Thread(
            target=self._step,
            args=("grafana", lambda: f"up at {self._grafana.up(self._say)}"),
            name="grafana",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._fail("grafana", AgentError(f"No thread can be started for it: {error}."))
        else:
            self._grafana_start = thread

    def _end_grafana_start(self) -> None:
        """A start under way gives up, or compose would bring up what stop takes down."""
        self._grafana.cancel()
        if self._grafana_start is not None:
            self._grafana_start.join(_GRAFANA_WAIT_S)
