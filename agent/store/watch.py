"""Whether somebody else touched the database's files between two writes, told by `stat` alone.

The files are never opened here: closing any descriptor of the database in this process would drop
SQLite's own locks on it (POSIX locks belong to the process, not to the descriptor).
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.store.files import side_file

_INDEX_BYTES = 32 * 1024
"""SQLite maps the index in pieces of this size."""

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_ATTR_IMMUTABLE = 0x10
_STATX_BYTES = 256

_libc = ctypes.CDLL(None, use_errno=True)


class Change(StrEnum):
    """What happened to the files since they were last looked at."""

    NONE = "none"
    DELETED = "deleted"
    REPLACED = "replaced"
    SIDE_FILES_LOST = "side-files-lost"
    """The log or its index was deleted or replaced, the database itself was not."""
    WRITTEN = "written"
    """A size or a time changed without us."""


@dataclass(frozen=True, slots=True)
class _File:
    device_inode: tuple[int, int]
    size: int
    mtime_ns: int


def _look(path: str) -> _File | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return _File((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The three files at one moment; None for one that is not there."""

    database: _File | None
    wal: _File | None
    shm: _File | None


def fingerprint(path: Path) -> Fingerprint:
    # Thrice a tick: a Path of each would cost more than the look.
    database = os.fspath(path)
    return Fingerprint(_look(database), _look(database + "-wal"), _look(database + "-shm"))


def compare(before: Fingerprint, now: Fingerprint) -> Change:
    """What lies between two looks with no write of ours in between."""
    if now.database is None:
        return Change.DELETED
    if before.database is None or now.database.device_inode != before.database.device_inode:
        return Change.REPLACED
    if _inode(now.wal) != _inode(before.wal) or _inode(now.shm) != _inode(before.shm):
        return Change.SIDE_FILES_LOST
    if now.database != before.database or log_was_written(before, now):
        return Change.WRITTEN
    return Change.NONE


def log_was_written(before: Fingerprint, now: Fingerprint) -> bool:
    """Whether the log changed, or its index lost pages."""
    return now.wal != before.wal or _size(now.shm) < _size(before.shm)


def rebuild_index(path: Path, before: Fingerprint) -> None:
    """Zeroes the log's index, so that SQLite makes it again from what the log really holds.

    Without it SQLite believes the old index: it would read pages that are gone, copy overwritten
    ones into the database, and be killed (SIGBUS) at the first touch of an index that was cut.
    """
    shm = side_file(path, "-shm")
    with suppress(OSError):
        # By path: an open descriptor would take SQLite's locks along when it is closed.
        os.truncate(shm, 0)
        os.truncate(shm, max(_size(before.shm), _INDEX_BYTES))


def index_is_immutable(path: Path) -> bool:
    """Whether somebody made the log's index immutable (`chattr +i`) while it is mapped.

    SQLite writes to it through memory, which the kernel then answers with SIGBUS (fs/ext4/inode.c,
    ext4_page_mkwrite), so it must not be touched. Told by statx(2), which opens nothing.
    """
    found = (ctypes.c_uint64 * (_STATX_BYTES // 8))()
    try:
        failed = _libc.statx(
            _AT_FDCWD, os.fsencode(side_file(path, "-shm")), _AT_SYMLINK_NOFOLLOW, 0, found
        )
    except AttributeError:  # a C library older than statx
        return False
    # The attributes follow two 32-bit fields.
    return not failed and bool(found[1] & _STATX_ATTR_IMMUTABLE)


def is_on_read_only(path: Path) -> bool:
    """Whether the file system of `path` is read-only by now, as after an emergency remount."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def log_is_stale(path: Path, before: Fingerprint) -> bool:
    """Whether the log of the database that was at `path` still lies beside what is there now."""
    wal = _inode(_look(os.fspath(side_file(path, "-wal"))))
    return wal is not None and wal == _inode(before.wal)


def _inode(file: _File | None) -> tuple[int, int] | None:
    return None if file is None else file.device_inode


def _size(file: _File | None) -> int:
    return 0 if file is None else file.size
