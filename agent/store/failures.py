"""What SQLite's and the system's errors mean for the store, and what a person is told of them.

Three kinds matter: damage (the file is quarantined), faults that pass (the connection tries again)
and faults after which the connection has to be made again.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import peewee

from agent.errors import StoreError

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SYSTEM_CODES = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_READONLY,
}
_PASSING = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_TOOBIG,
)

StorageError = (sqlite3.Error, sqlite3.Warning, peewee.PeeweeException, OSError)


class DamagedError(Exception):
    """The file is not a sound database of ours any more. Never leaves this package."""

    def __init__(self, finding: str, database: peewee.SqliteDatabase | None = None) -> None:
        super().__init__(finding)
        self.database = database
        """Its connection, for whoever quarantines the file to close afterwards."""


def sqlite_code(error: BaseException | None) -> int:
    """SQLite's primary result code behind `error`, or the one for its errno; 0 for neither."""
    while error is not None:
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(code, int):
            return code & 0xFF
        if isinstance(error, OSError) and error.errno in _SYSTEM_CODES:
            return _SYSTEM_CODES[error.errno]
        error = error.__cause__ or error.__context__
    return 0


def is_damage(error: BaseException) -> bool:
    return isinstance(error, DamagedError) or sqlite_code(error) in _DAMAGED


def needs_new_connection(error: BaseException) -> bool:
    """Whether the connection that met `error` may go on meeting it after its cause is gone."""
    if not isinstance(error, StorageError):
        return False
    return sqlite_code(error) not in _PASSING


def explain(error: BaseException, path: Path) -> StoreError:
    """What a person is told of `error`."""
    if isinstance(error, StoreError):
        return error
    code = sqlite_code(error)
    if code == sqlite3.SQLITE_FULL:
        message = f"The disk of the database {path} is full, so nothing is stored."
        hint = f"Make room (df -h {path.parent}); storing goes on by itself."
    elif code == sqlite3.SQLITE_READONLY:
        message = f"The database {path} can be read but not written."
        hint = f"See its attributes and its mount (lsattr {path}; findmnt -T {path})."
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        message = f"Another program holds the database {path} locked."
        hint = f"See which (fuser -v {path}) and end it; storing goes on by itself."
    elif code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        message = f"The disk of the database {path} fails: {error}."
        hint = "See `dmesg` and the disk; storing is tried again at every tick."
    elif not isinstance(error, (DamagedError, *StorageError)) or code == sqlite3.SQLITE_CONSTRAINT:
        message = f"A value of this tick does not fit into the database: {error}."
        hint = "The next tick is stored as usual; please report it."
    else:
        message = f"The database {path} cannot be used: {error}."
        hint = f"See it with `sqlite3 {path} 'PRAGMA integrity_check'`."
    return StoreError(message, hint)


def unreadable(error: BaseException, path: Path) -> StoreError:
    """What a person is told who only reads the history. Whoever is root is not told to be."""
    code = sqlite_code(error)
    if os.geteuid() != 0 and (
        isinstance(error, PermissionError)
        or code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
    ):
        return StoreError(f"The history {path} may be read by root only.", "Use sudo.")
    if "no such table" in str(error) or "no such column" in str(error):
        return StoreError(
            f"The history {path} has another shape than this version's: {error}.",
            "Start the agent once (sudo agent start): it brings an older one up to date.",
        )
    if is_damage(error):
        return StoreError(
            f"The history {path} cannot be read, it is damaged: {error}.",
            f"See what is left in it: sudo sqlite3 {path} .recover. A start of the agent keeps a "
            "damaged one under another name and begins again.",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        hint = f"See which program holds it locked: sudo fuser -v {path}"
    else:
        hint = f"See its mode, its mount and its disk (ls -l {path}; findmnt -T {path}; dmesg)."
    return StoreError(f"The history {path} cannot be read: {error}.", hint)
