"""Closes buckets of the history: what a bucket held, once a tick has come after it.

A bucket is closed by the first tick behind its end, never by a clock, and never changes then:
timestamps only rise. Where the history is longer than its buckets (an older database, a time in
which nothing could be stored) they are caught up with from the oldest on, a few at each tick; what
is not closed yet is read from the finer level by the views, so that answers are right meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import peewee

from agent.store import database as sqlite
from agent.store.rollup_tables import (
    CONTAINER,
    CONTAINER_KEY,
    HOST,
    KINDS,
    LARGEST,
    LEVELS,
    OTHERS,
    PROCESS,
    PROCESS_KEY,
    REMOVALS,
    Level,
    Rollup,
)

BUCKETS_A_TICK = 12
_BUDGET_NS = 50 * 10**6
"""Catching up takes no more of a tick's time than this, and one bucket."""

_RHYTHM_TICKS = 200
_LATE, _EARLY = 2.5, 0.4
"""Of the usual time between ticks: one that comes later, or sooner, came after a start."""

_TICKS = (HOST.ticks.split()[0], REMOVALS.ticks)
"""The tables that say which buckets there are."""

Key = tuple[Any, ...]

_FOLDS: dict[str, Callable[[list[Any]], Any]] = {"sum": sum, "max": max, "min": min}


@dataclass(slots=True)
class Group:
    """One row of a bucket: a container's, a process's, or the whole host's."""

    key: Key
    values: dict[str, Any]
    newest_ms: int
    """The tick or bucket of the finer level in which it was last seen."""
    last: tuple[Any, ...] = field(default=())


class Roller:
    """Closes what is due on an open database, a little after each tick."""

    def __init__(self, database: peewee.SqliteDatabase, boot_ns: Callable[[], int]) -> None:
        self._database = database
        self._boot_ns = boot_ns
        self._wake_ms = 0
        """Below this timestamp of a tick there is nothing to do."""
        self.closed_ms = read_until(sqlite.plain_connection(database), LEVELS[0])
        """Ticks before this moment are in closed buckets."""

    def run(self, newest_ms: int) -> int:
        """Closes buckets that end before the tick of `newest_ms`, and gives how many.

        One transaction. Raises sqlite3's errors.
        """
        if newest_ms < self._wake_ms or not self._is_due(newest_ms):
            return 0
        with sqlite.transaction(self._database) as connection:
            closed, self._wake_ms = self._close_ticks(connection, newest_ms)
            for level in LEVELS[1:]:
                closed += self._fold(connection, level)
            self.closed_ms = read_until(connection, LEVELS[0])
        return closed

    def _is_due(self, newest_ms: int) -> bool:
        """Looks without a transaction: nearly every tick closes nothing."""
        connection = sqlite.plain_connection(self._database)
        first = first_since(connection, _TICKS, self.closed_ms)
        begin = LEVELS[0].begin(newest_ms if first is None else first)
        self._wake_ms = begin + LEVELS[0].bucket_ms
        return newest_ms >= self._wake_ms

    def _close_ticks(self, connection: sqlite3.Connection, newest_ms: int) -> tuple[int, int]:
        """How many buckets were closed, and when to look again."""
        level = LEVELS[0]
        until = read_until(connection, level)
        deadline_ns = self._boot_ns() + _BUDGET_NS
        for closed in range(BUCKETS_A_TICK):
            first = first_since(connection, _TICKS, until)
            begin = level.begin(newest_ms if first is None else first)
            end = begin + level.bucket_ms
            if newest_ms < end:
                write_until(connection, level, begin)
                return closed, end
            if closed and self._boot_ns() >= deadline_ns:
                return closed, 0
            self._close(connection, level, begin)
            _note_stops(connection, begin, end)
            until = end
            write_until(connection, level, until)
        return BUCKETS_A_TICK, 0

    def _fold(self, connection: sqlite3.Connection, level: Level) -> int:
        finer = next(one for one in LEVELS if one.name == level.finer)
        ready = read_until(connection, finer)
        until = read_until(connection, level)
        closed = 0
        while True:
            first = first_since(connection, (HOST.table(finer), REMOVALS.table(finer)), until)
            begin = level.begin(ready if first is None else first)
            if ready < begin + level.bucket_ms:
                write_until(connection, level, begin)
                return closed
            self._close(connection, level, begin)
            until = begin + level.bucket_ms
            write_until(connection, level, until)
            closed += 1

    def _close(self, connection: sqlite3.Connection, level: Level, begin: int) -> None:
        for kind in KINDS:
            close_bucket(connection, kind, level, begin)


