"""One tick as rows: which of its values each table stores a row of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any

from agent.store.tables import (
    AttributionCheck,
    CommandOf,
    ContainerStats,
    ContainerTotal,
    DeletionRow,
    EndedRow,
    Metrics,
    OomKillRow,
    PassedRemoval,
    ProcessStats,
    Row,
    ShortLivedRow,
    values_of,
)

if TYPE_CHECKING:
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
