"""When what happens: a tick at once, then one each interval, and a pass where a limit is passed.

It waits on the stopper's pipe, so that a signal or an event of the engine ends any wait, gives the
watchdog a sign of life however long the interval is, and looks at the host's memory in between
where a rule wants that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.clock import Clock
from agent.daemon.events import StartsSeen
from agent.daemon.memory_watch import MemoryWatch
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
        memory: MemoryWatch,
        relieve: Callable[[], None],
        look: Callable[[], None],
        after_first: Callable[[], None] = lambda: None,
    ) -> None:
        """`look` is called while it waits: a few milliseconds, every few seconds. `relieve` is
        called where the memory's watch says so. Any of the four may raise AgentError, or OSError
        where no descriptor or memory is left, which costs that one call."""
        self._interval_ns = int(interval_s * 10**9)
        self._clock = clock
        self._stopper = stopper
        self._notifier = notifier
        self._starts = starts
        self._tick = tick
        self._hold_limit = hold_limit
        self._memory = memory
        self._relieve = relieve
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
        news_ns = self._clock.boot_ns()
        while not self._stopper.stopping:
            now_ns = self._clock.boot_ns()
            if now_ns >= deadline_ns:
                return
            if now_ns >= news_ns:
                self._notifier.alive()
                _logged("not-looked", self._look)
                news_ns = now_ns + int(min(self._notifier.pause_s, NEWS_S) * 10**9)
            if self._starts.take():
                self._memory.started()
                _logged("no-pass", self._hold_limit)
                # No second pass within the pause: a burst of starts is looked at once.
                pause_ns = self._clock.boot_ns() + int(PASS_PAUSE_S * 10**9)
                self._rest_until(min(pause_ns, deadline_ns))
                news_ns = self._clock.boot_ns()
            elif self._rest(min(deadline_ns, news_ns)):
                news_ns = self._clock.boot_ns()

    def _rest_until(self, deadline_ns: int) -> None:
        while not self._stopper.stopping and self._clock.boot_ns() < deadline_ns:
            self._rest(deadline_ns)

    def _rest(self, deadline_ns: int) -> bool:
        """Waits at most so long, and gives whether somebody woke it. A bound of the host's memory
        that was passed, while it waited or before, gets its pass at once."""
        if self._memory.look():
            _logged("no-pass", self._relieve)
            return False
        left_s = max(0.0, (deadline_ns - self._clock.boot_ns()) / 10**9)
        ended_by = self._stopper.wait(min(left_s, self._memory.pause_s), urgent=self._memory.urgent)
        self._memory.fired(ended_by)
        return self._stopper.fileno() in ended_by


def _logged(outcome: str, work: Callable[[], None]) -> None:
    try:
        work()
    except (AgentError, OSError) as error:
        log.warning("outcome=%s %s", outcome, error)
