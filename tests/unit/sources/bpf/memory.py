"""The witness's maps without a kernel: memory files and dictionaries, written as programs do."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf.offsets import EXIT_BYTES, NAME_BYTES, OOM_BYTES, SLOT_BLOCK, SLOTS
from agent.sources.bpf.programs import WITNESS

if TYPE_CHECKING:
    from collections.abc import Iterator


PAGE = os.sysconf("SC_PAGE_SIZE")
_SIZE = records.PROCESS_RECORD.size


@dataclass
class FakeMap:
    """A hash of bytes with the reader's interface."""

    content: dict[bytes, bytes] = field(default_factory=dict)
    fd: int = -1
    key_size: int = 4
    value_size: int = 8

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        if self.content:
            yield b"".join(self.content), b"".join(self.content.values())

    def update(self, key: bytes, value: bytes) -> None:
        self.content[key] = value

    def delete(self, key: bytes) -> bool:
        return self.content.pop(key, None) is not None


class Memory:
    """All maps of the witness."""

    def __init__(self) -> None:
        sizes = WITNESS.maps
        self.maps: dict[str, Any] = {
            name: FakeMap(key_size=key, value_size=value) for name, (key, value) in sizes.items()
        }
        self.slots = self._shared("slots", SLOTS * _SIZE)
        self.generations = self._shared("generations", SLOTS // SLOT_BLOCK * 8)
        self.ring = self._shared("exits", 2 * PAGE + 2 * EXIT_BYTES)
        self.ooms = self._shared("ooms", 2 * PAGE + 2 * OOM_BYTES)
        self.names = self._shared("names", 2 * PAGE + 2 * NAME_BYTES)
        self.counters: list[records.CpuCounters] = [records.CpuCounters(), records.CpuCounters()]
        self._end = 0

    def _shared(self, name: str, size: int) -> mmap.mmap:
        whole = -(-size // PAGE) * PAGE
        fd = os.memfd_create(name)
        os.ftruncate(fd, whole)
        self.maps[name].fd = fd
        return mmap.mmap(fd, whole)

    def put(self, key: ProcessKey, cgroup: int, *, counted: bool = True, **fields: int) -> None:
        """A process's record in its slot."""
        self._write(key.pid, record(key, cgroup, **fields), counted=counted)

    def free(self, key: ProcessKey) -> None:
        self._write(key.pid, bytes(_SIZE), counted=True)

    def _write(self, pid: int, raw: bytes, *, counted: bool) -> None:
        place = pid % SLOTS
        self.slots[place * _SIZE : (place + 1) * _SIZE] = raw
        if counted:
            at = place // SLOT_BLOCK * 8
            (now,) = struct.unpack_from("=Q", self.generations, at)
            struct.pack_into("=Q", self.generations, at, now + 1)

    def at(self, pid: int) -> records.ProcessRecord:
        fields = records.PROCESS_RECORD.unpack_from(self.slots, pid % SLOTS * _SIZE)
        return records.ProcessRecord(*fields)

    def spill(self, key: ProcessKey, cgroup: int) -> None:
        """A record whose place another one has."""
        here = self.at(key.pid)
        first = ProcessKey(here.pid, here.start_ns)
        self.put(first, here.cgroup_id, spills=here.spills + 1)
        name = records.PROCESS_KEY.pack(key.pid, 0, key.start_ns)
        self.maps["spilled"].content[name] = record(key, cgroup)

    def exit(self, one: records.ExitRecord) -> None:
        """An exit record in the ring buffer, whole."""
        raw = struct.pack("=II", records.EXIT.size, 0) + records.EXIT.pack(*one)
        raw = raw.ljust((len(raw) + 7) & ~7, b"\0")
        for half in (0, EXIT_BYTES):
            at = 2 * PAGE + half + self._end
            self.ring[at : at + len(raw)] = raw
        self._end += len(raw)
        struct.pack_into("=Q", self.ring, PAGE, self._end)

    def oom(self, one: records.OomRecord) -> None:
        """An OOM record in its ring buffer, whole."""
        raw = struct.pack("=II", records.OOM.size, 0) + records.OOM.pack(*one)
        raw = raw.ljust((len(raw) + 7) & ~7, b"\0")
        (end,) = struct.unpack_from("=Q", self.ooms, PAGE)
        for half in (0, OOM_BYTES):
            at = 2 * PAGE + half + end
            self.ooms[at : at + len(raw)] = raw
        struct.pack_into("=Q", self.ooms, PAGE, end + len(raw))

    def name(self, one: records.CgroupNameRecord) -> None:
        """The record of a cgroup's name in its ring buffer, whole."""
        raw = struct.pack("=II", records.CGROUP_NAME.size, 0) + records.CGROUP_NAME.pack(*one)
        raw = raw.ljust((len(raw) + 7) & ~7, b"\0")
        (end,) = struct.unpack_from("=Q", self.names, PAGE)
        for half in (0, NAME_BYTES):
            at = 2 * PAGE + half + end
            self.names[at : at + len(raw)] = raw
        struct.pack_into("=Q", self.names, PAGE, end + len(raw))

    @property
    def given(self) -> int:
        """Bytes of exits so far, of which the reader has `taken`."""
        return self._end

    @property
    def taken(self) -> int:
        return int(struct.unpack_from("=Q", self.ring)[0])

    def close(self) -> None:
        for one in (self.slots, self.generations, self.ring):
            one.close()
        for name in ("slots", "generations", "exits"):
            os.close(self.maps[name].fd)


def record(key: ProcessKey, cgroup: int, **fields: int) -> bytes:
    whole = records.ProcessRecord(key.start_ns, cgroup, 0, 0, 0, 0, 1, 0, 0, key.pid, 0, 1, 0, 0, 0)
    return records.PROCESS_RECORD.pack(*whole._replace(**fields))


def exit_record(key: ProcessKey, **fields: Any) -> records.ExitRecord:
    whole = records.ExitRecord(
        *(1, key.start_ns, 5, 10, 0, 100, 100, 25, 0, key.pid, 1, 0, 1, 0, 0, 0, 0),
        comm=b"sh",
        parent_comm=b"init",
    )
    return whole._replace(**fields)
