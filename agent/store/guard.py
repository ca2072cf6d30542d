"""Keeps read-only readers waiting, rather than failing, while SQLite rebuilds the log's index.

After a kill the first writer to come makes the index (`-shm`) again. A reader that cannot write it,
and comes between its truncation and SQLite's own lock, is told «attempt to write a readonly
database» at once; one that finds the index locked waits for its busy time-out like for any lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from agent.store.files import side_file

_WRITE_LOCK_BYTE = 120
"""`UNIX_SHM_BASE` + `WAL_WRITE_LOCK` of SQLite's os_unix.c and wal.c, part of its file format."""

_TRIES = 200


class Guard:
    """The index's write lock, taken ahead of SQLite and given up by it.

    POSIX locks belong to the process: SQLite in this process takes the same lock on top and lets go
    of both when the index is made. For the same reason closing this descriptor would drop all of
    SQLite's locks, so it stays open until the connection is closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def of_existing(cls, path: Path) -> Self | None:
        """The guard of the database at `path`, None where it has no index or nobody to wait for."""
        try:
            descriptor = os.open(side_file(path, "-shm"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        for _ in range(_TRIES):
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _WRITE_LOCK_BYTE)
            except OSError:
                # A reader looks whether somebody writes: a matter of microseconds.
                time.sleep(0.001)
            else:
                break
        return cls(descriptor)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
