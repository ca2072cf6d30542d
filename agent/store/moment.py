"""A reader that sees the history as it was at a moment of the past."""

from __future__ import annotations

import peewee

from agent.store import database as sqlite


def end_at(database: peewee.SqliteDatabase, until_ms: int) -> None:
    """Lets a connection that reads see no row after that moment.

    Views of its own, by the tables' names, are in front of them: every query of this connection
    meets those, and the file is not touched. A bucket counts where it begins by then.
    """
    connection = sqlite.plain_connection(database)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in tables:
        columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
        if any(column[1] == "timestamp" for column in columns):
            rows = f'SELECT * FROM main."{name}" WHERE timestamp <= {int(until_ms)}'  # noqa: S608
            connection.execute(f'CREATE TEMP VIEW "{name}" AS {rows}')
