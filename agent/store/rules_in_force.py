"""By which rules decisions were made, and from when on: a row for each change.

Written with whatever is written next, like the outbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec
import peewee

from agent.config import PolicySettings
from agent.policy.original import RulesInForce
from agent.store import database as sqlite

TABLE = "policy_rules"
_MOST_ROWS = 1000


class RuleRows:
    """Writes a row where the rules are others than those of the newest row."""

    def __init__(self, now: Callable[[], RulesInForce]) -> None:
        self._now = now

    def write(self, connection: sqlite3.Connection) -> None:
        """Within the transaction of a write. Raises sqlite3's errors."""
        since_ms, settings = self._now()
        text = msgspec.json.encode(settings).decode("utf-8")
        last = connection.execute(f"{_NEWEST} LIMIT 1").fetchone()
        if last is not None and last[1] == text:
            return
        connection.execute(
            f"INSERT INTO {TABLE} (timestamp, rules) VALUES (?, ?)",  # noqa: S608
            (since_ms, text),
        )
        connection.execute(
            f"DELETE FROM {TABLE} WHERE id <= (SELECT max(id) FROM {TABLE}) - ?",  # noqa: S608
            (_MOST_ROWS,),
        )

    def written(self) -> None:
        """Nothing is kept back here."""


def read(database: peewee.SqliteDatabase, to_ms: int) -> tuple[RulesInForce, ...]:
    """Those of up to a moment, the oldest first; none of before they were stored. One that only a
    later version understands ends what is known before it. Raises what peewee and sqlite3 do."""
    if not database.table_exists(TABLE):
        return ()
    found = []
    for at_ms, text in sqlite.rows(database, _NEWEST):
        if at_ms > to_ms:
            continue
        try:
            found.append(RulesInForce(at_ms, msgspec.json.decode(text, type=PolicySettings)))
        except (msgspec.MsgspecError, TypeError, ValueError):
            break
    return tuple(reversed(found))


_NEWEST = f"SELECT timestamp, rules FROM {TABLE} ORDER BY id DESC"  # noqa: S608
