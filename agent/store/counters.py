"""The counters' two tables: written whole in a tick's transaction, read once at a start.

They are a state and no history, so they have no timestamp and no retention.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import astuple
from pathlib import Path

from agent.analysis.counters import ContainerCounters, LastingCounters
from agent.model.container import DOCKER, ContainerKey
from agent.store import database as sqlite
from agent.store import failures

TABLES = ("container_counters", "host_counters")

_LARGEST = 2**63 - 1


def write(connection: sqlite3.Connection, counters: LastingCounters) -> None:
    """Replaces what is stored. Raises sqlite3's errors."""
    connection.execute("DELETE FROM container_counters")
    connection.executemany(
        "INSERT INTO container_counters VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (_text(key), *(max(-_LARGEST, min(value, _LARGEST)) for value in astuple(one)))
            for key, one in counters.containers.items()
        ),
    )
    connection.execute("DELETE FROM host_counters")
    connection.executemany(
        "INSERT INTO host_counters VALUES (?, ?)",
        ((json.dumps(key), min(value, _LARGEST)) for key, value in counters.host.items()),
    )


def _text(key: ContainerKey) -> str:
    """A container in one column: rows of before engines had names are Docker's bare ids."""
    return key.id if key.engine == DOCKER else f"{key.engine}/{key.id}"


def _key(text: str) -> ContainerKey:
    engine, _, container_id = text.rpartition("/")
    return ContainerKey(engine or DOCKER, container_id)


def read(path: Path) -> LastingCounters:
    """What the last write stored. Raises StoreError where that cannot be read."""
    try:
        database = sqlite.connect_to_read(path)
        try:
            containers = sqlite.rows(database, "SELECT * FROM container_counters")
            host = sqlite.rows(database, "SELECT name, value FROM host_counters")
        finally:
            database.close()
        return LastingCounters(
            {_key(str(key)): ContainerCounters(*map(int, values)) for key, *values in containers},
            {tuple(map(str, json.loads(name))): int(value) for name, value in host},
        )
    except (*failures.StorageError, ValueError, TypeError) as error:
        raise failures.explain(error, path) from error
