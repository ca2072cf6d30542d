"""The history that the agent writes: one transaction a tick, whatever happens to the file.

A write that fails raises once for its tick and leaves the store usable: the next tick looks at the
file again, opens it again, or quarantines a damaged one and begins a new one. What could not be
stored is counted.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import peewee

from agent.analysis.counters import LastingCounters
from agent.clock import Clock
from agent.config import RetentionSettings
from agent.errors import StoreError
from agent.model.host_pass import HostPass
from agent.model.record import TickRecord
from agent.model.removal import RemovalPass
from agent.store import counters as counter_tables
from agent.store import database as sqlite
from agent.store import failures, files, policy_state, rows, watch
from agent.store.failures import DamagedError
from agent.store.inserts import insert_many
from agent.store.kept import KeptState
from agent.store.retention import ClockWatch, Pruner
from agent.store.rollups import Roller
from agent.store.state import StoreState
from agent.store.state_rows import StateRows
from agent.store.tables import DeletionRow
from agent.store.verification import Verification
from agent.store.watch import Change

if TYPE_CHECKING:
    from agent.store.minutes import Minutes

log = logging.getLogger(__name__)

_OWED_PASSES = 1000
"""Passes kept in memory while they cannot be stored."""

T = TypeVar("T")

_FAILURES = (*failures.StorageError, DamagedError, StoreError, OverflowError, ValueError)


class Store:
    """The writer. One a database; its methods may be called from any thread."""

    def __init__(self, path: Path, *, clock: Clock, retention: RetentionSettings) -> None:
        self._path = path
        self._clock = clock
        self._retention = retention
        self._lock = threading.RLock()
        self._database: peewee.SqliteDatabase | None = None
        self._pruner: Pruner | None = None
        self._roller: Roller | None = None
        self._states = StateRows()
        self._seen = watch.fingerprint(path)
        """The files as our last write left them."""
        self._verification = Verification(path, clock)
        self._stale = False
        """Whether the connection has to be made again before the next write."""
        self._clock_watch = ClockWatch(clock.wall_ns(), clock.boot_ns())
        self._last_ms = 0
        self._owed: deque[tuple[int, RemovalPass]] = deque(maxlen=_OWED_PASSES)
        self._problem = ""
        self._prune_problem = ""
        self._closed = False
        self.unstored_ticks = 0
        self.quarantined: Path | None = None
        """Where a damaged database was put."""
        self.counters: Callable[[], LastingCounters] | None = None
        """What each write stores of the counters, None where nobody keeps any."""
        self.kept: list[KeptState] = []
        """What else each write stores."""
        self.hold_ms: Callable[[], int] | None = None
        """From which timestamp on the history is still to be shipped, None where it is not."""
        self.minutes: Minutes | None = None
        """What closes buckets of a minute, None where nobody asks for them."""

    @classmethod
    def open(cls, path: Path, *, clock: Clock, retention: RetentionSettings) -> Self:
        """The store at `path`, made where there is none, migrated where it is older.

        A damaged database is quarantined (`quarantined`, a warning) and a new one begun.
        Raises StoreError where the place is unsafe, the file is somebody else's or of a newer
        version, or nothing can be written.
        """
        store = cls(Path(os.path.abspath(path)), clock=clock, retention=retention)
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
        return StoreState(
            self._problem,
            self.unstored_ticks,
            self.quarantined,
            self._clock_watch.suspended or self._prune_problem,
        )

    def ask(self, question: Callable[[peewee.SqliteDatabase], T]) -> T:
        """What of the history somebody goes on from. Raises StoreError."""
        with self._lock:
            try:
                return question(self._ready())
            except _FAILURES as error:
                raise self._failed(error) from error

    def save(self, wall_ns: int) -> None:
        """Stores what is kept, without a tick. Raises StoreError."""
        with self._lock:
            self._write(wall_ns, lambda _connection, _timestamp_ms: None)

    def write_tick(self, record: TickRecord) -> int:
        """Stores one tick, all of it or nothing, and gives its rows' timestamp in milliseconds.

        It is the record's wall clock, at least 1 ms after the row before. Raises StoreError where
        it could not be stored: counted in `unstored_ticks`, logged once while it lasts. Its removal
        passes are kept and stored with the next write; its `deleted_count` is the caller's to add
        to the next record's.
        """

        def insert(connection: sqlite3.Connection, timestamp_ms: int) -> None:
            for model, values in rows.of_tick(record, timestamp_ms):
                insert_many(connection, model, values)
            policy_state.write(connection, record.policy_state)
            self._states.write(connection, record.states, timestamp_ms)

        with self._lock:
            if self._clock_watch.look(self._clock.wall_ns(), self._clock.boot_ns()):
                log.warning("retention=suspended %s", self._clock_watch.suspended)
            self._owe(record.passes, record.wall_ns)
            try:
                timestamp_ms = self._write(record.wall_ns, insert)
            except StoreError:
                self.unstored_ticks += 1
                raise
            written = len(record.processes) + len(record.container_processes)
            self._look_after_rows(timestamp_ms, written)
            return timestamp_ms

    def write_removals(self, removal_pass: RemovalPass, wall_ns: int, uncounted: int = 0) -> None:
        """Stores a pass that ended outside a tick; the newest row counts `uncounted` removals more.

        Raises StoreError where it could not be stored; it is kept and stored with the next write.
        """
        with self._lock:
            self._owe((removal_pass,), wall_ns)
            self._write(
                wall_ns,
                lambda connection, _timestamp_ms: rows.count_removals(connection, uncounted),
            )

    def write_host_pass(self, one: HostPass, wall_ns: int) -> None:
        """Stores what a pass between two ticks rested on. Raises StoreError; it is not kept."""

        def insert(connection: sqlite3.Connection, timestamp_ms: int) -> None:
            for model, values in rows.of_host_pass(one, timestamp_ms):
                insert_many(connection, model, values)
            self._states.write(connection, one.states, timestamp_ms)

        with self._lock:
            self._write(wall_ns, insert)

    def close(self, clean: bool = True) -> None:
        """Leaves one plain file that read-only readers can open, and closes.

        `clean` waits some seconds for a reader that is in the way; without it there is one try.
        Where a reader stays, the side files stay too, and readers go on working.
        """
        with self._lock:
            self._leave(wait=clean)
            self._closed = True

    def _owe(self, passes: Iterable[RemovalPass], wall_ns: int) -> None:
        self._owed.extend((wall_ns // 10**6, one) for one in passes if one.removals)

    def _write(self, wall_ns: int, insert: Callable[[sqlite3.Connection, int], None]) -> int:
        if self._closed:
            raise StoreError(f"The database {self._path} is closed.")
        try:
            try:
                timestamp_ms = self._write_once(wall_ns, insert)
            except _FAILURES as error:
                if self._database is None or not failures.is_damage(error):
                    raise
                self._quarantine(str(error))
                timestamp_ms = self._write_once(wall_ns, insert)
        except _FAILURES as error:
            raise self._failed(error) from error
        self._last_ms = timestamp_ms
        self._owed.clear()
        self._states.committed()
        for one in self.kept:
            one.written()
        self._worked()
        return timestamp_ms

    def _write_once(self, wall_ns: int, insert: Callable[[sqlite3.Connection, int], None]) -> int:
        database = self._ready()
        timestamp_ms = max(wall_ns // 10**6, self._last_ms + 1)
        try:
            with sqlite.transaction(database) as connection:
                insert(connection, timestamp_ms)
                owed = [
                    (min(max(at, self._last_ms + 1), timestamp_ms), one) for at, one in self._owed
                ]
                insert_many(connection, DeletionRow, rows.of_passes(owed))
                if self.counters is not None:
                    counter_tables.write(connection, self.counters())
                for one_kept in self.kept:
                    one_kept.write(connection)
        finally:
            self._seen = watch.fingerprint(self._path)
        return timestamp_ms

    def _ready(self) -> peewee.SqliteDatabase:
        """The open database, after a look at whether its files are still ours and whole."""
        if self._database is not None:
            self._look_after_files()
        if self._database is not None and self._stale:
            # What the connection knows of a failed disk does not recover by itself.
            self._leave(wait=False)
        if self._database is None:
            self._open()
        return self._opened()

    def _opened(self) -> peewee.SqliteDatabase:
        assert self._database is not None  # noqa: S101
        return self._database

    def _look_after_files(self) -> None:
        if watch.index_is_immutable(self._path):
            # Not even closed: that would write to the index as well.
            raise _immutable(self._path)
        if watch.is_on_read_only(self._path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        now = watch.fingerprint(self._path)
        change = watch.compare(self._seen, now)
        if change is Change.NONE:
            return
        if change in (Change.DELETED, Change.REPLACED):
            self._let_go(change)
        elif change is Change.SIDE_FILES_LOST:
            log.warning("database=%s path=%s reopened", change, self._path)
            self._leave(wait=False)
        else:
            if watch.log_was_written(self._seen, now):
                watch.rebuild_index(self._path, self._seen)
            database = self._seen.database
            self._verification.run(self._opened(), database.size if database else None)

    def _let_go(self, change: Change) -> None:
        """The file at the path is not the one that is open: keep the log it left, begin again."""
        sqlite.close(self._database)
        self._database = None
        kept = None
        if change is Change.REPLACED and watch.log_is_stale(self._path, self._seen):
            kept = files.quarantine(self._path, self._clock.wall_ns(), log_only=True)
        log.warning("database=%s path=%s log_kept_as=%s", change, self._path, kept)

    def _quarantine(self, why: str) -> None:
        database, self._database = self._database, None
        self.quarantined = sqlite.quarantine(self._path, self._clock.wall_ns(), why, database)

    def _open(self) -> None:
        wall_ns = self._clock.wall_ns()
        database, kept_as = sqlite.open_database(self._path, wall_ns)
        try:
            self._last_ms = max(self._last_ms, rows.newest_ms(database))
            self._pruner = Pruner(database, self._retention, wall_ns, self._clock.boot_ns())
            self._roller = Roller(database, self._clock.boot_ns)
            self._states = StateRows()
        except failures.StorageError as error:
            sqlite.leave(database, self._path, wait=False)
            raise failures.explain(error, self._path) from error
        self._database = database
        self._stale = False
        self._seen = watch.fingerprint(self._path)
        self.quarantined = kept_as or self.quarantined

    def _leave(self, *, wait: bool) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        if watch.index_is_immutable(self._path):
            log.warning("database=left-open %s", _immutable(self._path))
            sqlite.abandon(database)
            return
        now = watch.fingerprint(self._path)
        if watch.compare(self._seen, now) in (Change.DELETED, Change.REPLACED):
            # Whatever is at the path is not ours to change.
            sqlite.close(database)
        elif not sqlite.leave(database, self._path, wait=wait):
            log.info("database=closed mode=wal cause=reader")

    def _look_after_rows(self, newest_ms: int, rows_written: int) -> None:
        """Closes buckets and deletes old rows: a tick that is stored stays stored, whatever comes
        of either.
        """
        if self._pruner is None or self._roller is None:
            return
        try:
            self._roller.run(newest_ms)
            if self.minutes is not None:
                self.minutes.run(self._opened(), newest_ms)
            self._pruner.run(
                self._clock.wall_ns(),
                self._clock.boot_ns(),
                rows_written,
                self._roller.closed_ms,
                by_age=not self._clock_watch.jumped_ns,
                hold_ms=self.hold_ms() if self.hold_ms else None,
            )
        except _FAILURES as error:
            if not self._prune_problem:
                log.warning("retention=failing %s", str(error))
            self._prune_problem = f"Old rows cannot be deleted: {error}."
            self._stale = failures.needs_new_connection(error)
            if failures.is_damage(error):
                self._begin_anew(error)
        else:
            self._prune_problem = ""
        finally:
            self._seen = watch.fingerprint(self._path)

    def _begin_anew(self, error: BaseException) -> None:
        try:
            self._quarantine(str(error))
            self._open()
        except _FAILURES as failure:
            self._failed(failure)

    def _failed(self, error: BaseException) -> StoreError:
        self._stale = failures.needs_new_connection(error)
        told = failures.explain(error, self._path)
        if not self._problem:
            log.warning("database=failing %s", str(told))
        self._problem = str(told)
        if self._stale:
            # At once: a disk that has to be unmounted to be repaired must not be held until then.
            self._leave(wait=False)
        return told

    def _worked(self) -> None:
        if self._problem:
            log.warning("database=back unstored_ticks=%d", self.unstored_ticks)
        self._problem = ""


def _immutable(path: Path) -> StoreError:
    return StoreError(
        f"The index of the database {path} was made immutable.",
        f"Take that back: chattr -i {files.side_file(path, '-shm')}",
    )
