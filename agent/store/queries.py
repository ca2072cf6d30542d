"""What people ask of the history: the last tick, the last removals, who uses most.

Every answer comes over a read-only connection of its own, beside a running agent or after it. A
caller that asks several things opens one `History`; each answer is whole ticks only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

import peewee
from peewee import fn

from agent.errors import StoreError
from agent.model import removal
from agent.model.policy_state import PolicyState
from agent.model.removal import Outcome
from agent.store import database as sqlite
from agent.store import failures, policy_state
from agent.store.tables import (
    RULE_COLUMNS,
    AttributionCheck,
    ContainerStats,
    ContainerTotal,
    DeletionRow,
    Metrics,
    ProcessStats,
    Row,
    fields,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tick:
    """One row of `metrics`. Memory in KB, CPU in percent of all CPUs."""

    timestamp_ms: int
    total_kb: int
    free_kb: int
    used_kb: int
    container_count: int | None
    process_count: int
    deleted_count: int
    available_kb: int
    cpu_percent: float
    cpu_count: int
    load1: float
    psi_memory: float | None
    psi_cpu: float | None
    source: str
    tick_ms: int


@dataclass(frozen=True, slots=True)
class ContainerProcess:
    """One row of `container_stats`."""

    timestamp_ms: int
    container_id: str
    container_name: str
    pid: int
    name: str
    ram_mb: float
    cpu_percent: float
    verified: str
    basis: str


@dataclass(frozen=True, slots=True)
class HostProcess:
    """One row of `process_stats`."""

    timestamp_ms: int
    pid: int
    name: str
    ram_mb: float
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """One row of `container_totals`."""

    timestamp_ms: int
    container_id: str
    container_name: str
    image: str
    tier: str
    governed: bool
    processes: int
    held_mb: float
    held_basis: str
    rss_mb: float
    cache_mb: float | None
    cpu_percent: float
    cpu_short_lived_percent: float | None
    cpu_unexplained_percent: float | None
    starts: int | None
    exits: int | None
    oom_kills: int | None


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


@dataclass(frozen=True, slots=True)
class Deletion:
    """One row of `deletions`."""

    timestamp_ms: int
    decision: str
    container_id: str
    container_name: str
    image: str
    tier: str
    rank: int
    reason: str
    held_mb: float
    cpu_percent: float
    outcome: str
    duration_ms: int
    error: str
    available_before_mb: float
    available_after_mb: float
    action: str = "remove"
    rule: str = ""
    engine: str = "docker"

    @property
    def is_away(self) -> bool:
        """Whether no such container is left."""
        return removal.is_away(self.outcome, self.error)

    @property
    def ending(self) -> str:
        """The outcome for a person."""
        return removal.in_words(self.outcome, self.error)


@dataclass(frozen=True, slots=True)
class Checks:
    """One row of `attribution_checks`."""

    timestamp_ms: int
    agree: int
    conflict: int
    unverified: int
    added: int
    strayed: int
    moved: int
    dropped: int
    events_lost: int


@dataclass(frozen=True, slots=True)
class ChecksSpan:
    """The checks of a span of ticks."""

    conflict_ticks: int
    unverified_ticks: int
    most_strayed: int
    most_moved: int
    most_added: int
    events_lost: int


class By(StrEnum):
    """What the greatest are sorted by."""

    RAM = "ram"
    CPU = "cpu"


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
    def open(cls, path: Path) -> Self:
        """Raises StoreError where there is no database, or it cannot be read."""
        if not _is_there(path):
            raise StoreError(
                f"There is no history at {path} yet.", "Start the agent: sudo agent start"
            )
        with _explained(path):
            return cls(sqlite.connect_to_read(path), path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        sqlite.close(self._database)

    def last_tick(self) -> Tick | None:
        """The newest tick, None where none is stored."""
        newest = _newest_first(Metrics).limit(1)
        return next(iter(self._all(Tick, newest)), None)

    def ticks_since(self, timestamp_ms: int, limit: int = 100_000) -> tuple[Tick, ...]:
        """Ticks at or after `timestamp_ms`, the newest `limit` of them, oldest first."""
        newest = _newest_first(Metrics).where(Metrics.timestamp >= timestamp_ms).limit(limit)
        return self._all(Tick, newest)[::-1]

    def checks_at(self, timestamp_ms: int) -> Checks | None:
        """How the witnesses agreed in the tick of `timestamp_ms`, None without such a tick."""
        return next(iter(self._all(Checks, _at(AttributionCheck, timestamp_ms))), None)

    def checks_since(self, timestamp_ms: int, limit: int = 100_000) -> tuple[Checks, ...]:
        """The checks of `ticks_since`."""
        query = _newest_first(AttributionCheck).where(AttributionCheck.timestamp >= timestamp_ms)
        return self._all(Checks, query.limit(limit))[::-1]

    def checks_over(self, timestamp_ms: int) -> ChecksSpan:
        """The checks at or after `timestamp_ms` together; zeros without any."""
        row = AttributionCheck
        figures = (
            fn.SUM(row.conflict > 0),
            fn.SUM(row.unverified > 0),
            fn.MAX(row.strayed),
            fn.MAX(row.moved),
            fn.MAX(row.added),
            fn.SUM(row.events_lost),
        )
        query: Any = row.select(*(fn.COALESCE(figure, 0) for figure in figures))
        return self._all(ChecksSpan, query.where(row.timestamp >= timestamp_ms))[0]

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
            & (ContainerTotal.timestamp >= timestamp_ms)
        )
        return self._all(ContainerRow, query.limit(limit))[::-1]

    def containers_since(self, timestamp_ms: int) -> tuple[ContainerSpan, ...]:
        """Every container seen at or after `timestamp_ms`, those that held most first."""
        row = ContainerTotal
        most = fn.MAX(row.held_mb)
        query: Any = row.select(
            row.container_id,
            fn.MAX(row.container_name),
            fn.MAX(row.image),
            fn.MAX(row.tier),
            fn.COUNT(row.id),
            most,
            fn.AVG(row.cpu_usage),
            fn.SUM(row.starts),
            fn.SUM(row.exits),
            fn.SUM(row.oom_kills),
        ).where(row.timestamp >= timestamp_ms)
        query = query.group_by(row.container_id).order_by(most.desc(), row.container_id)
        return self._all(ContainerSpan, query)

    def container_processes_at(
        self, timestamp_ms: int, container_id: str | None = None
    ) -> tuple[ContainerProcess, ...]:
        """The processes of that tick's containers (or of one, by its short id), largest first."""
        query = _at(ContainerStats, timestamp_ms)
        if container_id is not None:
            query = query.where(ContainerStats.container_id == container_id)
        query = query.order_by(ContainerStats.ram_usage.desc(), ContainerStats.pid)
        return self._all(ContainerProcess, query)

    def top_processes_at(
        self, timestamp_ms: int, count: int, by: By = By.RAM
    ) -> tuple[HostProcess, ...]:
        """The `count` processes of that tick that use most."""
        most = ProcessStats.ram_usage if by is By.RAM else ProcessStats.cpu_usage
        query = _at(ProcessStats, timestamp_ms).order_by(most.desc(), ProcessStats.pid)
        return self._all(HostProcess, query.limit(count))

    def last_deletions(self, count: int) -> tuple[Deletion, ...]:
        """The newest `count` removals, newest first."""
        return self._all(Deletion, self._deletions().limit(count))

    def deletion_counts_since(self, timestamp_ms: int) -> dict[tuple[str, str], int]:
        """How many removals there were at or after `timestamp_ms`, by outcome and reason."""
        row = DeletionRow
        query: Any = row.select(row.outcome, row.reason, fn.COUNT(row.id))
        query = query.where(row.timestamp >= timestamp_ms).group_by(row.outcome, row.reason)
        counts = self._all(_Count, query)
        return {(one.outcome, one.reason): one.count for one in counts}

    def left_alone_since(self, timestamp_ms: int) -> int:
        """How many of those that are `gone` are there still, at or after `timestamp_ms`."""
        row = DeletionRow
        query: Any = row.select(row.outcome, row.reason, fn.COUNT(row.id))
        query = query.where(
            (row.timestamp >= timestamp_ms) & (row.outcome == Outcome.GONE) & (row.error != "")
        )
        return self._all(_Count, query)[0].count

    def deletions_since(self, timestamp_ms: int, limit: int = 100_000) -> tuple[Deletion, ...]:
        """Removals at or after `timestamp_ms`, the newest `limit`, oldest first."""
        query = self._deletions().where(DeletionRow.timestamp >= timestamp_ms)
        return self._all(Deletion, query.limit(limit))[::-1]

    def policy_state(self) -> tuple[PolicyState, ...]:
        """What the rules of this boot remember; nothing where an older agent wrote the history."""
        with _explained(self._path):
            return policy_state.read(self._database)

    def _deletions(self) -> Any:
        """The rows, newest first; without the columns that a history of before the rules lacks."""
        with _explained(self._path):
            there = {one.name for one in self._database.get_columns("deletions")}
        return _newest_first(DeletionRow, without=RULE_COLUMNS - there)

    def _all(self, kind: type[T], query: Any) -> tuple[T, ...]:
        with _explained(self._path):
            found: Iterable[tuple[Any, ...]] = query.tuples().execute(self._database)
            return tuple(kind(*row) for row in found)


def last_deletions(path: Path, count: int) -> tuple[Deletion, ...]:
    """The newest `count` removals, newest first; none where there is no database yet.

    Raises StoreError where it cannot be read.
    """
    if not _is_there(path):
        return ()
    with History.open(path) as history:
        return history.last_deletions(count)


def _newest_first(model: type[Row], without: Collection[str] = ()) -> Any:
    query: Any = model.select(*(one for one in fields(model) if one.column_name not in without))
    # `id` breaks ties, and is at the end of every index.
    return query.order_by(model.timestamp.desc(), model.id.desc())


def _at(model: type[Row], timestamp_ms: int) -> Any:
    query: Any = model.select(*fields(model))
    return query.where(model.timestamp == timestamp_ms)


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
