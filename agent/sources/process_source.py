"""Chooses between the two process sources, and says so once each time the choice changes.

The kernel modules come first. Where they cannot be had `auto` falls back to psutil and goes on
trying, since somebody may have removed or replaced a module under the agent; `modules` refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.clock import Clock
from agent.config import SourceChoice
from agent.errors import AgentError, ModulesError, SourceError
from agent.model.process import Snapshot, Source

log = logging.getLogger(__name__)

_FIRST_PAUSE_NS = 60 * 10**9
_LONGEST_PAUSE_NS = 3600 * 10**9


class ProcessReader:
    """One snapshot a call, from the best source that works."""

    def __init__(
        self,
        choice: SourceChoice,
        *,
        read_modules: Callable[[], Snapshot],
        read_psutil: Callable[[], Snapshot],
        load_modules: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._choice = choice
        self._read_modules = read_modules
        self._read_psutil = read_psutil
        self._load_modules = load_modules
        self._clock = clock
        self._pause_ns = _FIRST_PAUSE_NS
        self._load_again_ns = 0
        self._not_loaded: tuple[str, str] | None = None
        """Message and hint. Not the error itself: raised again and again, it would keep the frames
        of every tick, and with them all that the tick had read."""
        self.problem = ""
        """Why the modules are not the source, "" while they are."""

    def load(self) -> None:
        """Loads the modules at start. Raises ModulesError only where `modules` was asked for."""
        if self._choice is SourceChoice.PSUTIL:
            return
        try:
            self._try_loading()
        except ModulesError as error:
            if self._choice is SourceChoice.MODULES:
                raise
            self._postpone()
            self._say(str(error))

    def read(self) -> Snapshot:
        """A snapshot. Raises SourceError where no allowed source gives one."""
        if self._choice is SourceChoice.PSUTIL:
            return self._read_psutil()
        try:
            snapshot = self._read_or_reload()
        except AgentError as error:
            if self._choice is SourceChoice.MODULES:
                self.problem = str(error)
                raise
            self._say(str(error))
            return self._read_psutil()
        if self.problem:
            log.info("source=%s the kernel modules are back", Source.MODULES)
            self.problem = ""
        self._pause_ns = _FIRST_PAUSE_NS
        return snapshot

    def _read_or_reload(self) -> Snapshot:
        try:
            return self._read_modules()
        except SourceError as error:
            if self._clock.boot_ns() < self._load_again_ns:
                if self._not_loaded is None:
                    raise
                # Why they could not be loaded says more than that they are not there.
                raise ModulesError(*self._not_loaded) from error
            self._postpone()
            self._try_loading()
            return self._read_modules()

    def _try_loading(self) -> None:
        self._not_loaded = None
        try:
            self._load_modules()
        except AgentError as error:
            self._not_loaded = (error.message, error.hint)
            raise

    def _postpone(self) -> None:
        self._load_again_ns = self._clock.boot_ns() + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)

    def _say(self, problem: str) -> None:
        if not self.problem:
            log.warning("source=%s instead of the kernel modules: %s", Source.PSUTIL, problem)
        self.problem = problem
