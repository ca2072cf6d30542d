"""What people ask of the history: the last tick, the last removals, who uses most.

Every answer comes over a read-only connection, beside a running agent or after it, and never from
the writer's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee

from agent.errors import StoreError
from agent.store import database as sqlite
from agent.store.tables import DeletionRow


@dataclass(frozen=True, slots=True)
class Deletion:
    """One removal, as stored."""

    timestamp_ms: int
    decision: str
    container_id: str
    container_name: str
    image: str
    tier: str
    rank: int
    reason: str
    held_mb: float
    cpu_percent: float
    outcome: str
    duration_ms: int
    error: str
    available_before_mb: float
    available_after_mb: float


@contextmanager
def _reading(path: Path) -> Iterator[peewee.SqliteDatabase]:
    try:
        database = sqlite.connect_to_read(path)
        try:
            yield database
        finally:
            database.close()
    except sqlite.StorageError as error:
        raise StoreError(
            f"The history {path} cannot be read: {error}.", "Read it as root, or as its group."
        ) from error


def _rows(query: Any, database: peewee.SqliteDatabase) -> list[tuple[Any, ...]]:
    return list(query.tuples().execute(database))


def last_deletions(path: Path, count: int) -> tuple[Deletion, ...]:
    """The newest `count` removals, newest first; none where there is no database.

    Raises StoreError where it cannot be read.
    """
    if not path.exists():
        return ()
    fields = [field for field in DeletionRow._meta.sorted_fields if field.name != "id"]  # noqa: SLF001
    query = DeletionRow.select(*fields).order_by(
        DeletionRow.timestamp.desc(), DeletionRow.id.desc()
    )
    with _reading(path) as database:
        return tuple(Deletion(*row) for row in _rows(query.limit(count), database))
