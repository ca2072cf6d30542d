"""A connection that reads the history, and nothing of what a writer needs.

A flush to a centre is a process of its own each time: what it does not import it does not pay for.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import peewee

from agent.store.failures import StorageError

BUSY_TIMEOUT_S = 5.0


def connect_to_read(path: Path) -> peewee.SqliteDatabase:
    """A connection that cannot write; works beside a running agent and after it."""
    database = peewee.SqliteDatabase(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        thread_safe=False,
        check_same_thread=False,
    )
    database.connect()
    return database


def close(database: peewee.SqliteDatabase | None) -> None:
    """Closes without a word: what could fail here was told before."""
    if database is not None:
        with suppress(*StorageError):
            database.close()


def plain_connection(database: peewee.SqliteDatabase) -> sqlite3.Connection:
    untyped: Any = database
    connection: sqlite3.Connection = untyped.connection()
    return connection
