"""What the budgets remember, and each change between armed and disarmed as a row.

Written with whatever is written next, like the outbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec
import peewee

from agent.model.proof import ArmingWord, ProofState
from agent.store import database as sqlite
from agent.store.values import clean

TABLES = ("proof_state", "policy_arming")
_MOST_ROWS = 1000


class ProofRows:
    """Writes the state, and a row where armed or its reason changed."""

    def __init__(self, now: Callable[[], tuple[ProofState, ArmingWord]]) -> None:
        self._now = now

    def write(self, connection: sqlite3.Connection) -> None:
        """Within the transaction of a write. Raises sqlite3's errors."""
        state, word = self._now()
        connection.execute(
            "INSERT OR REPLACE INTO proof_state VALUES ('state', ?)",
            (msgspec.json.encode(state).decode("utf-8"),),
        )
        last = connection.execute(
            "SELECT armed, timestamp FROM policy_arming ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if last is None and word.armed:
            return
        if last is None or (bool(last[0]), last[1]) != (word.armed, word.since_ms):
            connection.execute(
                "INSERT INTO policy_arming (timestamp, armed, why) VALUES (?, ?, ?)",
                (word.since_ms, word.armed, clean(word.why)),
            )
            connection.execute(
                "DELETE FROM policy_arming WHERE id <= (SELECT max(id) FROM policy_arming) - ?",
                (_MOST_ROWS,),
            )

    def written(self) -> None:
        """Nothing is kept back here."""


def read(database: peewee.SqliteDatabase) -> ProofState:
    """The state that was left, a new one where there is none. Raises what peewee and sqlite3 do."""
    if not database.table_exists("proof_state"):
        return ProofState()
    found = sqlite.rows(database, "SELECT payload FROM proof_state WHERE name = 'state'")
    try:
        return msgspec.json.decode(found[0][0], type=ProofState) if found else ProofState()
    except (msgspec.MsgspecError, TypeError):
        return ProofState()


def last_word(database: peewee.SqliteDatabase) -> ArmingWord:
    """As of the newest row: armed where nothing ever changed, or the history is older than this."""
    if not database.table_exists("policy_arming"):
        return ArmingWord(armed=True)
    found = sqlite.rows(
        database, "SELECT armed, timestamp, why FROM policy_arming ORDER BY id DESC LIMIT 1"
    )
    return ArmingWord(bool(found[0][0]), *found[0][1:]) if found else ArmingWord(armed=True)
