"""The lists of all engines, each read in a thread of its own, so that none waits for another.

Who asks gets what each engine answered within the time that a healthy one takes. One that did not
is away for now: its answer, when it comes, is for the next time. While it hangs nobody waits for
it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from agent.errors import EngineUnavailableError
from agent.sources.engine.inventory import Listing

log = logging.getLogger(__name__)

PATIENCE_S = 3.0
"""For engines whose last answer was a list, late or not: a loaded podman takes a second or two."""
DOUBT_S = 0.25
"""For one whose last answer was an error: enough for one that is back."""


class ContainerLister(Protocol):
    """One engine's list, kept for a while or not, used by one thread."""

    def list(self, *, fresh: bool = False) -> Listing:
        """All containers. Raises EngineUnavailableError."""


Answer = Listing | EngineUnavailableError


class EngineLists:
    """All engines by name, in the order of the settings. Asked by one thread."""

    def __init__(
        self, engines: Mapping[str, ContainerLister], patience_s: float = PATIENCE_S
    ) -> None:
        """`patience_s` is how long to wait for engines whose last answer was a list."""
        self._patience_s = patience_s
        self._only = next(iter(engines.values())) if len(engines) == 1 else None
        self._readers = {name: _ListThread(name, engine) for name, engine in engines.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._readers)

    def ask(self, *, fresh: bool = False) -> dict[str, Answer]:
        """What each engine answers, with `fresh` of this moment; an error where it does not.

        A host with one engine waits for it as long as its list may take: nobody else is there.
        """
        if self._only is not None:
            (name,) = self._readers
            try:
                return {name: self._only.list(fresh=fresh)}
            except EngineUnavailableError as error:
                return {name: error}
        began = time.monotonic()
        hanging = {name for name, reader in self._readers.items() if not reader.begin(fresh=fresh)}
        answers: dict[str, Answer] = {}
        for name, reader in self._readers.items():
            patience_s = DOUBT_S if reader.failed else self._patience_s
            answers[name] = reader.wait(began + (0.0 if name in hanging else patience_s))
        return answers

    def close(self) -> None:
        """Ends the threads, that of an engine that hangs when its call is over. Ask no more."""
        for reader in self._readers.values():
            reader.close()


class _ListThread:
    """One engine's thread. Everything but `_read` is the asking thread's."""

    def __init__(self, name: str, engine: ContainerLister) -> None:
        self._name = name
        self._engine = engine
        self._changed = threading.Condition()
        self._wanted: bool | None = None
        """Whether a fresh list is wanted; None while none is."""
        self._running = self._closed = False
        self._answer: Answer | None = None
        self._last: Answer | None = None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def failed(self) -> bool:
        """Whether its last answer was an error, late or not."""
        return isinstance(self._last, EngineUnavailableError)

    def begin(self, *, fresh: bool) -> bool:
        """Asks for a list; False where the last one has not come yet: the engine hangs."""
        with self._changed:
            if self._wanted is not None:
                return False
            self._answer = None
            self._wanted = fresh
            try:
                if not self._running:
                    threading.Thread(
                        target=self._read, name=f"list-{self._name}", daemon=True
                    ).start()
                    self._running = True
            except RuntimeError as error:
                self._wanted = None
                self._answer = EngineUnavailableError(
                    f"No thread can be started to ask {self._name}: {error}."
                )
            self._changed.notify_all()
            return True

    def wait(self, deadline: float) -> Answer:
        """The answer by `deadline` (monotonic), or the last one's error, or that it is late."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._answer is not None, max(0.0, deadline - time.monotonic())
            )
            answer = self._answer
            if answer is None:
                answer = self._last
            if answer is None or (self._answer is None and isinstance(answer, Listing)):
                answer = EngineUnavailableError(
                    f"The engine {self._name} has not given its list in time.",
                    "Look whether it hangs.",
                )
            return answer

    def _read(self) -> None:
        """The thread's life: one list at a time, whenever one is wanted."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None or self._closed)
                if self._closed:
                    return
                fresh = bool(self._wanted)
            answer: Answer
            try:
                answer = self._engine.list(fresh=fresh)
            except EngineUnavailableError as error:
                answer = error
            except Exception as error:  # whatever it is, the thread must go on
                log.exception("engine=%s outcome=failed", self._name)
                answer = EngineUnavailableError(
                    f"An error inside the agent ({type(error).__name__}) hides {self._name}.",
                    "The agent's log has it whole.",
                )
            with self._changed:
                self._answer = self._last = answer
                self._wanted = None
                self._changed.notify_all()
