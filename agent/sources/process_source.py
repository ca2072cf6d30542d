"""Chooses between the two process sources, and says so once each time the choice changes.

The kernel modules come first. Where they are missing `auto` falls back to psutil and goes on
trying, since somebody may have removed or replaced a module under the agent; `modules` refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from agent.clock import Clock
from agent.config import SourceChoice
from agent.errors import AgentError, ModulesError, SourceError
from agent.model.process import Snapshot, Source
from agent.util.backoff import Backoff

log = logging.getLogger(__name__)

_BACKOFF = Backoff(first_ns=60 * 10**9, longest_ns=3600 * 10**9)
"""Between two loadings: each may be a build of minutes."""
_PATIENCE_S = 20.0
"""How long a reading waits for modules that it began to load: they are built as a rule, and ready
within a second, or several on a slow host."""


class Loading(Protocol):
    """Modules being built and loaded in the background."""

    def fileno(self) -> int:
        """Readable once it has ended; valid until `poll` has said so."""

    def poll(self) -> bool:
        """Whether they are loaded. Raises ModulesError where they cannot be."""

    def cancel(self) -> None:
        """Gives up. A second call does nothing."""


class ProcessReader:
    """One snapshot a call, from the best source that works."""

    def __init__(
        self,
        choice: SourceChoice,
        *,
        read_modules: Callable[[], Snapshot],
        read_psutil: Callable[[], Snapshot],
        begin_loading: Callable[[], Loading],
        wait: Callable[[Loading, float], bool],
        clock: Clock,
    ) -> None:
        """`wait(loading, seconds)` sleeps until it has ended or the time is over; False says that
        the agent stops and nothing is to be waited for.
        """
        self._choice = choice
        self._read_modules = read_modules
        self._read_psutil = read_psutil
        self._begin_loading = begin_loading
        self._wait = wait
        self._clock = clock
        self._loading: Loading | None = None
        self._failures = 0
        self._this_pause_ns = 0
        self._load_again_ns = 0
        self._not_loaded: tuple[str, str] | None = None
        """Message and hint. Not the error itself: raised again and again, it would keep the frames
        of every tick, and with them all that the tick had read."""
        self.problem = ""
        """Why the modules are not the source, "" while they are."""
        self.odd = 0
        """How many entries of the last snapshot were taken without a figure, or left out."""

    def load(self) -> None:
        """Loads the modules at start, or until the agent stops.

        Raises ModulesError only where `modules` was asked for.
        """
        if self._choice is SourceChoice.PSUTIL:
            return
        try:
            self._begin()
            self._is_loaded(float("inf"))
        except ModulesError as error:
            if self._choice is SourceChoice.MODULES:
                raise
            self._postpone()
            self._say(str(error))

    def close(self) -> None:
        """Gives up loading that is under way."""
        if self._loading is not None:
            self._loading.cancel()
            self._loading = None

    def read(self) -> Snapshot:
        """A snapshot. Raises SourceError where no allowed source gives one.

        Modules that are gone are loaded again. What takes longer than moments, as a build does,
        goes on in the background, and psutil is the source meanwhile.
        """
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
        if snapshot.odd and not self.odd:
            log.warning("source=%s odd=%d entries are not whole", Source.MODULES, snapshot.odd)
        self.odd = snapshot.odd
        self._failures = 0
        return snapshot

    def _read_or_reload(self) -> Snapshot:
        with suppress(ModulesError):  # why is kept, and the modules may be there all the same
            self._is_loaded(0.0)
        try:
            return self._read_modules()
        except SourceError as error:
            if self._loading is None and self._clock.boot_ns() < self._load_again_ns:
                if self._not_loaded is None:
                    raise
                # Why they could not be loaded says more than that they are not there.
                raise ModulesError(*self._not_loaded) from error
        patience_s = 0.0
        if self._loading is None:
            self._postpone()
            self._begin()
            patience_s = _PATIENCE_S
        if not self._is_loaded(patience_s):
            raise ModulesError("The kernel modules are being built and loaded in the background.")
        return self._read_modules()

    def _begin(self) -> None:
        self._not_loaded = None
        try:
            self._loading = self._begin_loading()
        except AgentError as error:
            self._failed(error)
            raise

    def _is_loaded(self, patience_s: float) -> bool:
        """Whether no loading is under way any more, after `patience_s` at most.

        Raises ModulesError where it ended without the modules.
        """
        ends_ns = self._clock.boot_ns() + patience_s * 10**9
        while (loading := self._loading) is not None:
            try:
                if loading.poll():
                    self._loading = None
                    break
            except AgentError as error:
                self._loading = None
                self._failed(error)
                raise
            left_s = (ends_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0 or not self._wait(loading, left_s):
                return False
        return True

    def _failed(self, error: AgentError) -> None:
        self._not_loaded = (error.message, error.hint)
        # A build may have taken longer than the pause that was counted from its begin.
        self._load_again_ns = self._clock.boot_ns() + self._this_pause_ns

    def _postpone(self) -> None:
        self._failures += 1
        self._this_pause_ns = _BACKOFF.pause_ns(self._failures)
        self._load_again_ns = self._clock.boot_ns() + self._this_pause_ns

    def _say(self, problem: str) -> None:
        if not self.problem:
            log.warning("source=%s instead of the kernel modules: %s", Source.PSUTIL, problem)
        self.problem = problem
