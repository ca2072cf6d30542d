"""The names that cgroups were made with, kept for as long as their records are.

A container's cgroup may be gone before anybody looks at its directory; BPF saw it made. Only names
that may hold a container's id come here, and what is too long for one is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from agent.model.bpf import CgroupName
from agent.sources.bpf import records
from agent.sources.bpf.numbering import Numbering
from agent.sources.bpf.offsets import MAX_CGROUPS, NAME_BYTES
from agent.sources.bpf.records import CgroupNameRecord, CpuCounters
from agent.sources.bpf.ring import Ring

_MANY = NAME_BYTES // records.CGROUP_NAME.size // 4


class CgroupNames:
    """The reader of one ring buffer of names. Any thread may call its methods."""

    def __init__(self, fd: int, counters: Callable[[], Sequence[CpuCounters]]) -> None:
        """Maps it. Raises OSError."""
        self._ring: Ring[CgroupNameRecord] = Ring(
            fd, NAME_BYTES, records.CGROUP_NAME, CgroupNameRecord._make
        )
        self._counters = counters
        self._numbering = Numbering()
        self._lock = threading.Lock()
        self._known: dict[int, CgroupName] = {}
        """In the order of their making."""
        self._dropped = 0

    @property
    def lost(self) -> int:
        """Names that are gone since the start."""
        return self._numbering.lost + self._dropped

    def look(self) -> None:
        """Empties the buffer before it is full. Raises BpfCallError."""
        if self._ring.waiting > _MANY:
            with self._lock:
                self._read()

    def ids(self) -> frozenset[int]:
        """The cgroups whose names are known."""
        with self._lock:
            return frozenset(self._known)

    def read(self, gone: Collection[int] = ()) -> Mapping[int, CgroupName]:
        """All that are known, by the cgroup's id, in the order of their making; those of `gone`
        are forgotten. Raises BpfCallError."""
        with self._lock:
            self._read()
            for cgroup_id in gone:
                self._known.pop(cgroup_id, None)
            return MappingProxyType(dict(self._known))

    def _read(self) -> None:
        counters = self._counters()
        raw = self._ring.read()
        self._numbering.note(
            ((one.cpu, one.sequence) for one in raw), [one.names for one in counters]
        )
        for one in raw:
            if len(self._known) >= 2 * MAX_CGROUPS:
                self._dropped += 1
                continue
            name = records.c_text(one.name)
            self._known[one.cgroup_id] = CgroupName(name, one.maker_id, one.uid)

    def close(self) -> None:
        self._ring.close()
