"""The history gone through again, tick by tick: never more than one tick's rows at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from heapq import merge
from itertools import groupby
from operator import itemgetter

import peewee

from agent.model.past import PastDecision, PastPass, PastPassContainer, PastState, PastTick
from agent.policy.original import RulesInForce
from agent.store import database as sqlite
from agent.store import rules_in_force
from agent.store.state_rows import REPEAT_MS

Event = PastTick | PastDecision | PastPass | PastState | RulesInForce
_ORDER = {RulesInForce: 0, PastState: 1, PastPass: 2, PastTick: 3, PastDecision: 4}
"""At one moment: what holds, what was seen, then what was decided on it."""

_TICKS = """
    SELECT m.timestamp, m.available_ram / 1024.0, m.psi_memory, m.container_count, c.conflict,
           m.tick_ms
    FROM metrics m LEFT JOIN attribution_checks c ON c.timestamp = m.timestamp
    WHERE m.timestamp BETWEEN ? AND ? ORDER BY m.timestamp
"""
# In the order of `PastContainer`. Text costs most of the reading: a row that says its rule has no
# need of its tier.
_TOTALS = """
    SELECT container_id, container_name, {image}, CASE WHEN rule IS NULL THEN tier ELSE '' END,
           governed, rule, engine, processes, held_mb, cpu_usage, timestamp
    FROM container_totals WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp
"""
_DECISIONS = """
    SELECT timestamp, decision, container_id, container_name, reason, outcome, error, action, rule,
           engine, held_mb
    FROM deletions WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp, id
"""
_SAMPLES = """
    SELECT before_ms, available_mb, psi_memory
    FROM host_samples WHERE timestamp = ? ORDER BY before_ms DESC
"""
_CHOSEN = """
    SELECT timestamp, container_id, container_name, rule, state, held_mb, cpu_usage, disputed,
           decision, engine
    FROM pass_containers WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp, id
"""
_STATES = """
    SELECT timestamp, engine, container_id, state, health, created, started, disputed
    FROM container_states WHERE timestamp BETWEEN ? AND ? ORDER BY timestamp, id
"""
_DISPUTED = """
    SELECT DISTINCT container_id FROM container_stats
    WHERE timestamp = ? AND verified = 'conflict'
"""


def events(
    database: peewee.SqliteDatabase, from_ms: int, to_ms: int, *, images: bool
) -> Iterator[Event]:
    """All of the span in the order of time, and what held at its beginning. Raises sqlite3's
    errors. Without `images` a container's row has none."""
    connection = sqlite.plain_connection(database)
    span = (from_ms, to_ms)
    sources: tuple[Iterator[Event], ...] = (
        _rules(database, from_ms, to_ms),
        map(PastState._make, connection.execute(_STATES, (from_ms - 2 * REPEAT_MS, to_ms))),
        _passes(connection, span),
        map(PastDecision._make, connection.execute(_DECISIONS, span)),
    )
    others = merge(*sources, key=_place)
    waiting = next(others, None)
    for tick in _ticks(connection, span, images=images):
        while waiting is not None and _place(waiting) < (tick.timestamp_ms, _ORDER[PastTick]):
            yield waiting
            waiting = next(others, None)
        yield tick
    if waiting is not None:
        yield waiting
    yield from others


def _place(one: Event) -> tuple[int, int]:
    return (one.timestamp_ms, _ORDER[type(one)])


def _ticks(
    connection: sqlite3.Connection, span: tuple[int, int], *, images: bool
) -> Iterator[PastTick]:
    query = _TOTALS.format(image="image" if images else "''")
    groups = groupby(connection.execute(query, span), itemgetter(-1))
    at_rows, rows = next(groups, (None, None))
    for at, available_mb, psi, count, conflict, took_ms in connection.execute(_TICKS, span):
        found = []
        while rows is not None and at_rows <= at:
            if at_rows == at:
                found = list(rows)
            at_rows, rows = next(groups, (None, None))
        disputed = _disputed(connection, at) if conflict else frozenset()
        yield PastTick(at, available_mb, psi, count is not None, disputed, found, took_ms)


def _disputed(connection: sqlite3.Connection, at: int) -> frozenset[str] | None:
    """Rows of processes are kept for hours, checks for weeks."""
    return frozenset(row[0] for row in connection.execute(_DISPUTED, (at,))) or None


def _rules(database: peewee.SqliteDatabase, from_ms: int, to_ms: int) -> Iterator[RulesInForce]:
    """Those that held at the beginning, and the later ones."""
    found = sorted(rules_in_force.read(database, to_ms), key=itemgetter(0))
    before = [one for one in found if one.timestamp_ms <= from_ms]
    yield from before[-1:]
    yield from found[len(before) :]


def _passes(connection: sqlite3.Connection, span: tuple[int, int]) -> Iterator[PastPass]:
    for at, rows in groupby(connection.execute(_CHOSEN, span), itemgetter(0)):
        chosen = tuple(PastPassContainer._make(row[1:]) for row in rows)
        yield PastPass(at, tuple(connection.execute(_SAMPLES, (at,))), chosen)