def read_until(connection: sqlite3.Connection, level: Level) -> int:
    """The moment up to which the level's buckets are closed."""
    query = "SELECT until FROM rollup_until WHERE bucket_ms = ?"
    found = connection.execute(query, (level.bucket_ms,)).fetchone()
    return int(found[0])


def write_until(connection: sqlite3.Connection, level: Level, until: int) -> None:
    connection.execute(
        "UPDATE rollup_until SET until = max(until, ?) WHERE bucket_ms = ?",
        (until, level.bucket_ms),
    )


def close_bucket(connection: sqlite3.Connection, kind: Rollup, level: Level, begin: int) -> None:
    """Writes the rows of one kind of the level's bucket."""
    groups = gather(connection, kind, level, begin, begin + level.bucket_ms)
    if kind.memory:
        groups = largest(kind, groups)
    _add_last(connection, kind, level, groups)
    _insert(connection, kind, level, begin, groups)


def gather(
    connection: sqlite3.Connection, kind: Rollup, level: Level, begin: int, end: int
) -> list[Group]:
    """All rows of a bucket, from the finer level or from ticks."""
    figures = kind.figures(level)
    rows = connection.execute(
        f"SELECT {', '.join((*kind.key, *figures, 'max(timestamp)'))} FROM {kind.source(level)}"  # noqa: S608
        f" WHERE timestamp >= ? AND timestamp < ?"
        f" GROUP BY {', '.join(kind.key) or 'NULL'}",
        (begin, end),
    )
    names = [one.name for one in kind.columns]
    keys = len(kind.key)
    return [
        Group(tuple(row[:keys]), dict(zip(names, row[keys:-1], strict=True)), row[-1])
        for row in rows
    ]


def largest(kind: Rollup, groups: Sequence[Group]) -> list[Group]:
    """The largest by memory or CPU, and the others together (containers by tier and engine).

    Each takes the better of its two places, so that at least half of them are the very largest by
    either.
    """
    named = [one for one in groups if not is_others(kind, one.key)]
    place: dict[Key, int] = {}
    for column in (kind.memory, kind.cpu):
        ranked = sorted(named, key=lambda one: (-one.values[column], one.key))
        for at, one in enumerate(ranked):
            place[one.key] = min(place.get(one.key, at), at)
    named.sort(key=lambda one: (place[one.key], -one.values[kind.memory], one.key))
    kept = named[:LARGEST]
    rest: dict[Key, list[Group]] = {}
    chosen = {one.key for one in kept}
    for one in groups:
        if one.key not in chosen:
            rest.setdefault(others_of(kind, one.key), []).append(one)
    return kept + [fold(kind, key, rest[key]) for key in sorted(rest)]


def others_of(kind: Rollup, key: Key) -> Key:
    """The key of the row that stands for `key` among the others."""
    return ("", OTHERS, "", *key[3:]) if kind is CONTAINER else (0, OTHERS)


def is_others(kind: Rollup, key: Key) -> bool:
    return key == others_of(kind, key)


def fold(kind: Rollup, key: Key, groups: Sequence[Group]) -> Group:
    """One row of several. It has no last value: theirs are of different moments."""
    values = {}
    for one in kind.columns:
        known = [group.values[one.name] for group in groups if group.values[one.name] is not None]
        values[one.name] = _FOLDS[one.fold](known) if known else None
    return Group(key, values, max(group.newest_ms for group in groups), (None,) * len(kind.last))


def _add_last(
    connection: sqlite3.Connection, kind: Rollup, level: Level, groups: Sequence[Group]
) -> None:
    """Gives each row its values at its own last tick."""
    if not kind.last:
        return
    columns = ", ".join((*kind.key, *kind.last_of(level)))
    query = f"SELECT {columns} FROM {kind.source(level)} WHERE timestamp = ?"  # noqa: S608
    wanted = [one for one in groups if not one.last]
    keys = len(kind.key)
    for at in {one.newest_ms for one in wanted}:
        found = {tuple(row[:keys]): tuple(row[keys:]) for row in connection.execute(query, (at,))}
        for one in wanted:
            if one.newest_ms == at:
                one.last = found[one.key]


