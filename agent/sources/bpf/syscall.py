"""Reading BPF maps and facts about programs with bpf(2) itself, from plain descriptors.

The long-running agent holds descriptors that a helper handed to it and needs neither BCC nor
libbpf to use them. A map is read a thousand records a system call where the kernel can (hash
maps since 5.6), one by one elsewhere. Layouts are `union bpf_attr` of `include/uapi/linux/bpf.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.errors import SourceError

_NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "s390x": 351,
    "ppc64le": 361,
}
_MAP_CREATE, _PROG_LOAD = 0, 5
_MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY = 1, 2, 3, 4
_OBJ_INFO = 15
_RAW_TRACEPOINT_OPEN, _LINK_CREATE = 17, 28
_MAP_LOOKUP_BATCH = 24
_ENABLE_STATS, _ITER_CREATE = 32, 33
_BATCH = 1024
"""Records: more at once would mostly be fresh pages that no record reaches."""

_libc = ctypes.CDLL(None, use_errno=True)


class BpfCallError(SourceError):
    """A bpf(2) call failed; `errno` says how."""

    def __init__(self, command: str, number: int) -> None:
        super().__init__(f"bpf({command}) failed: {os.strerror(number)}.")
        self.errno = number


class VerifierError(BpfCallError):
    """The kernel refuses a program; `said` is the verifier's log, "" where none was asked for."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__("PROG_LOAD", number)
        self.said = said


def _call(name: str, command: int, attr: bytes | bytearray) -> int:
    buffer = (ctypes.c_char * 128).from_buffer_copy(bytes(attr).ljust(128, b"\0"))
    result = _raw(command, buffer)
    if result < 0:
        raise BpfCallError(name, ctypes.get_errno())
    return result


