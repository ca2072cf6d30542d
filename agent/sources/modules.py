"""All processes, and the containerised ones, as the two kernel modules publish them under `/proc`.

This is the primary source. The text is decoded straight into the values of `agent.model` and
checked on the way: a file that is not what the modules write is an error, never half a snapshot.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from agent.clock import Clock
from agent.errors import SourceError
from agent.model.host import Memory
from agent.model.process import Candidate, Natural, Process, Snapshot, Source

_CHUNK_BYTES = 1 << 20
_MAX_BYTES = 256 << 20
_TRIES = 3

_MEND = "Run `sudo /opt/so1/src/bash/load_modules.sh`."


class _SysInfo(msgspec.Struct, frozen=True, kw_only=True):
    total_ram: Natural
    free_ram: Natural
    used_ram: Natural
    available_ram: Natural
    snapshot_ns: Natural
    processes: tuple[Process, ...]


_sysinfo = msgspec.json.Decoder(_SysInfo)
_continfo = msgspec.json.Decoder(tuple[Candidate, ...])


def decode_sysinfo(text: bytes) -> tuple[Memory, int, tuple[Process, ...]]:
    """Memory, the boot-clock time of the snapshot in ns, and the processes in `text`.

    Raises SourceError for anything that is not what `sysinfo.ko` writes.
    """
    try:
        info = _sysinfo.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SourceError(
            f"The sysinfo module's text cannot be decoded: {error}.", _MEND
        ) from error
    memory = Memory(info.total_ram, info.free_ram, info.used_ram, info.available_ram)
    return memory, info.snapshot_ns, info.processes


def decode_continfo(text: bytes) -> tuple[Candidate, ...]:
    """The candidates in `text`. Raises SourceError as `decode_sysinfo` does."""
    try:
        return _continfo.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SourceError(
            f"The continfo module's text cannot be decoded: {error}.", _MEND
        ) from error


def read(sysinfo: Path, continfo: Path, clock: Clock) -> Snapshot:
    """One snapshot of both files. Raises SourceError where one is absent or unusable.

    Candidates come first: a process of the second file that is missing in the first then either has
    the host's namespaces or was born in between, and its start tells which.
    """
    candidates_ns = clock.boot_ns()
    candidates = decode_continfo(_read_whole(continfo))
    memory, snapshot_ns, processes = decode_sysinfo(_read_whole(sysinfo))
    return Snapshot(Source.MODULES, snapshot_ns, memory, processes, candidates, candidates_ns)


def _read_whole(path: Path) -> bytes:
    """The text of one open, which the module keeps unchanged for that descriptor.

    EIO says that the module was removed under the descriptor, EBUSY that all of its snapshots are
    taken: both are worth another open.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return _read_once(path)
        except OSError as error:
            again = error.errno in (errno.EIO, errno.EBUSY, errno.EINTR)
            if tries == _TRIES or not again:
                raise SourceError(f"{path} cannot be read: {error.strerror}.", _MEND) from error


def _read_once(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks: list[bytes] = []
        size = 0
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_BYTES:
                raise SourceError(f"{path} is larger than {_MAX_BYTES >> 20} MiB.", _MEND)
        return b"".join(chunks)
    finally:
        os.close(descriptor)
