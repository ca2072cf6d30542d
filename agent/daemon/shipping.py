"""Starts this host's flushes to the centre: one niced process each, and the loop never waits.

The agent has no driver for PostgreSQL: it starts `agent fleet ship` in the environment that has
one, and looks from time to time whether that has ended. How it went is in the state that the
process leaves, for `agent fleet status` and the list of what does not work.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.clock import Clock
from agent.config import Config
from agent.errors import AgentError
from agent.fleet.local import read_state
from agent.place import SCRIPTS
from agent.util.subprocess import DISCARDED, CommandError, Program, begin, kill_session

log = logging.getLogger(__name__)

_SECOND_NS = 10**9
_LONGEST_S = 1800
"""A flush that takes longer is ended; the next goes on where it was."""
_NICE = "10"
_JITTER = 0.1
"""Hosts that were started together do not flush together."""


class Shipping:
    """One thread calls it."""

    def __init__(
        self,
        config: Config,
        config_file: Path | None,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = config.fleet
        self._directory = Path(config.paths.database).parent
        self._clock = clock
        self._chance = chance
        self._command = ship_command(config, config_file)
        self._process: Program | None = None
        self._began_ns = 0
        # Somewhere within the first interval, for the same reason.
        self._next_ns = clock.boot_ns() + int(chance() * self._settings.flush_s * _SECOND_NS)
        self.problem = ""
        """Why nothing is shipped, "" while it is."""

    def look(self) -> None:
        """Starts a flush that is due, or takes note of one that ended. Never waits."""
        now_ns = self._clock.boot_ns()
        if self._process is not None:
            self._look_after(self._process, now_ns)
        elif now_ns >= self._next_ns:
            self._begin(now_ns)

    def hold_ms(self) -> int:
        """From which timestamp on rows are still to be shipped, 0 before the first flush."""
        try:
            return read_state(self._directory).safe_before_ms
        except AgentError:
            return 0

    def close(self) -> None:
        """Ends a flush under way: it may be cut off anywhere."""
        if self._process is not None:
            kill_session(self._process)
            self._process = None

    def _begin(self, now_ns: int) -> None:
        spread = 1 + _JITTER * (2 * self._chance() - 1)
        self._next_ns = now_ns + int(spread * self._settings.flush_s * _SECOND_NS)
        self._began_ns = now_ns
        try:
            self._process = begin(
                self._command,
                stdout=DISCARDED,
                stderr=DISCARDED,
                env={"SO1_FLEET_ENVIRONMENT": "1"},
            )
        except CommandError as error:
            self._failed(
                f"The fleet's environment {self._settings.environment} cannot be used: "
                f"{error} Make it: sudo {SCRIPTS}/fleet_environment.sh"
            )

    def _look_after(self, process: Program, now_ns: int) -> None:
        status = process.poll()
        if status is None:
            if now_ns - self._began_ns > _LONGEST_S * _SECOND_NS:
                self.close()
                self._failed(f"A flush took longer than {_LONGEST_S} s and was ended.")
            return
        self._process = None
        if status == 0:
            if self.problem:
                log.info("fleet=back")
            self.problem = ""
        else:
            self._failed(f"Nothing is shipped (status {status}): see `agent fleet status`.")

    def _failed(self, problem: str) -> None:
        if not self.problem:
            log.warning("fleet=failing %s", problem)
        self.problem = problem


def ship_command(config: Config, config_file: Path | None) -> Sequence[str]:
    """What a flush runs, with the settings that this agent was started with."""
    words = [
        *("nice", "-n", _NICE, os.path.join(config.fleet.environment, "bin/python")),
        *("-I", "-m", "agent", "fleet", "ship", "--database", config.paths.database),
    ]
    return [*words, "--config", str(config_file.absolute())] if config_file else words
