"""The witness's records of processes, read from the memory that the programs write them to.

A reading looks at what changed since the last one: every block of slots has a count of its
changes. The programs change a record first and the count afterwards, with an atomic that orders;
the reader takes the counts first, then the records, and takes those again whose count moved
meanwhile.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator

from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf.barrier import read_barrier
from agent.sources.bpf.mapped import mapped, pages
from agent.sources.bpf.offsets import SLOT_BLOCK, SLOTS
from agent.sources.bpf.syscall import Map

_TRIES = 8
_NEAR = 24
"""Blocks so far apart are mapped together: one mapping costs as much as 30 blocks more in it."""
_RELEASED = 8 * records.ProcessRecord._fields.index("released")
_WORD = struct.Struct("=Q")


class ProcessTable:
    """The current records; its dictionaries change with each read()."""

    def __init__(self, slots: Map, generations: Map, spilled: Map) -> None:
        """Maps the counts. Raises OSError."""
        self._size = slots.value_size
        self._block_bytes = SLOT_BLOCK * self._size
        self._spilled = spilled
        blocks = SLOTS // SLOT_BLOCK
        self._counts = struct.Struct(f"={blocks}Q")
        self._generations = mmap.mmap(generations.fd, pages(self._counts.size), prot=mmap.PROT_READ)
        self._slots_fd = os.dup(slots.fd)
        self._seen: tuple[int, ...] = (0,) * blocks
        self._keys: dict[int, list[ProcessKey]] = {}
        self._spilling: set[int] = set()
        """Blocks with a place that some record found taken."""
        self.cgroup_ids: dict[ProcessKey, int] = {}
        """By history."""
        self.pointer_ids: dict[ProcessKey, int] = {}
        """What the task's own pointer said, only where that differed."""
        self.ended: dict[ProcessKey, int] = {}
        """CPU of those whose account is settled and that are not freed."""
        self.moved_cpu_ns: dict[ProcessKey, int] = {}
        self.released: set[ProcessKey] = set()

    def read(self) -> bool:
        """Brings all of it up to date; whether anything changed. Raises BpfCallError."""
        found = False
        for _ in range(_TRIES):
            due = self._changed()
            if not due:
                break
            found = True
            for block, raw in self._blocks(due):
                self._take(block, records.PROCESS_PLACE.iter_unpack(raw))
            read_barrier()
        return self._read_spilled() or found

    def _changed(self) -> set[int]:
        counts = self._counts.unpack_from(self._generations)
        read_barrier()
        seen, self._seen = self._seen, counts
        if counts == seen:
            return set()
        return {
            block for block, (now, then) in enumerate(zip(counts, seen, strict=True)) if now != then
        }

    def _blocks(self, wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Each block's memory as it is now, those close together taken at once."""
        size = self._block_bytes
        for run in _runs(sorted(wanted)):
            first, count = run[0], run[-1] + 1 - run[0]
            with mapped(self._slots_fd, first * size, count * size) as (memory, at):
                raw = memory[at : at + count * size]
            for block in run:
                yield block, raw[(block - first) * size : (block + 1 - first) * size]

    def _take(self, block: int, found: Iterator[tuple[int, ...]]) -> None:
        """Replaces what was known of a block; -1 stands for the records that have no slot."""
        for key in self._keys.pop(block, ()):
            del self.cgroup_ids[key]
            self.pointer_ids.pop(key, None)
            self.ended.pop(key, None)
            self.moved_cpu_ns.pop(key, None)
            self.released.discard(key)
        keys: list[ProcessKey] = []
        self._spilling.discard(block)
        for (
            start_ns,
            cgroup_id,
            pointer_id,
            base_ns,
            exit_ns,
            ended,
            released,
            pid,
            spills,
        ) in found:
            if spills:
                self._spilling.add(block)
            if not start_ns or not cgroup_id:
                continue
            key = ProcessKey(pid, start_ns)
            keys.append(key)
            self.cgroup_ids[key] = cgroup_id
            if pointer_id:
                self.pointer_ids[key] = pointer_id
            if base_ns:
                self.moved_cpu_ns[key] = base_ns
            if ended:
                self.ended[key] = exit_ns
            if released:
                self.released.add(key)
        if keys:
            self._keys[block] = keys

    def _read_spilled(self) -> bool:
        if not self._spilling and -1 not in self._keys:
            return False
        # A look at an empty hash is a walk over all of its buckets.
        chunks = [values for _, values in self._spilled.chunks()] if self._spilling else []
        self._take(-1, records.PROCESS_PLACE.iter_unpack(b"".join(chunks)))
        return True

    def release(self, key: ProcessKey) -> None:
        """Lets another process have the place of one that has ended and will not be freed."""
        if key in self._keys.get(-1, ()):
            self._spilled.delete(records.PROCESS_KEY.pack(key.pid, 0, key.start_ns))
            return
        place = mapped(self._slots_fd, key.pid % SLOTS * self._size, self._size, writable=True)
        with place as (memory, at):
            record = records.ProcessRecord(*records.PROCESS_RECORD.unpack_from(memory, at))
            if (record.pid, record.start_ns) == key and record.ended:
                _WORD.pack_into(memory, at + _RELEASED, 1)
                self.released.add(key)

    def whole(self) -> Iterator[records.ProcessRecord]:
        """Every record with all of its fields, as it is now."""
        read_barrier()
        for _, raw in self._blocks(block for block in self._keys if block >= 0):
            for fields in records.PROCESS_RECORD.iter_unpack(raw):
                if fields[0] and fields[1]:
                    yield records.ProcessRecord(*fields)
        for _, values in self._spilled.chunks():
            for fields in records.PROCESS_RECORD.iter_unpack(values):
                yield records.ProcessRecord(*fields)

    def close(self) -> None:
        os.close(self._slots_fd)
        self._generations.close()


def _runs(blocks: Iterable[int]) -> Iterator[list[int]]:
    """Those that are worth one mapping, of blocks in order."""
    run: list[int] = []
    for block in blocks:
        if run and block - run[-1] > _NEAR:
            yield run
            run = []
        run.append(block)
    if run:
        yield run
