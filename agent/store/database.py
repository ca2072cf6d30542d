"""One open SQLite database of the agent: how it is made, opened, checked, and left.

WAL while the agent runs, because a rollback journal left by a kill stops every read-only reader;
`journal_mode=DELETE` when it ends, because WAL without its side files stops them too.
"""

from __future__ import annotations

import ctypes
import logging
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee

from agent.errors import StoreError
from agent.store import files
from agent.store.failures import DamagedError, StorageError, explain, is_damage, sqlite_code
from agent.store.files import FileKind
from agent.store.guard import Guard
from agent.store.reading import BUSY_TIMEOUT_S, close, connect_to_read, plain_connection
from agent.store.rollup_tables import promised
from agent.store.tables import ALL_TABLES, columns, table_name
from agent.util import memory_tuning

__all__ = ["close", "connect_to_read", "plain_connection"]
"""What readers need alone; everything else here is the writer's."""

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
HISTORY_TABLE = "schema_migration"

_LEAVE_WAL_S = 5.0
_ENTER_WAL_S = 30.0
"""A start waits this long for a reader of the stopped history to finish its query."""
_WAL_LIMIT_BYTES = 16 * 1024 * 1024
FULL_CHECK_BYTES = 32 * 1024 * 1024
"""Up to this size a start checks every page; beyond it only what it touches."""


class WriterDatabase(peewee.SqliteDatabase):
    """The writer's connection, with the guard that has to outlive it."""

    guard: Guard | None = None

    def close(self) -> bool:
        closed = bool(super().close())
        if self.guard is not None:
            self.guard.close()
        return closed


def connect(path: Path, guard: Guard | None = None) -> WriterDatabase:
    """A connection to write with. `guard` is closed with it."""
    database = WriterDatabase(
        str(path), timeout=BUSY_TIMEOUT_S, thread_safe=False, check_same_thread=False
    )
    database.guard = guard
    try:
        database.connect()
    except BaseException:
        database.close()
        raise
    return database


def open_database(path: Path, wall_ns: int) -> tuple[peewee.SqliteDatabase, Path | None]:
    """The database at `path`, ready to be written, and where a damaged one was quarantined.

    Raises StoreError where it cannot be made, opened or written, is somebody else's, or was written
    by a newer version of the agent. Nothing is changed then.
    """
    files.prepare_directory(path)
    kept_as: Path | None = None
    found = files.kind(path)
    if found is FileKind.FOREIGN:
        raise StoreError(
            f"{path} is a file of something else, not the agent's database.",
            "Name another path with --database.",
        )
    if found is FileKind.DAMAGED:
        kept_as = quarantine(path, wall_ns, "it does not begin as an SQLite database")
    elif found is not FileKind.ABSENT:
        try:
            return _open_file(path), kept_as
        except DamagedError as error:
            kept_as = quarantine(path, wall_ns, str(error), error.database)
    # Side files without their database would be replayed onto the new one.
    files.quarantine(path, wall_ns)
    files.create_file(path)
    try:
        return _open_file(path), kept_as
    except DamagedError as error:
        close(error.database)
        raise explain(error, path) from error


def quarantine(
    path: Path, wall_ns: int, why: str, database: peewee.SqliteDatabase | None = None
) -> Path | None:
    """Renames a damaged database and says so. `database` is its open connection, closed here.

    Renamed while it is open: SQLite then sees that its file moved, and leaves it and its log as
    they were found. Raises StoreError where the rename fails.
    """
    try:
        kept_as = files.quarantine(path, wall_ns)
    finally:
        close(database)
    log.warning("database=damaged path=%s kept_as=%s begun=new cause=%r", path, kept_as, why)
    return kept_as


