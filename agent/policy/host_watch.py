"""When the host's memory calls for a pass at once, and whether its figures are fresh. Pure.

A bound that is passed calls once, at once; while it stays passed the passes come each second, then
less often where they find nothing to do. After a container went, nothing of before counts: the next
one goes on figures that were read when the first was gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.model.host import MemoryReading

MS_NS = 10**6
SECOND_NS = 10**9

AVAILABLE_PERIOD_NS = 250 * MS_NS
"""From one reading of `MemAvailable` to the next; it costs some ten microseconds."""
PERIOD_NS = SECOND_NS
"""From one sample of everything to the next, while a bound is near."""
LONGEST_PAUSE_NS = 8 * SECOND_NS
"""From one pass that finds nothing to do to the next, while a bound stays passed."""
BACK = 1.05
"""A bound counts as passed until there is so much more available (so much less pressure)."""
NEAR = 2.0
"""A bound is near from so many times as much available on, and from as little pressure."""
FORGOTTEN_NS = 30 * SECOND_NS
"""After so long `avg10` has nothing left of what was before (5 %)."""
SETTLING_NS = 2 * SECOND_NS
"""The kernel works its pressure figures out so often: a younger one tells of before."""
SHORTEST_NS = 500 * MS_NS
"""A share of less time than this says little."""
KNOWN_NS = 1500 * MS_NS
"""Pressure tells of the time since the sample before, where that is no longer ago."""
ALERT_NS = 15 * SECOND_NS
"""How long after a trigger the pressure counts as near."""
KEPT_SAMPLES = 120
"""So many of the last samples a pass rests on: two minutes."""
GOING = "a container is going for it; the host is measured again when it is gone"
STALE = "a container has just gone; the host is measured again before the next"


@dataclass(frozen=True, slots=True)
class PressureBound:
    """One that a rule has: more than so much pressure for so long."""

    percent: float
    lasting_ns: int


@dataclass(frozen=True, slots=True)
class HostBounds:
    """Every bound of the host's memory that a rule has."""

    available_kb: frozenset[int] = frozenset()
    pressure: frozenset[PressureBound] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.available_kb or self.pressure)

    @property
    def lowest_percent(self) -> float | None:
        return min((one.percent for one in self.pressure), default=None)


@dataclass(frozen=True, slots=True)
class HostNow:
    """What a decision may go by of the host at this moment."""

    pressure: float | None
    missing: str = ""
    """Why there is nothing to go by, "" where there is. Then neither figure counts."""
    since_ns: Mapping[float, int] | None = None
    """By bound of pressure: since when it has been above it without a break, samples between
    ticks included."""
    not_before_ns: int = 0
    """What was noted of pressure before this is about another host: one had not gone yet."""