def _insert(
    connection: sqlite3.Connection, kind: Rollup, level: Level, begin: int, groups: Sequence[Group]
) -> None:
    keys: tuple[str, ...] = kind.key
    identify: Callable[[sqlite3.Connection, Key], Key] = lambda _connection, key: key  # noqa: E731
    if kind is CONTAINER:
        keys, identify = (CONTAINER_KEY,), _container
    elif kind is PROCESS:
        keys, identify = PROCESS_KEY, _process
    names = ("timestamp", *keys, *kind.stored)
    connection.executemany(
        f"INSERT INTO {kind.table(level)} ({', '.join(names)})"  # noqa: S608
        f" VALUES ({', '.join('?' * len(names))})",
        [
            (begin, *identify(connection, one.key), *one.values.values(), *one.last)
            for one in groups
        ],
    )


def _container(connection: sqlite3.Connection, key: Key) -> Key:
    # By its id: of an engine's index SQLite would walk through every name of a year.
    names = ("container_id", *(f"+{name}" for name in CONTAINER.key if name != "container_id"))
    where = " AND ".join(f"{name} = ?" for name in names)
    query = f"SELECT id FROM rollup_containers WHERE {where}"  # noqa: S608
    found = connection.execute(query, key).fetchone()
    if found is None:
        insert = (
            f"INSERT INTO rollup_containers ({', '.join(CONTAINER.key)})"  # noqa: S608
            f" VALUES ({', '.join('?' * len(key))})"
        )
        return (connection.execute(insert, key).lastrowid,)
    return (found[0],)


def _process(connection: sqlite3.Connection, key: Key) -> Key:
    pid, name = key
    connection.execute("INSERT OR IGNORE INTO rollup_names (name) VALUES (?)", (name,))
    found = connection.execute("SELECT id FROM rollup_names WHERE name = ?", (name,)).fetchone()
    return (pid, found[0])


def first_since(connection: sqlite3.Connection, tables: Iterable[str], at_ms: int) -> int | None:
    firsts = [
        connection.execute(
            f"SELECT min(timestamp) FROM {table} WHERE timestamp >= ?",  # noqa: S608
            (at_ms,),
        ).fetchone()[0]
        for table in tables
    ]
    return min((one for one in firsts if one is not None), default=None)


def _note_stops(connection: sqlite3.Connection, begin: int, end: int) -> None:
    """Times without ticks that ended in the bucket, told by the rhythm of the ticks before."""
    query = "SELECT timestamp, tick_ms FROM metrics WHERE timestamp < ? ORDER BY timestamp DESC"
    ticks: list[tuple[int, int]] = []
    for at, took in connection.execute(query, (end,)):
        ticks.append((at, took))
        if at < begin and len(ticks) > _RHYTHM_TICKS:
            break
    ticks.reverse()
    stops = [stop for stop in stops_of(ticks) if stop[1] >= begin]
    connection.executemany("INSERT INTO agent_stops (timestamp, until) VALUES (?, ?)", stops)


def stops_of(ticks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where the agent was stopped or started again, from ticks by their end and duration.

    A tick that begins much later after the end of the one before than the rhythm says, or much
    sooner after its beginning. The time that a tick takes is left out: a busy host has ticks that
    are longer than the interval, and no restarts.
    """
    pairs = list(pairwise(ticks))
    if not pairs:
        return []
    between = [(after[0] - after[1]) - (before[0] - before[1]) for before, after in pairs]
    rhythm = sorted(between[-_RHYTHM_TICKS:])
    # Not by statistics.median: that module is a quarter of a megabyte for good.
    usual = max(1, (rhythm[len(rhythm) // 2] + rhythm[~(len(rhythm) // 2)]) / 2)
    return [
        (before[0], after[0])
        for (before, after), since in zip(pairs, between, strict=True)
        if (after[0] - after[1]) - before[0] > _LATE * usual or since < _EARLY * usual
    ]
