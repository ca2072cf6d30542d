"""The records of processes that ended, and exactly how many of them are gone."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from agent.errors import SourceError
from agent.model.bpf import CommandFigures, CommandKey, ProcessExit
from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf.numbering import Numbering
from agent.sources.bpf.offsets import EXIT_BYTES
from agent.sources.bpf.records import CpuCounters, ExitKind, ExitRecord
from agent.sources.bpf.ring import Ring

_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_MOST_AT_ONCE = 1 << 14
_MOST_NAMES = 4096
_MOST_PEAKS = 15
_LOOK_S = 1.0
_MANY = EXIT_BYTES // records.EXIT.size // 4
MOST_EXITS = 4096
"""Single exits that wait for a tick: the latest ones. All of them are in the sums."""


class Exits:
    """The reader of one ring buffer of exits."""

    def __init__(self, fd: int, size: int) -> None:
        """Maps it. Raises OSError."""
        self._ring: Ring[ExitRecord] = Ring(fd, size, records.EXIT, ExitRecord._make)
        self._numbering = Numbering()

    @property
    def lost(self) -> int:
        """Records that are gone since the start, without those counted since the last read()."""
        return self._numbering.lost

    def read(self, counters: Sequence[CpuCounters]) -> list[ProcessExit]:
        """What has come since. `counters` by CPU, read just before."""
        raw: list[ExitRecord] = []
        while some := self._ring.read(_MOST_AT_ONCE):
            raw += some
            if len(some) < _MOST_AT_ONCE:
                break
        self._numbering.note(
            ((one.cpu, one.sequence) for one in raw), [one.exits for one in counters]
        )
        return _whole(raw)

    @property
    def waiting(self) -> int:
        """About how many records are there to be read."""
        return self._ring.waiting

    def close(self) -> None:
        self._ring.close()


class Buffer(Protocol):
    """A ring buffer that has to be emptied before it is full."""

    def look(self) -> None:
        """Empties it where it fills up. Raises SourceError."""


class Gatherer:
    """Takes exits out of their buffer, at each tick and before it is full in between.

    The programs wake nobody: a thread looks once a second how full it is.
    """

    def __init__(
        self,
        exits: Exits,
        counters: Callable[[], Sequence[CpuCounters]],
        others: Sequence[Buffer] = (),
    ) -> None:
        """`others` are looked at too."""
        self._exits = exits
        self._others = others
        self._counters = counters
        self._commands = Commands()
        self._recent: deque[ProcessExit] = deque(maxlen=MOST_EXITS)
        self._for_tick: deque[ProcessExit] = deque(maxlen=MOST_EXITS)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bpf-exits", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_S):
            if self._exits.waiting > _MANY:
                with self._lock, suppress(SourceError):  # the next tick meets it, and says so
                    self._take(None)
            for buffer in self._others:
                with suppress(SourceError):
                    buffer.look()

    def gather(self, before_ns: int) -> Gathered:
        """All there is now. Names are summed of what ended before `before_ns` (boot clock)."""
        with self._lock:
            counters = self._take(before_ns)
            recent = tuple(self._recent)
            self._recent.clear()
            return Gathered(counters, recent, self._commands.figures(), self._exits.lost)

    def ended(self) -> tuple[ProcessExit, ...]:
        """The latest of what was gathered since the last call, whoever looked in between."""
        with self._lock:
            found = tuple(self._for_tick)
            self._for_tick.clear()
            return found

    def _take(self, before_ns: int | None) -> Sequence[CpuCounters]:
        counters = self._counters()
        exits = self._exits.read(counters)
        self._recent.extend(exits)
        self._for_tick.extend(exits)
        self._commands.add(exits, before_ns)
        return counters

    def forget(self, cgroup_id: int) -> None:
        """A cgroup that is gone."""
        with self._lock:
            self._commands.forget(cgroup_id)

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._exits.close()


class Gathered(NamedTuple):
    """What one gathering gave."""

    counters: Sequence[CpuCounters]
    exits: tuple[ProcessExit, ...]
    short_lived: Mapping[CommandKey, CommandFigures]
    lost: int


class Commands:
    """What ended unseen, summed by cgroup, parent and name. Bounded: the least recent make room.

    What a name that was dropped had is not lost: it is in its cgroup's own sums.
    """

    def __init__(self) -> None:
        self._figures: dict[CommandKey, CommandFigures] = {}
        self._later: list[ProcessExit] = []

    def add(self, exits: Sequence[ProcessExit], before_ns: int | None) -> None:
        """Takes what ended before `before_ns`, all where it is None; the rest waits for a later
        call. (Boot clock: when the sums were read that this is held against.)"""
        due, self._later = [*self._later, *exits], []
        for one in due:
            if before_ns is not None and one.ended_ns > before_ns:
                self._later.append(one)
            elif one.short_lived:
                self._add(one)
        while len(self._figures) > _MOST_NAMES:
            del self._figures[next(iter(self._figures))]

    def _add(self, one: ProcessExit) -> None:
        key = CommandKey(one.cgroup_id, one.parent_comm, one.comm)
        old = self._figures.pop(key, CommandFigures(0, 0, ()))
        higher = tuple(peak for peak in old.peaks if peak[1] > one.max_rss_kb)
        self._figures[key] = CommandFigures(
            old.processes + 1,
            old.cpu_ns + one.charged_ns,
            (*higher[-_MOST_PEAKS:], (one.ended_ns, one.max_rss_kb)),
        )

    def forget(self, cgroup_id: int) -> None:
        """A cgroup that is gone."""
        for key in [key for key in self._figures if key.cgroup_id == cgroup_id]:
            del self._figures[key]

    def figures(self) -> dict[CommandKey, CommandFigures]:
        """A copy, which later calls leave as it is."""
        return dict(self._figures)


def _whole(raw: Sequence[ExitRecord]) -> list[ProcessExit]:
    """One exit a process: CPU that came after its record is added to it, or stands alone."""
    found: dict[ProcessKey, ProcessExit] = {}
    for one in raw:
        key = ProcessKey(one.pid, one.start_ns)
        earlier = found.get(key)
        if earlier is not None:
            whole = one if one.kind == ExitKind.WHOLE else None
            found[key] = (earlier if whole is None else _exit(key, whole))._replace(
                cpu_ns=earlier.cpu_ns + one.cpu_ns,
                charged_ns=earlier.charged_ns + one.charged_ns,
            )
        else:
            found[key] = _exit(key, one)
    return list(found.values())


def _exit(key: ProcessKey, one: ExitRecord) -> ProcessExit:
    return ProcessExit(
        key=key,
        parent=ProcessKey(one.ppid, one.parent_start_ns),
        comm=records.c_text(one.comm),
        parent_comm=records.c_text(one.parent_comm),
        cgroup_id=one.cgroup_id,
        ended_ns=one.ended_ns,
        exit_code=one.exit_code,
        cpu_ns=one.cpu_ns,
        charged_ns=one.charged_ns,
        max_rss_kb=one.max_rss_pages * _KB,
        oom=bool(one.oom),
        short_lived=bool(one.short_lived),
    )
