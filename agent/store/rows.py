"""One tick as rows: which of its values each table stores a row of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from agent.store.tables import (
    AttributionCheck,
    CommandOf,
    ContainerStats,
    ContainerTotal,
    DeletionRow,
    HostSampleRow,
    Metrics,
    PassContainerRow,
    PassedRemoval,
    ProcessStats,
    Row,
    SampleOf,
    ShortLivedRow,
    values_of,
)

if TYPE_CHECKING:
    from agent.model.host_pass import HostPass
    from agent.model.record import TickRecord
    from agent.model.removal import RemovalPass

Values = tuple[Any, ...]


def of_tick(record: TickRecord, timestamp_ms: int) -> Iterator[tuple[type[Row], Iterator[Values]]]:
    """Each table that a tick writes to, and its rows. Removals are apart: `of_passes`."""
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
