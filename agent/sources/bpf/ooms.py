"""The records of OOM kills, as the programs left them in their ring buffer.

A mark is no kill yet: the kernel marks tasks that were ending anyway too. What tells them apart,
and whether a limit, the host or somebody at its console was behind it, is the call stack.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence

from agent.model.oom import MemoryLevel, OomCause, OomMark, VictimMemory
from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf.numbering import Numbering
from agent.sources.bpf.offsets import OOM_BYTES
from agent.sources.bpf.records import CpuCounters, OomLevel, OomRecord
from agent.sources.bpf.ring import Ring
from agent.sources.bpf.symbols import Symbols

_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_STACK = struct.Struct(f"={records.OOM_FRAMES}Q")
_UNLIMITED_KB = 1 << 50
"""PAGE_COUNTER_MAX and everything near it."""
_SIGKILL = 9
_MOST = 4096
"""Marks that wait for a tick."""
_MANY = OOM_BYTES // records.OOM.size // 4

KILL, BY_CGROUP, BY_SYSRQ = "__oom_kill_process", "mem_cgroup_out_of_memory", "moom_callback"
CHOOSES = ("out_of_memory", "oom_kill_process", "mark_oom_victim")
"""On every stack of a mark: where none of them is found the stack tells nothing."""


def kernel_symbols() -> Symbols:
    return Symbols((KILL, BY_CGROUP, BY_SYSRQ, *CHOOSES))


class Ooms:
    """The reader of one ring buffer of OOM records. Any thread may call its methods."""

    def __init__(
        self, fd: int, counters: Callable[[], Sequence[CpuCounters]], symbols: Symbols
    ) -> None:
        """Maps it. Raises OSError."""
        self._ring: Ring[OomRecord] = Ring(fd, OOM_BYTES, records.OOM, OomRecord._make)
        self._counters = counters
        self._symbols = symbols
        self._numbering = Numbering()
        self._lock = threading.Lock()
        self._waiting: deque[OomMark] = deque()
        self._dropped = 0

    @property
    def lost(self) -> int:
        """Records that are gone since the start."""
        return self._numbering.lost + self._dropped

    def look(self) -> None:
        """Empties the buffer before it is full. Raises BpfCallError."""
        if self._ring.waiting > _MANY:
            with self._lock:
                self._read()

    def take(self) -> tuple[OomMark, ...]:
        """Who was killed since the last call, in the order of their marks. Raises BpfCallError."""
        with self._lock:
            self._read()
            found = tuple(sorted(self._waiting, key=lambda one: one.marked_ns))
            self._waiting.clear()
            return found

    def _read(self) -> None:
        counters = self._counters()
        raw = self._ring.read()
        self._numbering.note(
            ((one.cpu, one.sequence) for one in raw), [one.ooms for one in counters]
        )
        for one in raw:
            if (mark := mark_of(one, self._symbols)) is None:
                continue
            if len(self._waiting) == _MOST:
                self._dropped += 1
                continue
            self._waiting.append(mark)

    def close(self) -> None:
        self._ring.close()


def mark_of(one: OomRecord, symbols: Symbols) -> OomMark | None:
    """The kill that a record tells of; None where a task was marked that was ending anyway."""
    called = symbols.names(_STACK.unpack(one.stack)[: one.frames])
    levels = tuple(
        _level(OomLevel._make(fields))
        for fields in list(records.OOM_LEVEL.iter_unpack(one.level))[: one.levels]
    )
    if called:
        is_kill, cause = KILL in called, _cause(called)
    else:
        # Without names of functions the signal tells: one that was ending has another one, mostly.
        is_kill = not one.known & records.OOM_KNOWS_VICTIM or one.exit_code == _SIGKILL
        cause = OomCause.UNKNOWN
    if not is_kill:
        return None
    memory = None
    if one.known & records.OOM_KNOWS_MEMORY:
        memory = VictimMemory(
            anon_kb=_kb(one.anon_pages),
            file_kb=_kb(one.file_pages),
            shmem_kb=_kb(one.shmem_pages),
            swap_kb=_kb(one.swap_pages),
        )
    return OomMark(
        key=ProcessKey(one.pid, one.start_ns),
        marked_ns=one.marked_ns,
        comm=records.c_text(one.comm),
        cgroup_id=one.cgroup_id,
        trigger=ProcessKey(one.trigger_pid, one.trigger_start_ns),
        trigger_comm=records.c_text(one.trigger_comm),
        trigger_cgroup_id=one.trigger_cgroup_id,
        trigger_cgroup=records.c_text(one.trigger_cgroup),
        cause=cause,
        levels=levels,
        memory=memory,
        oom_score_adj=one.oom_score_adj if one.known & records.OOM_KNOWS_VICTIM else None,
    )


def _cause(called: Sequence[str]) -> OomCause:
    if BY_SYSRQ in called:
        return OomCause.SYSRQ
    return OomCause.LIMIT if BY_CGROUP in called else OomCause.HOST


def _level(one: OomLevel) -> MemoryLevel:
    return MemoryLevel(
        one.cgroup_id,
        records.c_text(one.name),
        _kb(one.used_pages),
        _limit(one.max_pages),
        _kb(one.memsw_used_pages),
        _limit(one.memsw_max_pages),
        one.oom_events,
    )


def _limit(pages: int) -> int | None:
    limit = pages * _PAGE_KB
    return limit if limit < _UNLIMITED_KB else None


def _kb(pages: int) -> int:
    """Counters by CPU may add up to less than nothing."""
    return max(0, pages) * _PAGE_KB
