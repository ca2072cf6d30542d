"""How one table is described: a class whose attributes are its columns.

An attribute's name and type are what a reader gets, the function beside it gives what is stored of
a source, and the name in the database is the attribute's own unless another is written there. The
peewee model, the statement that inserts and the query that reads all follow from this one class, by
name. So a new column is one line, and a migration that adds it to older databases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, get_args, get_type_hints

from peewee import AutoField, BigIntegerField, BooleanField, Field, FloatField, Model, TextField

S = TypeVar("S")
T = TypeVar("T")

_KINDS: dict[type, type[Field]] = {
    bool: BooleanField,
    int: BigIntegerField,
    float: FloatField,
    str: TextField,
}


class Row(Model):
    """What every table has: a number that rises, and the wall clock in Unix milliseconds.

    Models are bound to no database: every query names the one it runs on (`query.execute(…)`).
    """

    id = AutoField()
    timestamp_ms = BigIntegerField(column_name="timestamp")


@dataclass(frozen=True, slots=True)
class Stored:
    """What the description of every table begins with."""

    timestamp_ms: int


class Columns(Generic[S]):
    """Makes the columns of a table that stores one row for each source of type `S`."""

    def __call__(self, value: Callable[[S], T], name: str = "") -> T:
        """A column that stores `value` of the source, in the database called `name`."""
        return cast(T, dataclasses.field(metadata={"value": value, "name": name}))


def model_of(described: type[Stored], table: str) -> Any:
    """The peewee model of a described table."""
    types = get_type_hints(described)
    made: dict[str, Any] = {"__doc__": described.__doc__}
    for one in dataclasses.fields(described):
        if one.metadata:
            kinds = get_args(types[one.name]) or (types[one.name],)
            made[one.name] = _KINDS[kinds[0]](
                null=type(None) in kinds, column_name=one.metadata["name"] or one.name
            )
    made["Meta"] = type("Meta", (), {"table_name": table})
    model = type(described.__name__, (Row,), made)
    _DESCRIBED[model] = described
    return model


_DESCRIBED: dict[type[Row], type[Stored]] = {}


def values_of(
    model: type[Row], timestamps_ms: Iterable[int], sources: Collection[Any]
) -> Iterator[tuple[Any, ...]]:
    """What a row of each source stores, in the order of `columns`.

    Column by column: with thousands of sources that is quicker than row by row.
    """
    described = dataclasses.fields(_DESCRIBED[model])
    return zip(
        timestamps_ms,
        *(map(one.metadata["value"], sources) for one in described if one.metadata),
        strict=False,
    )


def table_name(model: type[Row]) -> str:
    return str(model._meta.table_name)  # noqa: SLF001 # peewee's way


def fields(model: type[Row]) -> tuple[Any, ...]:
    """Its fields in the order of the columns, without `id`."""
    return tuple(one for one in model._meta.sorted_fields if one.name != "id")  # noqa: SLF001


def columns(model: type[Row]) -> tuple[str, ...]:
    """Its columns in the database in order, without `id`."""
    return tuple(str(one.column_name) for one in fields(model))
