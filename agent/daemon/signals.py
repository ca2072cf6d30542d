"""Turns the signals that mean «stop» into a count and a wake-up of whoever waits.

A handler runs between any two instructions of the main thread, so also while that thread holds a
lock: it takes none, and only counts and writes to a pipe. Waiting is poll(2) on the pipe's other
end, which other threads write to as well.
"""

from __future__ import annotations

import os
import select
import signal
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

RELOAD = signal.SIGURG
"""Asks for the rules to be read again. What an agent that knows nothing of it ignores."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DRAIN_BYTES = 4096


class StopRequestedError(Exception):
    """A stop was requested before the first tick."""


class Stopper:
    """Counts signals and wakes who waits. Made in the main thread, which alone receives them."""

    def __init__(self) -> None:
        self.asked = 0
        """How often a stop was requested."""
        self._reload = False
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Not closed before the last thread that could write to it has let go of this object.
        weakref.finalize(self, _close, self._read_fd, self._write_fd)

    @property
    def stopping(self) -> bool:
        return self.asked > 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal: it may take no lock and raise nothing."""
        del number, frame
        self.asked += 1
        self.wake()

    def handle_reload(self, number: int, frame: FrameType | None) -> None:
        """The same for a reload."""
        del number, frame
        self._reload = True
        self.wake()

    def take_reload(self) -> bool:
        """Whether a reload was requested since the last call."""
        # Taken back only where it was there: a signal may come between any two of these lines, and
        # one that comes after the first is served by what the caller reads now.
        if not self._reload:
            return False
        self._reload = False
        return True

    def wake(self) -> None:
        """Ends the wait under way, or else the next one. Any thread; also from a handler."""
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._write_fd, b"\0")

    def fileno(self) -> int:
        """The end of the pipe that is waited on."""
        return self._read_fd

    def wait(self, timeout_s: float, *also: int, urgent: Sequence[int] = ()) -> frozenset[int]:
        """Sleeps until `timeout_s` has passed, a signal or `wake` came, one of `also` is readable,
        or one of `urgent` has something exceptional (POLLPRI). `inf` waits for ever.

        Gives the descriptors that ended it: `fileno()` is the signal or wake.
        """
        poll = select.poll()
        for descriptor in (self._read_fd, *also):
            poll.register(descriptor, select.POLLIN)
        for descriptor in urgent:
            poll.register(descriptor, select.POLLPRI)
        found = poll.poll(None if timeout_s == float("inf") else max(0.0, timeout_s * 1000))
        with suppress(BlockingIOError):
            while len(os.read(self._read_fd, _DRAIN_BYTES)) == _DRAIN_BYTES:
                pass
        return frozenset(descriptor for descriptor, _ in found)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The block runs with our handlers; the caller's come back after it."""
        # The interpreter writes to it at the signal itself. Our handler runs later, between two
        # instructions: a wait that begins in that moment would sleep through the signal.
        wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        before = {number: signal.signal(number, self.handle) for number in _SIGNALS}
        before[RELOAD] = signal.signal(RELOAD, self.handle_reload)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup_before)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
