"""When what happens: a tick at once, then one each interval, and a pass where the limit is passed.

It waits on the stopper's pipe, so that a signal or an event of the engine ends any wait, and gives
the watchdog a sign of life however long the interval is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.clock import Clock
from agent.daemon.events import StartsSeen
from agent.daemon.sdnotify import Notifier
from agent.daemon.signals import Stopper
from agent.errors import AgentError

log = logging.getLogger(__name__)

PASS_PAUSE_S = 0.5
"""Container starts come in bursts: one look at the limit serves all of a burst."""

NEWS_S = 5.0
"""How long what changed between two ticks may be missing from `agent status`."""


class Scheduler:
    """The loop of one run. The work itself is handed in."""

    def __init__(
        self,
        *,
        interval_s: float,
        clock: Clock,
        stopper: Stopper,
        notifier: Notifier,
        starts: StartsSeen,
        tick: Callable[[], None],
        hold_limit: Callable[[], None],
        look: Callable[[], None],
        after_first: Callable[[], None] = lambda: None,
    ) -> None:
        """`look` is called while it waits: a few milliseconds, every few seconds. `tick` and
        `hold_limit` may raise AgentError, which costs that one call."""
        self._interval_ns = int(interval_s * 10**9)
        self._clock = clock
        self._stopper = stopper
        self._notifier = notifier
        self._starts = starts
        self._tick = tick
        self._hold_limit = hold_limit
        self._look = look
        self._after_first = after_first

    def run(self, *, once: bool = False) -> None:
        """Until a signal, or for one tick. A late tick is skipped, never made up for."""
        next_ns = self._clock.boot_ns()
        is_first = True
        while not self._stopper.stopping:
            self._notifier.alive()
            _logged("no-tick", self._tick)
            if once:
                return
            if is_first:
                self._after_first()
                is_first = False
            late_ns = self._clock.boot_ns() - next_ns
            next_ns += self._interval_ns * max(1, -(-late_ns // self._interval_ns))
            self._wait_until(next_ns)

    def _wait_until(self, deadline_ns: int) -> None:
        while not self._stopper.stopping:
            left_s = (deadline_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0:
                return
            self._notifier.alive()
            self._look()
            if self._starts.take():
                _logged("no-pass", self._hold_limit)
                # No second pass within the pause: a burst of starts is looked at once.
                self._pause(min(PASS_PAUSE_S, left_s))
            else:
                self._stopper.wait(min(left_s, self._notifier.pause_s, NEWS_S))

    def _pause(self, seconds: float) -> None:
        deadline_ns = self._clock.boot_ns() + int(seconds * 10**9)
        while not self._stopper.stopping:
            left_s = (deadline_ns - self._clock.boot_ns()) / 10**9
            if left_s <= 0:
                return
            self._stopper.wait(left_s)


def _logged(outcome: str, work: Callable[[], None]) -> None:
    try:
        work()
    except AgentError as error:
        log.warning("outcome=%s %s", outcome, error)