def abandon(database: peewee.SqliteDatabase) -> None:
    """Never closes, not even when Python ends: what SQLite does then would be the process's death.

    The kernel lets go of files and locks when the process has ended, and the next opening reads the
    log as after a kill.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(plain_connection(database)))


def _open_file(path: Path) -> peewee.SqliteDatabase:
    """Raises DamagedError with the connection still open, else StoreError."""
    database: WriterDatabase | None = None
    try:
        files.narrow_mode(path)
        files.remove_unused_log(path)
        # Before SQLite touches the index of a log that a kill left behind.
        database = connect(path, Guard.of_existing(path))
        applied = _look_at(database, path)
        if database.pragma("page_count") == 0:
            # Both belong to the header: the second writes the first.
            database.pragma("auto_vacuum", 2)
            database.pragma("application_id", files.APPLICATION_ID)
        if database.pragma("journal_mode") != "wal":
            guard = _enter_wal(database, path)
            database.close()
            database = connect(path, guard)
        _set_up(database, path)
        _migrate(database, applied)
    except BaseException as error:
        if is_damage(error):
            raise DamagedError(str(error), database) from error
        if database is not None:
            leave(database, path, wait=False)
        if isinstance(error, StorageError):
            raise explain(error, path) from error
        raise
    return database


def _look_at(database: peewee.SqliteDatabase, path: Path) -> tuple[str, ...]:
    """The migrations it has had. Raises DamagedError, and StoreError for a newer version's."""
    applied = applied_migrations(database)
    if applied:
        _refuse_newer(applied, path)
        _check(database, applied, path)
    elif "metrics" in database.get_tables():
        raise DamagedError(f"{HISTORY_TABLE} is missing")
    return applied


def _set_up(database: peewee.SqliteDatabase, path: Path) -> None:
    # Debian's SQLite overwrites deleted rows with zeros: names of processes are not worth it.
    database.pragma("secure_delete", 0)
    # FULL: a tick that is told as stored is on the disk. Without the fsync, ext4 of 6.1 takes
    # rows on a file system that failed, and keeps them from the disk without a word.
    database.pragma("synchronous", 2)
    # Rows are added at the end and go from the beginning: more cache than this (SQLite's 2 MB) is
    # resident for good and saves no measurable time.
    database.pragma("cache_size", -512)
    database.pragma("journal_size_limit", _WAL_LIMIT_BYTES)
    mode = database.pragma("journal_mode")
    if mode != "wal":
        raise StoreError(
            f"The database {path} cannot use a write-ahead log (it stays in mode {mode}).",
            "Keep it on a local disk: network file systems cannot.",
        )


