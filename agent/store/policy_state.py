"""What the rules remember, stored whole with each tick and read at the next start.

Its times are of the boot clock, so rows of another boot are nobody's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import peewee

from agent.model.container import ContainerKey
from agent.model.policy_state import PolicyState, StateKind
from agent.store import database as sqlite

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_COLUMNS = "kind, name, engine, container_id, since_ns, seen_ns, stages, value"


def boot_id(path: Path = _BOOT_ID) -> str:
    """This boot's id, "" where the kernel tells none: then nothing is taken up."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def write(connection: sqlite3.Connection, states: Sequence[PolicyState] | None) -> None:
    """Puts all of them in the place of those before; None leaves those."""
    if states is None:
        return
    boot = boot_id()
    connection.execute("DELETE FROM policy_state")
    connection.executemany(
        f"INSERT INTO policy_state (boot_id, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        [
            (
                boot,
                str(one.kind),
                one.name,
                one.container.engine,
                one.container.id,
                one.since_ns,
                one.seen_ns,
                one.stages,
                one.value,
            )
            for one in states
        ],
    )


def read(database: peewee.SqliteDatabase) -> tuple[PolicyState, ...]:
    """The rows of this boot; none where the history is of before the rules. A row that is none of
    ours is left out. Raises what peewee and sqlite3 raise."""
    if not database.table_exists("policy_state"):
        return ()
    found = []
    for kind, *texts, since, seen, stages, value in sqlite.rows(database, _QUERY, (boot_id(),)):
        numbers = (since, seen, stages)
        is_ours = kind in StateKind.__members__.values() and all(
            isinstance(n, int) for n in numbers
        )
        if is_ours and all(isinstance(text, str) for text in (*texts, value)):
            name, engine, container_id = texts
            found.append(
                PolicyState(
                    StateKind(kind), name, ContainerKey(engine, container_id), *numbers, value
                )
            )
    return tuple(found)


_QUERY = f"SELECT {_COLUMNS} FROM policy_state WHERE boot_id = ? AND boot_id <> ''"  # noqa: S608
