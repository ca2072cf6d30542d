"""Rows into a table, fifty a statement.

Each run of a statement has a cost of its own, so rows that share one take half the time of rows
that each have theirs. peewee's `insert_many` builds its statement again at every call, which costs
more than the inserting.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import cache
from itertools import chain, islice
from typing import Any

from agent.store.description import Row, columns, table_name

_BATCH_ROWS = 50
"""SQLite before 3.32 takes 999 values in a statement (SQLITE_MAX_VARIABLE_NUMBER)."""


@cache
def _statement(model: type[Row], count: int) -> str:
    names = columns(model)
    marks = f"({', '.join('?' * len(names))})"
    return (
        f'INSERT INTO "{table_name(model)}" ({", ".join(names)}) '  # noqa: S608
        f"VALUES {', '.join([marks] * count)}"
    )


def insert_many(
    connection: sqlite3.Connection, model: type[Row], values: Iterable[tuple[Any, ...]]
) -> None:
    """Inserts rows, each of one value a column without `id`. Raises sqlite3's errors."""
    rest = iter(values)
    many = _statement(model, _BATCH_ROWS)
    while len(batch := list(islice(rest, _BATCH_ROWS))) == _BATCH_ROWS:
        connection.execute(many, list(chain.from_iterable(batch)))
    connection.executemany(_statement(model, 1), batch)
