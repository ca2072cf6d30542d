"""What people ask of the history: the last tick, the last removals, who uses most.

Every answer comes over a read-only connection of its own, beside a running agent or after it. A
caller that asks several things opens one `History`; each answer is whole ticks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

import peewee
from peewee import fn

from agent.errors import StoreError
from agent.model.policy_state import PolicyState
from agent.model.proof import ArmingWord
from agent.model.removal import Outcome
from agent.store import database as sqlite
from agent.store import failures, past, policy_state, proof_state, spans
from agent.store.moment import end_at
from agent.store.rollups import stops_of
from agent.store.spans import SpanFigure
from agent.store.tables import (
    AttributionCheck,
    Checks,
    ContainerProcess,
    ContainerRow,
    ContainerStats,
    ContainerTotal,
    Deletion,
    DeletionRow,
    HostProcess,
    Metrics,
    ProcessStats,
    Row,
    ShortLived,
    ShortLivedRow,
    TickRow,
    fields,
)

__all__ = [
    "By",
    "Checks",
    "ChecksSpan",
    "ContainerProcess",
    "ContainerRow",
    "ContainerSpan",
    "Deletion",
    "History",
    "HostPart",
    "HostProcess",
    "ShortLived",
    "TickRow",
    "last_deletions",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ContainerSpan:
    """One container over a span of ticks."""

    container_id: str
    container_name: str
    image: str
    tier: str
    ticks: int
    """So many ticks it was there."""
    max_held_mb: float
    mean_cpu_percent: float
    """Over the ticks where it was."""
    starts: int | None
    exits: int | None
    oom_kills: int | None
    engine: str
    """Whose id it is."""


@dataclass(frozen=True, slots=True)
class ChecksSpan:
    """The checks of a span of ticks."""

    conflict_ticks: int
    unverified_ticks: int
    most_strayed: int
    most_moved: int
    most_added: int
    events_lost: int
    events_corrected: int | None = None
    """None, as the next two, where buckets of the span are older than these figures in them."""
    events_late: int | None = None
    events_missed: int | None = None


class By(StrEnum):
    """What the greatest are sorted by."""

    RAM = "ram"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class HostPart:
    """The host over a part of a span."""

    part: int
    ticks: int
    psutil_ticks: int
    figures: dict[str, SpanFigure]
    """By their names in `Tick`."""


@dataclass(frozen=True, slots=True)
class _Stop:
    began_ms: int
    ended_ms: int


@dataclass(frozen=True, slots=True)
class _Count:
    outcome: str
    reason: str
    count: int


class History:
    """The stored history, opened to read.

    `with History.open(path) as history:`; its methods raise StoreError where it cannot be read.
    """

    def __init__(self, database: peewee.SqliteDatabase, path: Path) -> None:
        self._database = database
        self._path = path

    @classmethod
    def open(cls, path: Path, until_ms: int | None = None) -> Self:
        """Raises StoreError where there is no database, or it cannot be read.

        With `until_ms` every answer is as it would have been at that moment.
        """
        if not _is_there(path):
            raise StoreError(
                f"There is no history at {path} yet.", "Start the agent: sudo agent start"
            )
        with _explained(path):
            database = sqlite.connect_to_read(path)
            if until_ms is not None:
                end_at(database, until_ms)
            return cls(database, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        sqlite.close(self._database)

    def arming(self) -> ArmingWord:
        """Whether the policy acts, as of the newest row."""
        with _explained(self._path):
            return proof_state.last_word(self._database)

    def last_tick(self) -> TickRow | None:
        """The newest tick, None where none is stored."""
        return next(iter(self._all(TickRow, _newest_first(Metrics).limit(1))), None)

    def ticks_since(self, timestamp_ms: int, limit: int = 100_000) -> tuple[TickRow, ...]:
        """Ticks at or after `timestamp_ms`, the newest `limit` of them, oldest first."""
        newest = _newest_first(Metrics).where(Metrics.timestamp_ms >= timestamp_ms).limit(limit)
        return self._all(TickRow, newest)[::-1]

    def checks_at(self, timestamp_ms: int) -> Checks | None:
        """How the witnesses agreed in the tick of `timestamp_ms`, None without such a tick."""
        return next(iter(self._all(Checks, _at(AttributionCheck, timestamp_ms))), None)

    def checks_since(self, timestamp_ms: int, limit: int = 100_000) -> tuple[Checks, ...]:
        """The checks of `ticks_since`."""
        query = _newest_first(AttributionCheck).where(AttributionCheck.timestamp_ms >= timestamp_ms)
        return self._all(Checks, query.limit(limit))[::-1]

    def checks_over(self, timestamp_ms: int) -> ChecksSpan:
        """The checks at or after `timestamp_ms` together; zeros without any."""
        row = AttributionCheck
        figures = {
            "conflict_ticks": fn.SUM(row.conflict > 0),
            "unverified_ticks": fn.SUM(row.unverified > 0),
            "most_strayed": fn.MAX(row.strayed),
            "most_moved": fn.MAX(row.moved),
            "most_added": fn.MAX(row.added),
            "events_lost": fn.SUM(row.events_lost),
            "events_corrected": fn.SUM(row.events_corrected),
            "events_late": fn.SUM(row.events_late),
            "events_missed": fn.SUM(row.events_missed),
        }
        query: Any = row.select(
            *(fn.COALESCE(figure, 0).alias(name) for name, figure in figures.items())
        )
        return self._all(ChecksSpan, query.where(row.timestamp_ms >= timestamp_ms))[0]

    def short_lived_at(self, timestamp_ms: int) -> tuple[ShortLived, ...]:
        """What containers ran unseen in the tick of `timestamp_ms`, those that cost most first."""
        query = _at(ShortLivedRow, timestamp_ms)
        return self._all(ShortLived, query.order_by(ShortLivedRow.cpu_ms.desc(), ShortLivedRow.id))

    def containers_at(self, timestamp_ms: int) -> tuple[ContainerRow, ...]:
        """All containers of that tick, those that hold most first."""
        query = _at(ContainerTotal, timestamp_ms).order_by(
            ContainerTotal.held_mb.desc(), ContainerTotal.container_name
        )
        return self._all(ContainerRow, query)

    def container_since(
        self, container_name: str, timestamp_ms: int, limit: int = 100_000
    ) -> tuple[ContainerRow, ...]:
        """One container's rows at or after `timestamp_ms`, the newest `limit`, oldest first."""
        query = _newest_first(ContainerTotal).where(
            (ContainerTotal.container_name == container_name)
            & (ContainerTotal.timestamp_ms >= timestamp_ms)
        )
        return self._all(ContainerRow, query.limit(limit))[::-1]

    def containers_since(self, timestamp_ms: int) -> tuple[ContainerSpan, ...]:
        """Every container seen at or after `timestamp_ms`, those that held most first."""
        row = ContainerTotal
        most = fn.MAX(row.held_mb)
        query: Any = row.select(
            row.engine,
            row.container_id,
            fn.MAX(row.container_name).alias("container_name"),
            fn.MAX(row.image).alias("image"),
            fn.MAX(row.tier).alias("tier"),
            fn.COUNT(row.id).alias("ticks"),
            most.alias("max_held_mb"),
            fn.AVG(row.cpu_percent).alias("mean_cpu_percent"),
            fn.SUM(row.starts).alias("starts"),
            fn.SUM(row.exits).alias("exits"),
            fn.SUM(row.oom_kills).alias("oom_kills"),
        ).where(row.timestamp_ms >= timestamp_ms)
        query = query.group_by(row.engine, row.container_id)
        query = query.order_by(most.desc(), row.container_id, row.engine)
        return self._all(ContainerSpan, query)

    def container_processes_at(
        self, timestamp_ms: int, container_id: str | None = None
    ) -> tuple[ContainerProcess, ...]:
        """The processes of that tick's containers (or of one, by its short id), largest first."""
        query = _at(ContainerStats, timestamp_ms)
        if container_id is not None:
            query = query.where(ContainerStats.container_id == container_id)
        query = query.order_by(ContainerStats.ram_mb.desc(), ContainerStats.pid)
        return self._all(ContainerProcess, query)

    def top_processes_at(
        self, timestamp_ms: int, count: int, by: By = By.RAM
    ) -> tuple[HostProcess, ...]:
        """The `count` processes of that tick that use most."""
        most = ProcessStats.ram_mb if by is By.RAM else ProcessStats.cpu_percent
        query = _at(ProcessStats, timestamp_ms).order_by(most.desc(), ProcessStats.pid)
        return self._all(HostProcess, query.limit(count))

    def last_deletions(self, count: int) -> tuple[Deletion, ...]:
        """The newest `count` removals, newest first."""
        return self._all(Deletion, _newest_first(DeletionRow).limit(count))

    def deletion_counts_since(self, timestamp_ms: int) -> dict[tuple[str, str], int]:
        """How many removals there were at or after `timestamp_ms`, by outcome and reason."""
        row = DeletionRow
        query: Any = row.select(row.outcome, row.reason, fn.COUNT(row.id).alias("count"))
        query = query.where(row.timestamp_ms >= timestamp_ms).group_by(row.outcome, row.reason)
        counts = self._all(_Count, query)
        return {(one.outcome, one.reason): one.count for one in counts}

    def left_alone_since(self, timestamp_ms: int) -> int:
        """How many of those that are `gone` are there still, at or after `timestamp_ms`."""
        row = DeletionRow
        query: Any = row.select(row.outcome, row.reason, fn.COUNT(row.id).alias("count"))
        query = query.where(
            (row.timestamp_ms >= timestamp_ms) & (row.outcome == Outcome.GONE) & (row.error != "")
        )
        return self._all(_Count, query)[0].count

    def deletions_since(self, timestamp_ms: int, limit: int = 100_000) -> tuple[Deletion, ...]:
        """Removals at or after `timestamp_ms`, the newest `limit`, oldest first."""
        query = _newest_first(DeletionRow).where(DeletionRow.timestamp_ms >= timestamp_ms)
        return self._all(Deletion, query.limit(limit))[::-1]

    def policy_state(self) -> tuple[PolicyState, ...]:
        """What the rules of this boot remember; nothing where an older agent wrote the history."""
        with _explained(self._path):
            return policy_state.read(self._database)

    def past(self, from_ms: int, to_ms: int, *, images: bool) -> Iterator[past.Event]:
        """All of the span in the order of time, one tick's rows at a time, for `policy replay`;
        containers' images where they are asked for."""
        with _explained(self._path):
            yield from past.events(self._database, from_ms, to_ms, images=images)

    def host_over(self, from_ms: int, to_ms: int, step_ms: int) -> tuple[HostPart, ...]:
        """The host from buckets, in parts of `step_ms`; those without ticks are left out."""
        found = []
        for row in self.rows(spans.host(from_ms, to_ms, step_ms)):
            figures = {
                name: SpanFigure(
                    row[f"{name}_known"],
                    row[f"{name}_total"] or 0.0,
                    row[f"{name}_least"],
                    row[f"{name}_most"],
                )
                for name in spans.FIGURES
            }
            found.append(HostPart(row["part"], row["ticks"], row["psutil_ticks"], figures))
        return tuple(found)

    def containers_over(self, from_ms: int, to_ms: int) -> tuple[ContainerSpan, ...]:
        """As `containers_since`, from buckets: of those that were among the largest of one."""
        return tuple(ContainerSpan(**row) for row in self.rows(spans.containers(from_ms, to_ms)))

    def verdicts_over(self, from_ms: int, to_ms: int) -> ChecksSpan:
        """As `checks_over`, from buckets."""
        return ChecksSpan(**self.rows(spans.verdicts(from_ms, to_ms))[0])

    def removals_over(self, from_ms: int, to_ms: int) -> dict[tuple[str, str], int]:
        """As `deletion_counts_since`, from buckets."""
        rows = self.rows(spans.removals(from_ms, to_ms))
        return {(row["outcome"], row["reason"]): row["count"] for row in rows}

    def stops_over(self, from_ms: int, to_ms: int) -> tuple[tuple[int, int], ...]:
        """The times without ticks and the quick restarts: last tick before and first after."""
        stops = [_Stop(**row) for row in self.rows(spans.stops(from_ms, to_ms))]
        closed_ms = int(self.rows(spans.CLOSED_UNTIL)[0]["at_ms"])
        # What ended in the bucket that is open is told by the rhythm of the ticks before it.
        newest = _newest_first(Metrics).where(Metrics.timestamp_ms <= to_ms)
        recent = self._all(TickRow, newest.where(Metrics.timestamp_ms >= closed_ms))
        before = self._all(TickRow, newest.where(Metrics.timestamp_ms < closed_ms).limit(201))
        ticks = [(one.timestamp_ms, one.tick_ms) for one in (*recent, *before)][::-1]
        late = [one for one in stops_of(ticks) if one[0] >= from_ms and one[1] >= closed_ms]
        return (*((one.began_ms, one.ended_ms) for one in stops), *late)

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """The rows of any query, by their columns' names."""
        with _explained(self._path):
            cursor = sqlite.plain_connection(self._database).execute(sql, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _all(self, kind: type[T], query: Any) -> tuple[T, ...]:
        with _explained(self._path):
            found: Iterable[dict[str, Any]] = query.dicts().execute(self._database)
            return tuple(kind(**row) for row in found)


def last_deletions(path: Path, count: int) -> tuple[Deletion, ...]:
    """The newest `count` removals, newest first; none where there is no database yet.

    Raises StoreError where it cannot be read.
    """
    if not _is_there(path):
        return ()
    with History.open(path) as history:
        return history.last_deletions(count)


def _newest_first(model: type[Row]) -> Any:
    query: Any = model.select(*fields(model))
    # `id` breaks ties, and is at the end of every index.
    return query.order_by(model.timestamp_ms.desc(), model.id.desc())


def _at(model: type[Row], timestamp_ms: int) -> Any:
    query: Any = model.select(*fields(model))
    return query.where(model.timestamp_ms == timestamp_ms)


def _is_there(path: Path) -> bool:
    try:
        # An empty file is one that the agent has just made.
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
    except OSError as error:
        raise failures.unreadable(error, path) from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except failures.StorageError as error:
        raise failures.unreadable(error, path) from error
