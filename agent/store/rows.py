"""One tick as rows: which of its values each table stores a row of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any

from agent.store import database as sqlite
from agent.store.tables import (
    ALL_TABLES,
    AttributionCheck,
    CommandOf,
    ContainerStats,
    ContainerTotal,
    DeletionRow,
    EndedRow,
    HostSampleRow,
    Metrics,
    OomKillRow,
    PassContainerRow,
    PassedRemoval,
    ProcessStats,
    Row,
    SampleOf,
    ShortLivedRow,
    table_name,
    values_of,
)

if TYPE_CHECKING:
    import sqlite3

    import peewee

    from agent.model.host_pass import HostPass
    from agent.model.record import TickRecord
    from agent.model.removal import RemovalPass

Values = tuple[Any, ...]


def of_tick(record: TickRecord, timestamp_ms: int) -> Iterator[tuple[type[Row], Iterator[Values]]]:
    """Each table that a tick writes to, and its rows. Removals are apart: `of_passes`.

    What has a moment of its own is stored under that.
    """
    sources: tuple[tuple[type[Row], Collection[Any]], ...] = (
        (Metrics, (record,)),
        (ContainerStats, record.container_processes),
        (ProcessStats, record.processes),
        (ContainerTotal, record.totals),
        (ShortLivedRow, _commands(record)),
        (AttributionCheck, (record.checks,)),
    )
    for model, rows in sources:
        yield model, values_of(model, repeat(timestamp_ms), rows)
    for model, found in ((OomKillRow, record.oom_kills), (EndedRow, record.ended)):
        at_ms = [min(one.wall_ns // 10**6, timestamp_ms) for one in found]
        yield model, values_of(model, _rising(at_ms), found)


def _rising(timestamps_ms: Sequence[int]) -> list[int]:
    """As they are, but none before the one in front of it: a cursor goes by both order and time."""
    return list(accumulate(timestamps_ms, max))


def of_host_pass(one: HostPass, timestamp_ms: int) -> Iterator[tuple[type[Row], Iterator[Values]]]:
    """What a pass for the host's sake rested on."""
    samples = [SampleOf(sample, one) for sample in one.samples]
    yield HostSampleRow, values_of(HostSampleRow, repeat(timestamp_ms), samples)
    yield PassContainerRow, values_of(PassContainerRow, repeat(timestamp_ms), one.containers)


def _commands(record: TickRecord) -> list[CommandOf]:
    return [
        CommandOf(command, totals) for totals in record.totals for command in totals.short_lived
    ]


def of_passes(passes: Sequence[tuple[int, RemovalPass]]) -> Iterator[Values]:
    """Rows of `deletions`, from passes each with the timestamp it is stored under."""
    removals = [
        (timestamp_ms, PassedRemoval(removal, one))
        for timestamp_ms, one in passes
        for removal in one.removals
    ]
    return values_of(
        DeletionRow, [timestamp_ms for timestamp_ms, _ in removals], [one for _, one in removals]
    )


def count_removals(connection: sqlite3.Connection, removals: int) -> None:
    """The newest tick counts so many removals more. Raises sqlite3's errors."""
    if removals:
        connection.execute(
            "UPDATE metrics SET deleted_count = deleted_count + ?"
            " WHERE id = (SELECT max(id) FROM metrics)",
            (removals,),
        )


def newest_ms(database: peewee.SqliteDatabase) -> int:
    """The newest timestamp of all tables, 0 without any. Raises what peewee and sqlite3 do."""
    newest = 0
    for model in ALL_TABLES:
        query = f'SELECT max(timestamp) FROM "{table_name(model)}"'  # noqa: S608
        newest = max(newest, sqlite.rows(database, query)[0][0] or 0)
    return newest
