"""Looks at the host's memory between two ticks, where a rule has a bound of it.

The loop calls it as often as it wants to be called; a trigger on memory pressure ends the loop's
wait. What a reading means is `policy.host_watch`'s to say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.clock import Clock
from agent.errors import SourceError
from agent.policy.host_watch import HostBounds, HostWatch
from agent.sources.memory_pressure import MemorySampler, PressureTrigger

log = logging.getLogger(__name__)

TRIGGER_SHARE = 0.5
"""A trigger fires at half of a rule's bound: from there on pressure is read each second."""


class MemoryWatch:
    """The host's memory in one run. Called by the loop alone."""

    def __init__(
        self,
        watch: HostWatch,
        sampler: MemorySampler,
        clock: Clock,
        *,
        set_trigger: Callable[[float], PressureTrigger],
        survive: Callable[[], tuple[str, ...]],
        settle: Callable[[], None],
    ) -> None:
        """`survive` is called once a rule has such a bound, and gives what it could not do;
        `settle` while a container is going, and takes up how that ended."""
        self._watch = watch
        self._sampler = sampler
        self._clock = clock
        self._set_trigger = set_trigger
        self._survive = survive
        self._settle = settle
        self._trigger: PressureTrigger | None = None
        self._percent: float | None = None
        self._unprotected: tuple[str, ...] | None = None
        self._no_trigger = ""

    def use(self, bounds: HostBounds) -> None:
        """Goes by these bounds from now on."""
        self._watch.use(bounds)
        if bounds and self._unprotected is None:
            self._unprotected = self._survive()
        if bounds.lowest_percent != self._percent:
            self._percent = bounds.lowest_percent
            self._set()

    def _set(self) -> None:
        self._drop_trigger()
        self._no_trigger = ""
        if self._percent is None:
            return
        try:
            self._trigger = self._set_trigger(self._percent * TRIGGER_SHARE)
        except SourceError as error:
            self._no_trigger = str(error)
            log.warning("pressure=no-trigger %s", error)
            return
        self._watch.has_trigger = True
        log.info("pressure=trigger percent=%g", self._percent * TRIGGER_SHARE)

    @property
    def pause_s(self) -> float:
        """How long until the next look; `inf` where none is wanted."""
        now_ns = self._clock.boot_ns()
        due_ns = self._watch.next_read_ns(now_ns)
        return float("inf") if due_ns is None else max(0.0, (due_ns - now_ns) / 10**9)

    @property
    def urgent(self) -> tuple[int, ...]:
        """What ends a wait by POLLPRI."""
        return (self._trigger.fileno(),) if self._trigger is not None else ()

    def fired(self, ended_by: frozenset[int]) -> None:
        """Some descriptors ended a wait; ours among them says that memory is waited for."""
        if self._trigger is not None and self._trigger.fileno() in ended_by:
            self._watch.alert(self._clock.boot_ns())

    def started(self) -> None:
        """A container has started."""
        self._watch.started(self._clock.boot_ns())

    def look(self) -> bool:
        """Takes a reading where one is due, and gives whether a pass is."""
        if not self._watch.bounds:
            return False
        now_ns = self._clock.boot_ns()
        if self._watch.under_way:
            self._settle()
        due_ns = self._watch.next_read_ns(now_ns)
        if due_ns is not None and now_ns >= due_ns:
            pressure = self._watch.wants_pressure(now_ns)
            self._watch.seen(self._sampler.read(pressure=pressure))
        return self._watch.is_due(self._clock.boot_ns())

    def is_pressing(self) -> bool:
        """The same for who waits inside a pass: nothing is taken up."""
        if not self._watch.bounds or self._watch.under_way:
            return False
        return self.look()

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that does not work."""
        if not self._watch.bounds:
            return []
        found = [f"before-oom: {one}." for one in self._unprotected or ()]
        if self._no_trigger:
            found.append(f"pressure: {self._no_trigger}")
        return found

    def close(self) -> None:
        self._drop_trigger()
        self._sampler.close()

    def _drop_trigger(self) -> None:
        trigger, self._trigger = self._trigger, None
        self._watch.has_trigger = False
        if trigger is not None:
            trigger.close()
