"""Reading all of a file that somebody else wrote, and not more often than that is worth.

A large one is read at most once in ten minutes, or a program that touches the file at every tick
would cost more than the agent.
"""

from __future__ import annotations

from pathlib import Path

import peewee

from agent.clock import Clock
from agent.store import database as sqlite
from agent.store import files
from agent.store.failures import DamagedError

_PAUSE_NS = 600 * 10**9


class Verification:
    """Of the file at one path."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._last_ns: int | None = None

    def run(self, database: peewee.SqliteDatabase, size_before: int | None) -> None:
        """`database` is the open connection to it, `size_before` the bytes that our last write
        left. Raises DamagedError, and what peewee, sqlite3 and the file system do.
        """
        now_ns = self._clock.boot_ns()
        size = self._path.lstat().st_size
        if size < files.HEADER_BYTES:
            raise DamagedError("it was cut to nothing")
        shrunk = size_before is not None and size < size_before
        recently = self._last_ns is not None and now_ns - self._last_ns < _PAUSE_NS
        if recently and not shrunk and size > sqlite.FULL_CHECK_BYTES:
            return
        self._last_ns = now_ns
        reader = sqlite.connect_to_read(self._path)
        try:
            sqlite.check_pages(reader)
        finally:
            sqlite.close(reader)
        # Pages that only the log had are no evidence of what lies under them.
        sqlite.rows(database, "PRAGMA wal_checkpoint(PASSIVE)")