class HostWatch:
    """The host's memory from reading to reading."""

    def __init__(self, bounds: HostBounds = HostBounds()) -> None:
        self.bounds = bounds
        self.has_trigger = False
        """Whether somebody wakes the loop when pressure rises; without, it is read each second."""
        self.under_way = False
        """Whether a container is going for the host's sake at this moment."""
        self._last: MemoryReading | None = None
        self._last_pressure: MemoryReading | None = None
        self._samples: deque[MemoryReading] = deque(maxlen=KEPT_SAMPLES)
        self._above_ns: dict[float, int] = {}
        self._passed: frozenset[int | PressureBound] = frozenset()
        self._called: frozenset[int | PressureBound] = frozenset()
        """Those bounds that a pass has looked at since they were passed."""
        self._next_pass_ns = 0
        self._pause_ns = PERIOD_NS
        self._alert_until_ns = 0
        self._ended_ns: int | None = None
        self._base: MemoryReading | None = None
        """The first reading of pressure that has nothing of before the last one went in it."""

    def use(self, bounds: HostBounds) -> None:
        """Other rules hold from now on."""
        self.bounds = bounds
        self._called &= frozenset(bounds.available_kb) | bounds.pressure
        self._passed &= frozenset(bounds.available_kb) | bounds.pressure

    @property
    def samples(self) -> Sequence[MemoryReading]:
        """Those of each second while a bound was near, the oldest first."""
        return tuple(self._samples)

    @property
    def pressure(self) -> float | None:
        """The last that was read."""
        return self._last_pressure.pressure if self._last_pressure else None

    # --- when to read -----------------------------------------------------------------------

    def next_read_ns(self, now_ns: int) -> int | None:
        """When the next reading is due, None where none is."""
        if not self.bounds:
            return None
        if self._last is None:
            return now_ns
        if self.bounds.available_kb:
            return self._last.read_ns + AVAILABLE_PERIOD_NS
        if not self.has_trigger or self.is_near(now_ns):
            return self._last.read_ns + PERIOD_NS
        return None

    def wants_pressure(self, now_ns: int) -> bool:
        """Whether the next reading is to have the pressure too."""
        if not self.bounds.pressure:
            return False
        last = self._last_pressure
        if last is None:
            return True
        is_due = now_ns - last.read_ns >= PERIOD_NS
        return is_due and (not self.has_trigger or self.is_near(now_ns))

    def is_near(self, now_ns: int) -> bool:
        """Whether a bound is near, or one has just gone: then everything is sampled each second."""
        last = self._last
        if now_ns < self._alert_until_ns or self._is_settling(now_ns):
            return True
        if last is None:
            return False
        available = self.bounds.available_kb
        if available and last.available_kb is not None:
            return last.available_kb < NEAR * max(available)
        lowest = self.bounds.lowest_percent
        return lowest is not None and last.pressure is not None and last.pressure > lowest / NEAR

    def alert(self, now_ns: int) -> None:
        """A trigger fired: memory is being waited for."""
        self._alert_until_ns = now_ns + ALERT_NS

    # --- what was read ----------------------------------------------------------------------

    def seen(self, reading: MemoryReading) -> None:
        """Takes a reading."""
        reading = self._felt(reading)
        before, self._last = self._last, reading
        if reading.pressure is not None:
            self._last_pressure = reading
            self._take_base(reading)
            self._note_pressure(reading)
        elif before is not None:
            # Between two readings of pressure the last one stands.
            self._last = replace(reading, pressure=before.pressure, stalled_us=before.stalled_us)
        self._passed = frozenset(self._passed_by(self._last))
        self._called &= self._passed
        if not self._passed:
            self._pause_ns = PERIOD_NS
        self._keep(self._last)

    def _passed_by(self, reading: MemoryReading) -> Iterable[int | PressureBound]:
        for kb in self.bounds.available_kb:
            limit = kb * BACK if kb in self._passed else kb
            if reading.available_kb is not None and reading.available_kb < limit:
                yield kb
        for bound in self.bounds.pressure:
            since_ns = self._above_ns.get(bound.percent)
            if since_ns is not None and reading.read_ns - since_ns >= bound.lasting_ns:
                yield bound

    def _felt(self, reading: MemoryReading) -> MemoryReading:
        """The same with the share of time really lost since the reading before, where that is more.

        `avg10` follows too slowly: memory that goes at 100 MB a second fills a gigabyte of swap
        in five seconds, half of each lost, and `avg10` does not come to 20 % meanwhile.
        """
        last = self._last_pressure
        if reading.pressure is None or reading.stalled_us is None:
            return reading
        if last is None or last.stalled_us is None:
            return reading
        passed_us = (reading.read_ns - last.read_ns) // 1000
        if not SHORTEST_NS // 1000 <= passed_us <= SETTLING_NS // 1000:
            return reading
        share = min(100.0, 100 * max(0, reading.stalled_us - last.stalled_us) / passed_us)
        return replace(reading, pressure=max(reading.pressure, share))

    def _known_since_ns(self, reading: MemoryReading) -> int:
        """From when on a pressure counts: it tells of the time since the sample before, where that
        is not long ago. What is kept alone counts, so that history gives the same moment."""
        last_ns = self._samples[-1].read_ns if self._samples else 0
        is_young = reading.read_ns - last_ns <= KNOWN_NS
        ended_ns = self._ended_ns or 0
        return last_ns if is_young and last_ns >= ended_ns else reading.read_ns

    def _note_pressure(self, reading: MemoryReading) -> None:
        believed = self._believed(reading)
        for percent in {one.percent for one in self.bounds.pressure}:
            if believed is not None and believed > percent:
                self._above_ns.setdefault(percent, self._known_since_ns(reading))
            else:
                self._above_ns.pop(percent, None)

    def _keep(self, reading: MemoryReading) -> None:
        last = self._samples[-1].read_ns if self._samples else None
        is_due = last is None or reading.read_ns - last >= PERIOD_NS
        if is_due and (self._passed or self.is_near(reading.read_ns)):
            self._samples.append(reading)

    # --- passes -----------------------------------------------------------------------------

    def is_due(self, now_ns: int) -> bool:
        """Whether a pass is due: for a bound that was just passed at once, else after its pause."""
        if not self._passed or self.under_way:
            return False
        return bool(self._passed - self._called) or now_ns >= self._next_pass_ns

    def looked(self, now_ns: int, *, acted: bool) -> None:
        """A pass has looked at all; `acted`: it found something to do."""
        self._called = self._passed
        self._next_pass_ns = now_ns + self._pause_ns
        self._pause_ns = PERIOD_NS if acted else min(2 * self._pause_ns, LONGEST_PAUSE_NS)

    def started(self, now_ns: int) -> None:
        """A container has started: the next pass may find what the last did not."""
        self._pause_ns = PERIOD_NS
        self._next_pass_ns = min(self._next_pass_ns, now_ns + PERIOD_NS)

    def gone(self, now_ns: int) -> None:
        """A container that went for the host's sake is gone: nothing of before counts any more."""
        self._ended_ns = now_ns
        self._base = None
        self._above_ns.clear()
        self._pause_ns = PERIOD_NS
        self._next_pass_ns = now_ns
        self._passed = self._called = frozenset()

    def now(self, read_ns: int, pressure: float | None) -> HostNow:
        """What a decision may go by, on figures that were read at `read_ns`."""
        if self.under_way:
            return HostNow(None, GOING)
        if self._ended_ns is not None and read_ns <= self._ended_ns:
            return HostNow(None, STALE)
        found = self._decided_by(read_ns, pressure)
        return HostNow(found, "", dict(self._above_ns), self._ended_ns or 0)

    def _is_settling(self, now_ns: int) -> bool:
        return self._ended_ns is not None and now_ns - self._ended_ns < FORGOTTEN_NS

    def _take_base(self, reading: MemoryReading) -> None:
        if self._ended_ns is None or reading.stalled_us is None:
            return
        if self._base is None and reading.read_ns - self._ended_ns >= SETTLING_NS:
            self._base = reading

    def _believed(self, reading: MemoryReading) -> float | None:
        """`avg10`, and for a while after one went no more than was really lost since then."""
        if not self._is_settling(reading.read_ns):
            return reading.pressure
        base = self._base
        if base is None or base.stalled_us is None or reading.stalled_us is None:
            return None
        passed_us = (reading.read_ns - base.read_ns) // 1000
        if passed_us < SETTLING_NS // 1000 or reading.pressure is None:
            return None
        share = 100 * max(0, reading.stalled_us - base.stalled_us) / passed_us
        return min(reading.pressure, share)

    def _decided_by(self, read_ns: int, pressure: float | None) -> float | None:
        """The pressure to go by: what a tick read or, where that is young and more, what the watch
        read last; by the watch alone where one has just gone."""
        last = self._last_pressure
        if self._is_settling(read_ns):
            return None if last is None else self._believed(last)
        if last is None or last.pressure is None or read_ns - last.read_ns > 2 * PERIOD_NS:
            return pressure
        return max(last.pressure, pressure or 0.0)
