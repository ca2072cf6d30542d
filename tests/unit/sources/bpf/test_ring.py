"""The trace's ring buffer, laid out by hand as kernel/bpf/ringbuf.c does, in a file of memory."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest

from agent.sources.bpf import records
from agent.sources.bpf.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE = 4 * PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30
EACH = (records.EVENT.size + 8 + 7) & ~7


class Writer:
    """The kernel's side: what it writes stands in both halves, as its double mapping has it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.memory = mmap.mmap(self.fd, 2 * PAGE + 2 * SIZE)
        self.end = 0

    def write(self, pid: int, flags: int = 0) -> int:
        raw = records.EVENT.pack(pid, 0, 0, 0, 1, pid, 1, 0, 0, 0, b"sh", b"/bin/sh")
        record = struct.pack("=II", records.EVENT.size | flags, 0) + raw
        at = self.end % SIZE
        for half in (0, SIZE):
            for place, byte in enumerate(record):
                self.memory[2 * PAGE + half + (at + place) % SIZE] = byte
        self.end += EACH
        struct.pack_into("=Q", self.memory, PAGE, self.end)
        return self.end - EACH

    def write_long(self, text: bytes) -> None:
        raw = records.LONG_EVENT.pack(1, 0, 0, 0, 2, 7, 1, 0, 0, 0, b"sh", text)
        record = struct.pack("=II", len(raw), 0) + raw
        at = self.end % SIZE
        for half in (0, SIZE):
            for place, byte in enumerate(record):
                self.memory[2 * PAGE + half + (at + place) % SIZE] = byte
        self.end += (len(record) + 7) & ~7
        struct.pack_into("=Q", self.memory, PAGE, self.end)

    def commit(self, at: int) -> None:
        for half in (0, SIZE):
            struct.pack_into("=I", self.memory, 2 * PAGE + half + at % SIZE, records.EVENT.size)

    @property
    def consumed(self) -> int:
        return int(struct.unpack_from("=Q", self.memory)[0])


@pytest.fixture
def writer() -> Iterator[Writer]:
    one = Writer()
    yield one
    one.memory.close()
    os.close(one.fd)


@pytest.fixture
def ring(writer: Writer) -> Iterator[Ring[records.EventRecord]]:
    one = Ring(writer.fd, SIZE, records.EVENT, records.EventRecord._make)
    yield one
    one.close()


def pids(ring: Ring[records.EventRecord]) -> list[int]:
    return [event.pid for event in ring.read()]


def test_events_come_in_the_order_of_their_places_and_once(
    writer: Writer, ring: Ring[records.EventRecord]
) -> None:
    for pid in (3, 1, 2):
        writer.write(pid)
    assert pids(ring) == [3, 1, 2]
    assert pids(ring) == []
    assert writer.consumed == writer.end


def test_what_is_still_being_written_holds_back_what_follows(
    writer: Writer, ring: Ring[records.EventRecord]
) -> None:
    writer.write(1)
    at = writer.write(2, BUSY)
    writer.write(3)
    assert pids(ring) == [1]
    writer.commit(at)
    assert pids(ring) == [2, 3]


def test_a_long_text_comes_whole_between_short_ones(
    writer: Writer, ring: Ring[records.EventRecord]
) -> None:
    path = b"/" + b"/".join(b"d" * 200 for _ in range(20))
    writer.write(1)
    writer.write_long(path)
    writer.write(3)
    found = ring.read()
    assert [one.pid for one in found] == [1, 7, 3]
    assert records.c_text(found[1].text) == path.decode()
    assert records.c_text(found[2].text) == "/bin/sh"


def test_a_record_that_was_given_up_is_passed_over(
    writer: Writer, ring: Ring[records.EventRecord]
) -> None:
    writer.write(1, DISCARDED)
    writer.write(2)
    assert pids(ring) == [2]


def test_a_record_across_the_buffers_end_is_whole(
    writer: Writer, ring: Ring[records.EventRecord]
) -> None:
    written, read = [], []
    for pid in range(1, 3 * SIZE // EACH):
        writer.write(pid)
        written.append(pid)
        read += pids(ring)
    assert read == written


def test_a_round_takes_no_more_than_it_is_told(
    writer: Writer, ring: Ring[records.EventRecord]
) -> None:
    for pid in range(10):
        writer.write(pid)
    assert len(ring.read(most=4)) == 4
    assert pids(ring) == [4, 5, 6, 7, 8, 9]
