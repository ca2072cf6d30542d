"""Reading a BPF ring buffer from its memory, without a callback for each record.

The layout is the kernel's (kernel/bpf/ringbuf.c): one page with the reader's position, one with the
writer's, then the data, mapped twice so that no record is ever cut. A record is preceded by its
length, whose two highest bits say that it is still being written, or was given up.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from agent.sources.bpf import records
from agent.sources.bpf.barrier import read_barrier
from agent.sources.bpf.mapped import PAGE, mapped

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")

R = TypeVar("R")


class Ring(Generic[R]):
    """The ring buffer behind a descriptor. One reader at a time."""

    def __init__(
        self, fd: int, size: int, layout: struct.Struct, make: Callable[[Iterable[Any]], R]
    ) -> None:
        """Of its `size` bytes of records laid out so, maps the two positions. Raises OSError."""
        self._layout = layout
        self._make = make
        self._size = size
        self._fd = os.dup(fd)
        try:
            self._mine = mmap.mmap(fd, PAGE)
            try:
                self._theirs = mmap.mmap(fd, PAGE, prot=mmap.PROT_READ, offset=PAGE)
            except BaseException:
                self._mine.close()
                raise
        except BaseException:
            os.close(self._fd)
            raise

    def read(self, most: int = 1 << 14) -> list[R]:
        """The records that are whole, in the order in which they took their places; `most` of them.

        Where one is still being written those behind it wait with it. Raises BpfCallError.
        """
        position = _U64.unpack_from(self._mine)[0]
        end = _U64.unpack_from(self._theirs)[0]
        if position >= end:
            return []
        read_barrier()
        begin = position % self._size
        with mapped(self._fd, 2 * PAGE + begin, end - position) as (data, at):
            found, taken = self._take(data, at, at + end - position, most)
        read_barrier()
        _U64.pack_into(self._mine, 0, position + taken)
        return found

    def _take(self, data: mmap.mmap, begin: int, end: int, most: int) -> tuple[list[R], int]:
        """The records from `begin` on, and how many bytes they are."""
        unpack, length_of = self._layout.unpack_from, _U32.unpack_from
        unpack_long, long_size = records.LONG_EVENT.unpack_from, records.LONG_EVENT.size
        found: list[R] = []
        make = self._make
        at = begin
        while at < end and len(found) < most:
            length = length_of(data, at)[0]
            if length & _BUSY:
                break
            read_barrier()
            if length == long_size:
                found.append(make(unpack_long(data, at + _HEADER)))
            elif not length & _DISCARDED:
                found.append(make(unpack(data, at + _HEADER)))
            length &= ~_DISCARDED
            at += (length + _HEADER + 7) & ~7
        return found, at - begin

    @property
    def waiting(self) -> int:
        """About how many records are there to be read."""
        filled: int = _U64.unpack_from(self._theirs)[0] - _U64.unpack_from(self._mine)[0]
        return filled // ((self._layout.size + _HEADER + 7) & ~7)

    def close(self) -> None:
        self._mine.close()
        self._theirs.close()
        os.close(self._fd)
