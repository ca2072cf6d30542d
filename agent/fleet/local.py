"""This host's side: the history as it is to be shipped, and what is known to be shipped.

The history is read and never written. What was shipped is one small file beside it, replaced whole:
the centre's cursors are the truth, and the file tells where a fork left them.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from agent.errors import AgentError
from agent.fleet.errors import FleetError
from agent.fleet.streams import Stream
from agent.store import failures
from agent.store import reading as sqlite
from agent.util import files

_JOINED = {"c": "rollup_containers", "n": "rollup_names"}

FILE_NAME = "fleet.json"
LOCK_NAME = "fleet.lock"


class Cursor(msgspec.Struct, frozen=True):
    """The last row of a stream that is at the centre; 0 for none."""

    id: int = 0
    timestamp: int = 0


class ShippingState(msgspec.Struct, frozen=True, kw_only=True):
    """What the last flushes did."""

    epoch: str = ""
    """A random UUID, "" before the first flush."""
    cursors: dict[str, Cursor] = {}
    """By stream, as the centre confirmed them."""
    tried_ms: int = 0
    shipped_ms: int = 0
    """When everything that was there had been shipped."""
    rows: int = 0
    """Shipped by the last flush."""
    safe_before_ms: int = 0
    """Every row with a timestamp below is at the centre; retention waits there."""
    problem: str = ""
    """Why the last flush failed, "" where it did not."""

    def cursor(self, stream: str) -> Cursor:
        return self.cursors.get(stream, Cursor())


def new_epoch() -> str:
    return str(uuid.uuid4())


def read_state(directory: Path) -> ShippingState:
    """The state kept in `directory`, an empty one where there is none or only noise."""
    try:
        return msgspec.json.decode((directory / FILE_NAME).read_bytes(), type=ShippingState)
    except FileNotFoundError:
        return ShippingState()
    except msgspec.DecodeError:
        # As after a power cut on some file systems. The centre knows the cursors.
        return ShippingState()
    except OSError as error:
        raise FleetError(
            f"{directory / FILE_NAME} cannot be read: {error.strerror}.", "Run it as root."
        ) from error


def write_state(directory: Path, state: ShippingState) -> None:
    """Replaces the file whole, durably. Raises FleetError."""
    try:
        files.replace(
            directory / FILE_NAME, msgspec.json.encode(state) + b"\n", 0o640, durable=True
        )
    except OSError as error:
        raise FleetError(
            f"{directory / FILE_NAME} cannot be written: {error.strerror}.",
            "See the directory's mode and the room on its disk (df).",
        ) from error


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """No other flush of this host runs in the block. Raises FleetError where one does."""
    path = directory / LOCK_NAME
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise FleetError(
            f"{path} cannot be made: {error.strerror}.", "See the directory's mode and its disk."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise FleetError("A flush of this host is under way.", "Wait for it to end.") from None
    finally:
        os.close(descriptor)


class Queue:
    """The history's rows that are still to go. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises FleetError where the history cannot be read."""
        self._path = path
        if not path.exists():
            raise FleetError(f"There is no history at {path} yet.", "Start the agent once.")
        try:
            self._database = sqlite.connect_to_read(path)
            self._connection = sqlite.plain_connection(self._database)
            self._columns = self._find_columns()
        except failures.StorageError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sqlite.close(self._database)

    def has(self, stream: Stream) -> bool:
        """Whether this host's history has the stream's table; an older agent's may not."""
        return stream.table in self._columns

    def following(self, stream: Stream, cursor: Cursor, limit: int) -> list[tuple[Any, ...]]:
        """The next rows after `cursor`: id, timestamp, and the stream's columns."""
        if not self.has(stream):
            return []
        statement = stream.select(self._present(stream))
        return self._rows(statement, (cursor.id, limit))

    def holds(self, stream: Stream, cursor: Cursor) -> bool:
        """Whether `cursor` may be a row of this very history, as far as it can be told.

        A row that retention has deleted is taken for ours if ids have gone beyond it.
        """
        if cursor.id == 0:
            return True
        if not self.has(stream):
            return False
        found = self._rows(
            f"SELECT timestamp FROM {stream.table} WHERE id = ?",  # noqa: S608 - constants
            (cursor.id,),
        )
        if found:
            return bool(found[0][0] == cursor.timestamp)
        oldest = self._rows(
            f"SELECT id, timestamp FROM {stream.table} ORDER BY id LIMIT 1",  # noqa: S608
            (),
        )
        if oldest and oldest[0][0] < cursor.id:
            # Older rows are there, so this one was never: ids rise without a hole.
            return False
        if oldest and oldest[0][1] < cursor.timestamp:
            return False
        return self._highest_id(stream) >= cursor.id

    def at_or_below(self, stream: Stream, row_id: int) -> Cursor | None:
        """The row with this id, or the next one below it that is there."""
        found = self._rows(
            f"SELECT id, timestamp FROM {stream.table} WHERE id <= ?"  # noqa: S608 - constants
            " ORDER BY id DESC LIMIT 1",
            (row_id,),
        )
        return Cursor(*found[0]) if found else None

    def waiting(self, stream: Stream, cursor: Cursor) -> tuple[int, int]:
        """How many rows are to go, and the oldest one's timestamp (0 for none)."""
        if not self.has(stream):
            return 0, 0
        (row,) = self._rows(
            f"SELECT count(*), coalesce(min(timestamp), 0) FROM {stream.table}"  # noqa: S608
            " WHERE id > ?",
            (cursor.id,),
        )
        return int(row[0]), int(row[1])

    def _highest_id(self, stream: Stream) -> int:
        found = self._rows("SELECT seq FROM sqlite_sequence WHERE name = ?", (stream.table,))
        return int(found[0][0]) if found else 0

    def _present(self, stream: Stream) -> frozenset[str]:
        """Its table's columns, and those of the tables that it joins, as its sources name them."""
        joined = {
            f"{alias}.{column}"
            for alias, table in _JOINED.items()
            if f" {table} {alias} " in stream.joins
            for column in self._columns.get(table, ())
        }
        return self._columns[stream.table] | joined

    def _find_columns(self) -> Mapping[str, frozenset[str]]:
        tables = [
            str(name)
            for (name,) in self._connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
        ]
        return {
            name: frozenset(
                str(row[1]) for row in self._connection.execute(f'PRAGMA table_info("{name}")')
            )
            for name in tables
        }

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, *failures.StorageError) as error:
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> AgentError:
        told = failures.explain(error, self._path)
        return FleetError(told.message, told.hint)
