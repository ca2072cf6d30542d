"""All processes, and the containerised ones, as the two kernel modules publish them under `/proc`.

This is the primary source. The text is decoded straight into the values of `agent.model` and
checked on the way: a file that is not what the modules write is an error, never half a snapshot.
One odd entry among whole ones is no such file: its odd figures count as 0, and an entry whose
process cannot be told from others is left out; both are counted.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.clock import Clock
from agent.errors import SourceError
from agent.model.host import Memory
from agent.model.process import Candidate, Natural, Process, Snapshot, Source
from agent.place import SCRIPTS

_CHUNK_BYTES = 1 << 20
_MAX_BYTES = 256 << 20
# Before each further try, in seconds: together well under a tick, and never a busy loop, which
# would itself keep others from what it waits for.
_PAUSES_S = (0.01, 0.03, 0.1, 0.3)
_AGAIN = frozenset({errno.EIO, errno.EBUSY, errno.EINTR})

_REMEDY = f"Run `sudo {SCRIPTS}/load_modules.sh`."


class _Host(msgspec.Struct, frozen=True, kw_only=True):
    total_ram: Natural
    free_ram: Natural
    used_ram: Natural
    available_ram: Natural
    snapshot_ns: Natural


class _SysInfo(_Host, frozen=True, kw_only=True):
    processes: tuple[Process, ...]


class _RawSysInfo(_Host, frozen=True, kw_only=True):
    processes: tuple[msgspec.Raw, ...]


_sysinfo = msgspec.json.Decoder(_SysInfo)
_continfo = msgspec.json.Decoder(tuple[Candidate, ...])
_raw_sysinfo = msgspec.json.Decoder(_RawSysInfo)
_raw_continfo = msgspec.json.Decoder(tuple[msgspec.Raw, ...])

_IDENTITY = frozenset(
    {"pid", "start_ns", "cgroup_id", "cgroup1_id", "ns_pid", "pid_ns", "uts_ns", "ppid", "state"}
)
"""Without these nobody can say which process an entry is, or whose."""

_Entry = TypeVar("_Entry", Process, Candidate)


def decode_sysinfo(text: bytes) -> tuple[Memory, int, tuple[Process, ...]]:
    """Memory, the boot-clock time of the snapshot in ns, and the processes in `text`.

    Raises SourceError for anything that is not what `sysinfo.ko` writes.
    """
    return _take_sysinfo(text)[:3]


def _take_sysinfo(text: bytes) -> tuple[Memory, int, tuple[Process, ...], int]:
    """As `decode_sysinfo`, and how many entries were odd."""
    host: _Host
    try:
        info = _sysinfo.decode(text)
        host, processes, odd = info, info.processes, 0
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        try:
            raw = _raw_sysinfo.decode(text)
            host, (processes, odd) = raw, _each(raw.processes, Process)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise SourceError(
                f"The sysinfo module's text cannot be decoded: {error}.", _REMEDY
            ) from error
    memory = Memory(host.total_ram, host.free_ram, host.used_ram, host.available_ram)
    return memory, host.snapshot_ns, processes, odd


def decode_continfo(text: bytes) -> tuple[Candidate, ...]:
    """The candidates in `text`. Raises SourceError as `decode_sysinfo` does."""
    return _take_continfo(text)[0]


def _take_continfo(text: bytes) -> tuple[tuple[Candidate, ...], int]:
    """As `decode_continfo`, and how many entries were odd."""
    try:
        return _continfo.decode(text), 0
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        try:
            return _each(_raw_continfo.decode(text), Candidate)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise SourceError(
                f"The continfo module's text cannot be decoded: {error}.", _REMEDY
            ) from error


def _each(raw: tuple[msgspec.Raw, ...], shape: type[_Entry]) -> tuple[tuple[_Entry, ...], int]:
    """Each entry for itself, and how many were odd.

    Raises msgspec.DecodeError where not one is whole: then it is not one entry that is odd.
    """
    taken: list[_Entry] = []
    odd = 0
    for text in raw:
        try:
            taken.append(msgspec.json.decode(text, type=shape))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            odd += 1
            entry = _without_odd_figures(text, shape)
            if entry is not None:
                taken.append(entry)
    if odd == len(raw):
        raise msgspec.DecodeError("no entry is whole")
    return tuple(taken), odd


def _without_odd_figures(text: msgspec.Raw, shape: type[_Entry]) -> _Entry | None:
    try:
        entry = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        values: dict[str, object] = {}
        for field in msgspec.structs.fields(shape):
            if field.encode_name not in entry:
                continue
            try:
                values[field.encode_name] = msgspec.json.decode(
                    entry[field.encode_name], type=field.type
                )
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                if field.name in _IDENTITY:
                    return None
                values[field.encode_name] = "?" if field.name == "name" else 0
        return msgspec.convert(values, shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def read(sysinfo: Path, continfo: Path, clock: Clock) -> Snapshot:
    """One snapshot of both files. Raises SourceError where one is absent or unusable.

    Candidates come first: a process of the second file that is missing in the first then either has
    the host's namespaces or was born in between, and its start tells which.
    """
    candidates_ns = clock.boot_ns()
    candidates, odd_candidates = _take_continfo(_read_whole(continfo))
    memory, snapshot_ns, processes, odd = _take_sysinfo(_read_whole(sysinfo))
    return Snapshot(
        Source.MODULES,
        snapshot_ns,
        memory,
        processes,
        candidates,
        candidates_ns,
        odd + odd_candidates,
    )


def _read_whole(path: Path) -> bytes:
    """The text of one open, which the module keeps unchanged for that descriptor.

    EIO says that the module was removed under the descriptor, EBUSY that as many of its snapshots
    are held as there may be: both are worth another open, a little later.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            return _read_once(path)
        except OSError as error:
            if pause_s is None or error.errno not in _AGAIN:
                raise SourceError(
                    f"{path} cannot be read: {error.strerror}.", _remedy(path, error)
                ) from error
        time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _remedy(path: Path, error: OSError) -> str:
    """What helps where `path` cannot be read."""
    match error.errno:
        case errno.EBUSY:
            return f"All of its snapshots are held: `sudo fuser -v {path}` shows by whom."
        case errno.EACCES | errno.EPERM:
            return "Run the agent as root, in the host's own /proc."
        case _:
            return _REMEDY


def _read_once(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks: list[bytes] = []
        size = 0
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_BYTES:
                raise SourceError(f"{path} is larger than {_MAX_BYTES >> 20} MiB.", _REMEDY)
        return b"".join(chunks)
    finally:
        os.close(descriptor)