def _raw(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise SourceError(f"BPF maps cannot be read on {platform.machine()}.")
    return int(
        _libc.syscall(
            ctypes.c_long(number), ctypes.c_int(command), ctypes.byref(buffer), ctypes.c_uint(128)
        )
    )


def _pointer(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def create_map(
    name: str, kind: int, key_size: int, value_size: int, max_entries: int, flags: int
) -> int:
    """The descriptor of a new map. Raises BpfCallError."""
    attr = struct.pack(
        "=IIIIIII16s", kind, key_size, value_size, max_entries, flags, 0, 0, _name(name)
    )
    return _call("MAP_CREATE", _MAP_CREATE, attr)


def load_program(
    name: str, kind: int, code: bytes, *, attach_type: int = 0, btf_id: int = 0, log_bytes: int = 0
) -> int:
    """The descriptor of a program. Raises VerifierError."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    said = ctypes.create_string_buffer(max(log_bytes, 1))
    attr = bytearray(128)
    struct.pack_into(
        "=IIQQIIQII16s",
        attr,
        0,
        kind,
        len(code) // 8,
        _pointer(instructions),
        _pointer(licence),
        1 if log_bytes else 0,
        log_bytes,
        _pointer(said) if log_bytes else 0,
        0,
        0,
        _name(name),
    )
    struct.pack_into("=I", attr, 68, attach_type)
    struct.pack_into("=I", attr, 108, btf_id)
    try:
        return _call("PROG_LOAD", _PROG_LOAD, attr)
    except BpfCallError as error:
        raise VerifierError(error.errno, said.value.decode("utf-8", "replace")) from error


def attach_tracepoint(program: int, tracepoint: str) -> int:
    """The descriptor of the attachment; "" for a program whose type says where. BpfCallError."""
    name = ctypes.create_string_buffer(tracepoint.encode())
    attr = struct.pack("=QI", _pointer(name) if tracepoint else 0, program)
    return _call("RAW_TRACEPOINT_OPEN", _RAW_TRACEPOINT_OPEN, attr)


def attach_iterator(program: int, attach_type: int) -> int:
    """The descriptor of a task iterator's link. Raises BpfCallError."""
    return _call("LINK_CREATE", _LINK_CREATE, struct.pack("=IIII", program, 0, attach_type, 0))


def _name(name: str) -> bytes:
    """BPF_OBJ_NAME_LEN is 16, its final NUL included."""
    return name.encode("ascii", "replace")[:15]


@dataclass(frozen=True, slots=True)
class Map:
    """A map's descriptor with what is needed to read it."""

    fd: int
    key_size: int
    value_size: int

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """(keys, values) of many records at a time, each laid end to end, in equal number.

        A record that comes or goes meanwhile may be missed. Raises BpfCallError.
        """
        count = _BATCH
        keys = ctypes.create_string_buffer(count * self.key_size)
        values = ctypes.create_string_buffer(count * self.value_size)
        # The token is a bucket number for hash maps, which has 4 bytes, and else a key.
        token = ctypes.create_string_buffer(max(self.key_size, 8))
        started = False
        while True:
            attr = ctypes.create_string_buffer(128)
            struct.pack_into(
                "=QQQQIIQQ",
                attr,
                0,
                _pointer(token) if started else 0,
                _pointer(token),
                _pointer(keys),
                _pointer(values),
                count,
                self.fd,
                0,
                0,
            )
            failed = _raw(_MAP_LOOKUP_BATCH, attr) < 0
            number = ctypes.get_errno() if failed else 0
            (got,) = struct.unpack_from("=I", attr, 32)
            if failed and number == errno.ENOSPC:
                # One bucket holds more than the whole buffer: a larger one, from the same token.
                count *= 2
                keys = ctypes.create_string_buffer(count * self.key_size)
                values = ctypes.create_string_buffer(count * self.value_size)
                continue
            if failed and number != errno.ENOENT:
                if number in (errno.EINVAL, errno.EOPNOTSUPP, 524) and not started:
                    yield from self._one_by_one()
                    return
                raise BpfCallError("MAP_LOOKUP_BATCH", number)
            if got:
                yield (
                    ctypes.string_at(keys, got * self.key_size),
                    ctypes.string_at(values, got * self.value_size),
                )
            if failed:
                return
            started = True

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        key: bytes | None = None
        seen: set[bytes] = set()
        while True:
            key = self.next_key(key)
            # A key deleted under the walk sends it back to the start.
            if key is None or key in seen:
                return
            seen.add(key)
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def next_key(self, key: bytes | None) -> bytes | None:
        """The key after `key`, the first for None; None at the end."""
        old = ctypes.create_string_buffer(key or b"", self.key_size)
        new = ctypes.create_string_buffer(self.key_size)
        attr = struct.pack("=IxxxxQQ", self.fd, _pointer(old) if key else 0, _pointer(new))
        try:
            _call("MAP_GET_NEXT_KEY", _MAP_NEXT_KEY, attr)
        except BpfCallError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return new.raw

    def lookup(self, key: bytes) -> bytes | None:
        """The value at `key`, None where there is none."""
        where = ctypes.create_string_buffer(key, self.key_size)
        value = ctypes.create_string_buffer(self.value_size)
        attr = struct.pack("=IxxxxQQ", self.fd, _pointer(where), _pointer(value))
        try:
            _call("MAP_LOOKUP_ELEM", _MAP_LOOKUP, attr)
        except BpfCallError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Writes the value at `key`. Raises BpfCallError."""
        where = ctypes.create_string_buffer(key, self.key_size)
        what = ctypes.create_string_buffer(value, self.value_size)
        attr = struct.pack("=IxxxxQQQ", self.fd, _pointer(where), _pointer(what), 0)
        _call("MAP_UPDATE_ELEM", _MAP_UPDATE, attr)

    def delete(self, key: bytes) -> bool:
        """Removes the record at `key`; False where there is none."""
        where = ctypes.create_string_buffer(key, self.key_size)
        attr = struct.pack("=IxxxxQ", self.fd, _pointer(where))
        try:
            _call("MAP_DELETE_ELEM", _MAP_DELETE, attr)
        except BpfCallError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True


def possible_cpus() -> int:
    """How many values a per-CPU map has (`/sys/devices/system/cpu/possible`)."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        text = file.read().strip()
    total = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """How often a program ran and, with statistics on, for how long."""

    name: str
    run_count: int
    run_ns: int
    missed: int
    """Not run because it was running on that CPU already."""


def program_runs(fd: int) -> ProgramRuns:
    """From `struct bpf_prog_info`; fields that the kernel is missing are 0. Raises BpfCallError."""
    info = ctypes.create_string_buffer(256)
    attr = struct.pack("=IIQ", fd, 256, _pointer(info))
    _call("OBJ_GET_INFO_BY_FD", _OBJ_INFO, attr)
    name = info.raw[64:80].partition(b"\0")[0].decode("ascii", "replace")
    run_ns, run_count, missed = struct.unpack_from("=QQQ", info.raw, 192)
    return ProgramRuns(name, run_count, run_ns, missed)


def enable_statistics() -> int:
    """While the descriptor is open the kernel times every program (5.8). Raises BpfCallError."""
    return _call("ENABLE_STATS", _ENABLE_STATS, struct.pack("=I", 0))


def iterate(link_fd: int) -> bytes:
    """Runs an iterator once to its end and gives what it wrote. Raises BpfCallError, OSError."""
    fd = _call("ITER_CREATE", _ITER_CREATE, struct.pack("=II", link_fd, 0))
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
