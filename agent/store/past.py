"""The history gone through again, tick by tick: never more than one tick's rows at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import peewee

from agent.model.past import PastContainer, PastDecision, PastPass, PastPassContainer, PastTick
from agent.store import database as sqlite

Event = PastTick | PastDecision | PastPass
_ORDER = {PastPass: 0, PastTick: 1, PastDecision: 2}
"""At one moment: what was seen, then what was decided on it."""

_TICKS = """
    SELECT m.timestamp, m.available_ram / 1024.0, m.psi_memory, m.container_count, c.conflict
    FROM metrics m LEFT JOIN attribution_checks c ON c.timestamp = m.timestamp
    WHERE m.timestamp BETWEEN ? AND ? ORDER BY m.timestamp
"""
_TOTALS = """
    SELECT container_id, container_name, image, tier, governed, processes, held_mb, cpu_usage, rule,
           engine, timestamp
    FROM container_totals WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp
"""
_DECISIONS = """
    SELECT timestamp, decision, container_id, container_name, reason, outcome, error, action, rule,
           engine, held_mb
    FROM deletions WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp, id
"""
_SAMPLES = """
    SELECT timestamp, before_ms, available_mb, psi_memory
    FROM host_samples WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp, before_ms DESC
"""
_CHOSEN = """
    SELECT timestamp, container_id, container_name, rule, state, held_mb, cpu_usage, disputed,
           decision
    FROM pass_containers WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp, id
"""
_DISPUTED = """
    SELECT DISTINCT container_id FROM container_stats
    WHERE timestamp = ? AND verified = 'conflict'
"""


def events(database: peewee.SqliteDatabase, from_ms: int, to_ms: int) -> Iterator[Event]:
    """All of the span in the order of time. Raises sqlite3's errors."""
    connection = sqlite.plain_connection(database)
    span = (from_ms, to_ms)
    found: list[PastDecision | PastPass] = [*_passes(connection, span)]
    found += _decisions(connection, span)
    found.sort(key=lambda one: (one.timestamp_ms, _ORDER[type(one)]))
    others = iter(found)
    waiting = next(others, None)
    for tick in _ticks(connection, span):
        at = (tick.timestamp_ms, _ORDER[PastTick])
        while waiting is not None and (waiting.timestamp_ms, _ORDER[type(waiting)]) < at:
            yield waiting
            waiting = next(others, None)
        yield tick
    while waiting is not None:
        yield waiting
        waiting = next(others, None)


def _ticks(connection: sqlite3.Connection, span: tuple[int, int]) -> Iterator[PastTick]:
    rows = map(PastContainer._make, connection.execute(_TOTALS, span))
    pending = next(rows, None)
    for at, available_mb, psi, count, conflict in connection.execute(_TICKS, span):
        found = []
        while pending is not None and pending.timestamp_ms <= at:
            if pending.timestamp_ms == at:
                found.append(pending)
            pending = next(rows, None)
        disputed = _disputed(connection, at) if conflict else frozenset()
        yield PastTick(at, available_mb, psi, count is not None, disputed, tuple(found))


def _disputed(connection: sqlite3.Connection, at: int) -> frozenset[str] | None:
    """Rows of processes are kept for hours, checks for weeks."""
    return frozenset(row[0] for row in connection.execute(_DISPUTED, (at,))) or None


def _decisions(connection: sqlite3.Connection, span: tuple[int, int]) -> Iterator[PastDecision]:
    return map(PastDecision._make, connection.execute(_DECISIONS, span))


def _passes(connection: sqlite3.Connection, span: tuple[int, int]) -> Iterator[PastPass]:
    first = itemgetter(0)
    samples = {
        at: tuple(row[1:] for row in rows)
        for at, rows in groupby(connection.execute(_SAMPLES, span), first)
    }
    for at, rows in groupby(connection.execute(_CHOSEN, span), first):
        chosen = tuple(PastPassContainer._make(row[1:]) for row in rows)
        yield PastPass(at, samples.get(at, ()), chosen)
