"""Turns the signals that mean «stop» into one event, and lets them cut short what takes long."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequestedError(BaseException):
    """A signal came while something long ran that may be cut short."""


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
