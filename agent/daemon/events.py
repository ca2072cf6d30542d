"""What the engine's events mean for the loop: look at the limit, or the engine had been away."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agent.daemon.signals import Stopper
from agent.sources.engine.lives import EngineLives


class StartsSeen:
    """Whether containers have started since it was last asked. Any thread may note one.

    Not for handlers of signals: what they wake is the stopper's pipe.
    """

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper
        self._seen = threading.Event()

    def note(self) -> None:
        self._seen.set()
        self._stopper.wake()

    def take(self) -> bool:
        """Whether one was noted since the last call."""
        if not self._seen.is_set():
            return False
        self._seen.clear()
        return True


def engine_callback(
    starts: StartsSeen, lives: EngineLives, interrupt: Callable[[], None]
) -> Callable[[str, str], None]:
    """The event thread's callback. `interrupt` is called where events may have been missed."""

    def callback(kind: str, container_id: str) -> None:
        lives.note(kind, container_id)
        if kind == "resync":
            interrupt()
        elif kind in ("start", "unread"):  # one that cannot be read may be a start
            starts.note()

    return callback
