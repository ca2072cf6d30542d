"""The outbox's tables: written with whatever is written next, read once at a start.

What is not in a tick's transaction may be sent twice after a kill, with the same id, and never not
at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec
import peewee

from agent.model.notification import Message, Pending
from agent.policy.outbox import OutboxState
from agent.store import database as sqlite

TABLES = ("outbox", "alerts", "outbox_dropped")


class OutboxRows:
    """Writes the state whole, and only where it is another than what is there."""

    def __init__(self, state: Callable[[], OutboxState]) -> None:
        self._state = state
        self._written: OutboxState | None = None
        self._taken: OutboxState | None = None

    def write(self, connection: sqlite3.Connection) -> None:
        """Within the transaction of a write. Raises sqlite3's errors."""
        state = self._state()
        self._taken = state
        if state == self._written and _count(connection) == len(state.pending):
            return
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
        connection.executemany(
            "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    one.receiver,
                    one.message.id,
                    one.message.alert.key,
                    str(one.message.state),
                    one.message.created_ms,
                    one.next_ms,
                    one.attempts,
                    one.delivered,
                    _text(one.message),
                )
                for one in state.pending
            ],
        )
        connection.executemany(
            "INSERT INTO alerts VALUES (?, ?)",
            [(key, _text(message)) for key, message in state.active.items()],
        )
        connection.executemany(
            "INSERT INTO outbox_dropped VALUES (?, ?)", list(state.dropped.items())
        )

    def written(self) -> None:
        """The transaction is committed."""
        self._written = self._taken


def read(database: peewee.SqliteDatabase) -> OutboxState:
    """What is there; a row that is none of ours is left out. Raises what peewee and sqlite3 do."""
    if not database.table_exists("outbox"):
        return OutboxState()
    pending = []
    for receiver, next_ms, attempts, delivered, payload in sqlite.rows(
        database,
        "SELECT receiver, next_ms, attempts, delivered, payload FROM outbox ORDER BY rowid",
    ):
        message = _message(payload)
        if message is not None:
            pending.append(Pending(message, receiver, attempts, next_ms, bool(delivered)))
    active = {}
    for key, payload in sqlite.rows(database, "SELECT dedup_key, payload FROM alerts"):
        message = _message(payload)
        if message is not None:
            active[key] = message
    dropped = dict(sqlite.rows(database, "SELECT receiver, count FROM outbox_dropped"))
    return OutboxState(active, tuple(pending), dropped)


def _count(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
    return int(count)


def _text(message: Message) -> str:
    return msgspec.json.encode(message).decode("utf-8")


def _message(payload: object) -> Message | None:
    if not isinstance(payload, str):
        return None
    try:
        return msgspec.json.decode(payload, type=Message)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
