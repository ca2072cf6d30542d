"""The history that the agent writes: one transaction a tick, whatever happens to the file.

A write that fails raises once for its tick and leaves the store usable: the next tick looks at the
file anew, opens it again, or sets a damaged one aside and begins a new one. What could not be
stored is counted.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import peewee

from agent.clock import Clock
from agent.config import RetentionSettings
from agent.errors import StoreError
from agent.model import RemovalPass, TickRecord
from agent.store import database as sqlite
from agent.store import files, rows
from agent.store.tables import (
    ALL_TABLES,
    AttributionCheck,
    ContainerStats,
    ContainerTotal,
    DeletionRow,
    Metrics,
    ProcessStats,
    Row,
    columns,
    table_name,
)

log = logging.getLogger(__name__)

_OWED_PASSES = 1000
"""Passes kept in memory while they cannot be stored."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """Whether rows are being stored; `problem` is one sentence, empty while they are."""

    problem: str = ""
    unstored_ticks: int = 0
    set_aside: Path | None = None
    """Where the last damaged database was put, None where none was."""

    @property
    def ok(self) -> bool:
        return not self.problem


def _insert(model: type[Row]) -> str:
    names = columns(model)
    marks = ", ".join("?" * len(names))
    return f'INSERT INTO "{table_name(model)}" ({", ".join(names)}) VALUES ({marks})'  # noqa: S608


_INSERT = {model: _insert(model) for model in ALL_TABLES}


class Store:
    """The writer. One a database; its methods may be called from any thread."""

    def __init__(self, path: Path, *, clock: Clock, retention: RetentionSettings) -> None:
        self._path = path
        self._clock = clock
        self._retention = retention
        self._lock = threading.RLock()
        self._database: peewee.SqliteDatabase | None = None
        self._identity: files.Identity | None = None
        self._last_ms = 0
        self._owed: deque[tuple[int, RemovalPass]] = deque(maxlen=_OWED_PASSES)
        self._problem = ""
        self._closed = False
        self.unstored_ticks = 0
        self.set_aside: Path | None = None
        """Where a damaged database was put."""

    @classmethod
    def open(cls, path: Path, *, clock: Clock, retention: RetentionSettings) -> Self:
        """The store at `path`, made where there is none, migrated where it is older.

        A damaged database is set aside (`set_aside`, and a warning in the log) and a new one begun.
        Raises StoreError where the place is unsafe, the file is somebody else's or of a newer
        version, or nothing can be written.
        """
        store = cls(Path(path).absolute(), clock=clock, retention=retention)
        store._open()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def state(self) -> StoreState:
        return StoreState(self._problem, self.unstored_ticks, self.set_aside)

    def write_tick(self, record: TickRecord) -> int:
        """Stores one tick, all of it or nothing, and gives its rows' timestamp in milliseconds.

        It is the record's wall clock, at least 1 ms after the row before. Raises StoreError where
        it could not be stored: counted in `unstored_ticks`, logged once while it lasts. Its removal
        passes are kept and stored with the next write; its `deleted_count` is the caller's to add
        to the next record's.
        """

        def insert(connection: sqlite3.Connection, timestamp_ms: int) -> None:
            for model, values in (
                (Metrics, [rows.metrics(record, timestamp_ms)]),
                (ContainerStats, rows.container_stats(record, timestamp_ms)),
                (ProcessStats, rows.process_stats(record, timestamp_ms)),
                (ContainerTotal, rows.container_totals(record, timestamp_ms)),
                (AttributionCheck, [rows.attribution_checks(record, timestamp_ms)]),
            ):
                _insert_many(connection, model, values)

        with self._lock:
            self._owe(record.passes, record.wall_ns)
            try:
                return self._write(record.wall_ns, insert)
            except StoreError:
                self.unstored_ticks += 1
                raise

    def write_removals(self, removal_pass: RemovalPass, wall_ns: int) -> None:
        """Stores a pass that ended outside a tick.

        Raises StoreError where it could not be stored; it is kept and stored with the next write.
        """
        with self._lock:
            self._owe((removal_pass,), wall_ns)
            self._write(wall_ns, lambda _connection, _timestamp_ms: None)

    def close(self, clean: bool = True) -> None:
        """Leaves one plain file that read-only readers can open, and closes.

        `clean` waits some seconds for a reader that is in the way; without it there is one try.
        Where a reader stays, the side files stay too, and readers go on working.
        """
        with self._lock:
            if self._database is not None:
                if not sqlite.leave(self._database, self._path, wait=clean):
                    log.info("database=closed mode=wal cause=reader")
                self._database = None
            self._closed = True

    def _owe(self, passes: Iterable[RemovalPass], wall_ns: int) -> None:
        self._owed.extend((wall_ns // 10**6, one) for one in passes if one.removals)

    def _write(self, wall_ns: int, insert: Callable[[sqlite3.Connection, int], None]) -> int:
        if self._closed:
            raise StoreError(f"The database {self._path} is closed.")
        try:
            database = self._ready()
            timestamp_ms = max(wall_ns // 10**6, self._last_ms + 1)
            with sqlite.transaction(database) as connection:
                insert(connection, timestamp_ms)
                owed = [
                    (min(max(at, self._last_ms + 1), timestamp_ms), one) for at, one in self._owed
                ]
                _insert_many(connection, DeletionRow, rows.deletions(owed))
        except (*sqlite.StorageError, StoreError, OverflowError, ValueError) as error:
            raise self._failed(error) from error
        self._last_ms = timestamp_ms
        self._owed.clear()
        self._worked()
        return timestamp_ms

    def _ready(self) -> peewee.SqliteDatabase:
        if self._database is None:
            self._open()
        assert self._database is not None  # noqa: S101
        return self._database

    def _open(self) -> None:
        database, aside = sqlite.open_database(self._path, self._clock.wall_ns())
        self._database = database
        self._identity = files.identity(self._path)
        self.set_aside = aside or self.set_aside
        self._last_ms = max(self._last_ms, _newest_ms(database))

    def _failed(self, error: BaseException) -> StoreError:
        told = sqlite.explain(error, self._path)
        if not self._problem:
            log.warning("database=failing %s", told)
        self._problem = str(told)
        return told

    def _worked(self) -> None:
        if self._problem:
            log.warning("database=back unstored_ticks=%d", self.unstored_ticks)
        self._problem = ""


def _insert_many(
    connection: sqlite3.Connection, model: type[Row], values: Iterable[tuple[Any, ...]]
) -> None:
    connection.executemany(_INSERT[model], values)


def _newest_ms(database: peewee.SqliteDatabase) -> int:
    newest = 0
    for model in ALL_TABLES:
        query = f'SELECT max(timestamp) FROM "{table_name(model)}"'  # noqa: S608
        newest = max(newest, sqlite.rows(database, query)[0][0] or 0)
    return newest