def rows(database: peewee.SqliteDatabase, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """The answer to one statement, as tuples."""
    untyped: Any = database
    return list(untyped.execute_sql(sql, parameters).fetchall())


def known_migrations() -> tuple[str, ...]:
    """Their names in order: the file names, as playhouse's runner takes them."""
    return tuple(sorted(one.stem for one in MIGRATIONS.glob("[0-9]*.py")))


def applied_migrations(database: peewee.SqliteDatabase) -> tuple[str, ...]:
    if HISTORY_TABLE not in database.get_tables():
        return ()
    found = rows(database, f"SELECT name FROM {HISTORY_TABLE} ORDER BY name")  # noqa: S608
    return tuple(str(name) for (name,) in found)


def _refuse_newer(applied: Sequence[str], path: Path) -> None:
    known = known_migrations()
    newer = sorted(set(applied) - set(known))
    if newer:
        raise StoreError(
            f"{path} was written by a newer version of the agent (it has {_printable(newer[-1])}, "
            f"this version knows up to {known[-1]}).",
            f"Install that version again, or keep the file and begin a new one: "
            f"sudo mv {path} {path}.newer",
        )


def _migrate(database: peewee.SqliteDatabase, applied: Sequence[str]) -> None:
    if applied != known_migrations():
        # Imported for this alone: it is half a megabyte that a run without it goes without.
        runner = memory_tuning.migrations().Runner
        runner(database, directory=str(MIGRATIONS), table_name=HISTORY_TABLE).up()
        if missing := _missing(database):
            raise DamagedError(f"{missing} is missing")


def _printable(name: str) -> str:
    return re.sub(r"[^\w.-]", "?", name)[:64]


def _missing(database: peewee.SqliteDatabase) -> str:
    """The first table or column that the schema's version promises and the file has not."""
    tables = {table_name(model): ("id", *columns(model)) for model in ALL_TABLES}
    for name, wanted in {**tables, **promised()}.items():
        found = {row[1] for row in rows(database, f'PRAGMA table_info("{name}")')}
        for column in wanted:
            if column not in found:
                return f"{name}.{column}"
    return ""


def _enter_wal(database: peewee.SqliteDatabase, path: Path) -> Guard | None:
    """Turns the closed file into one with a log; `database` has to be closed right after.

    SQLite would change the header first and make the side files at the next statement. A read-only
    reader that came between found a log announced and none there («unable to open database file»).
    So the side files are made before, under an exclusive lock that no reader gets past.
    """
    database.pragma("busy_timeout", int(_ENTER_WAL_S * 1000))
    database.pragma("locking_mode", "EXCLUSIVE")
    database.pragma("journal_mode", "MEMORY")
    connection = plain_connection(database)
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("COMMIT")
    guard = None
    try:
        for suffix in ("-wal", "-shm"):
            files.side_file(path, suffix).unlink(missing_ok=True)
            files.create_file(files.side_file(path, suffix))
        guard = Guard.of_existing(path)
        database.pragma("journal_mode", "WAL")
    except BaseException:
        files.remove_unused_log(path)
        if guard is not None:
            guard.close()
        raise
    return guard


def _check(database: peewee.SqliteDatabase, applied: Sequence[str], path: Path) -> None:
    """Raises DamagedError where the file is not sound, as far as a quick look tells.

    Nothing is written before it, so that what is quarantined is what was found.
    """
    if path.lstat().st_size <= FULL_CHECK_BYTES:
        check_pages(database)
    if applied != known_migrations():
        return
    if missing := _missing(database):
        raise DamagedError(f"{missing} is missing")
    for model in ALL_TABLES:
        name = table_name(model)
        for order in ("", " DESC"):
            rows(database, f'SELECT * FROM "{name}" ORDER BY timestamp{order} LIMIT 1')  # noqa: S608


def check_pages(database: peewee.SqliteDatabase) -> None:
    """Reads every page. Raises DamagedError with SQLite's first finding."""
    findings = rows(database, "PRAGMA quick_check(1)")
    if findings != [("ok",)]:
        raise DamagedError(str(findings[0][0]) if findings else "no answer")


@contextmanager
def transaction(database: peewee.SqliteDatabase) -> Iterator[sqlite3.Connection]:
    """The plain connection inside a transaction that is written whole or not at all."""
    connection = plain_connection(database)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # After a full disk SQLite may have rolled back by itself.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def leave(database: peewee.SqliteDatabase, path: Path, *, wait: bool) -> bool:
    """Closes, with one plain file left behind. False where readers or the disk kept the log."""
    deadline = time.monotonic() + (_LEAVE_WAL_S if wait else 0)
    left, failure = False, ""
    while True:
        try:
            left = _try_leave_wal(database)
        except StorageError as error:
            failure = str(error)
        if left or failure or time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    if failure:
        # By now SQLite has let go of the log, which stays, but not of its lock.
        log.warning("database=log-kept cause=%s", failure)
    if left or failure:
        close(database)
    else:
        _close_keeping_log(database, path)
    return left


def _close_keeping_log(database: peewee.SqliteDatabase, path: Path) -> None:
    """Closes as a kill would: the header says that there is a log, so there has to be one.

    SQLite's last connection to close removes the log. Here that is one that cannot write, and so
    cannot remove anything either.
    """
    keeper: peewee.SqliteDatabase | None = None
    with suppress(*StorageError):
        keeper = connect_to_read(path)
        plain_connection(keeper).execute("BEGIN")
        rows(keeper, "SELECT count(*) FROM sqlite_master")
    close(database)
    close(keeper)


def _try_leave_wal(database: peewee.SqliteDatabase) -> bool:
    """Brings the log into the file and its header back to «no log», all of it or nothing.

    Exclusive, because SQLite otherwise lets readers in between the two steps: they find a log
    announced and none there, and one of them may keep the second step from being done. MEMORY,
    because a journal on disk left by a kill at that moment would stop every reader too; what
    changes lies within one sector, which is written whole or not at all. For whoever opens the file
    next the mode is DELETE. False where a reader is in the way.
    """
    database.pragma("busy_timeout", 100)
    database.pragma("locking_mode", "EXCLUSIVE")
    try:
        return bool(database.pragma("journal_mode", "MEMORY") == "memory")
    except StorageError as error:
        if sqlite_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        return False
    finally:
        database.pragma("locking_mode", "NORMAL")
