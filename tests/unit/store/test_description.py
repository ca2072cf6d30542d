"""A table is described once: its row, its statement and its query follow, by name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import peewee
import pytest

from agent.model.container import ContainerTotals
from agent.store import tables
from agent.store.description import Columns, Stored, columns, fields, model_of, values_of
from agent.store.inserts import insert_many
from agent.store.tables import ALL_TABLES, ContainerRow, ContainerTotal
from tests.unit.store.builders import open_store, totals

_total: Columns[ContainerTotals] = Columns()


@dataclass(frozen=True, slots=True)
class WithOneMore(ContainerRow):
    """`container_totals` as a version with one more column has it."""

    age_s: int | None = _total(lambda one: 7 if one.governed else None, "age")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[peewee.SqliteDatabase]:
    path = tmp_path / "metrics.db"
    open_store(path).close()
    database = peewee.SqliteDatabase(str(path))
    yield database
    database.close()


def test_a_new_column_is_one_line_for_the_row_the_statement_and_the_query(
    database: peewee.SqliteDatabase,
) -> None:
    # First in the table and last in the class: nothing goes by position.
    database.execute_sql("ALTER TABLE container_totals RENAME TO old")
    database.execute_sql("CREATE TABLE container_totals AS SELECT NULL AS age, * FROM old")
    model = model_of(WithOneMore, "container_totals")

    connection: sqlite3.Connection = database.connection()
    insert_many(connection, model, values_of(model, repeat(5), [totals(held_kb=2048)]))
    (row,) = model.select(*fields(model)).dicts().execute(database)

    found = WithOneMore(**row)
    assert (found.timestamp_ms, found.held_mb, found.age_s) == (5, 2.0, 7)
    assert connection.execute(
        "SELECT age, held_mb, cpu_usage FROM container_totals"
    ).fetchall() == [(7, 2.0, 12.346)]


def test_a_column_is_called_in_the_database_what_its_line_says() -> None:
    assert columns(ContainerTotal)[:4] == ("timestamp", "container_id", "container_name", "image")
    assert {"cpu_usage", "cpu_short_lived", "cpu_unexplained"} < set(columns(ContainerTotal))
    assert not {"cpu_percent", "cpu_short_lived_percent"} & set(columns(ContainerTotal))


def test_no_two_columns_of_a_table_have_one_name() -> None:
    for model in ALL_TABLES:
        assert len(set(columns(model))) == len(columns(model))


def test_every_description_has_a_table() -> None:
    described = {
        one
        for one in vars(tables).values()
        if isinstance(one, type) and issubclass(one, Stored) and one is not Stored
    }
    assert {one.__name__ for one in described} == {model.__name__ for model in ALL_TABLES}
