"""A host for the fleet's tests: a history as an agent leaves it, and its identity at a centre.

The history is the agent's own database with rows written by plain SQL, so that what arrives can be
held against what a test put there.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.fleet.shipper import Flushed, Identity, flush
from agent.fleet.streams import Stream
from tests.unit.store.builders import open_store

NOW_MS = 0


def make_history(path: Path) -> None:
    """An empty history with every table that is shipped, as the agent's own migrations make it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    open_store(path).close()


def _required(connection: sqlite3.Connection, stream: Stream) -> list[str]:
    """Columns that each row has to have a value in, shipped or not."""
    info = connection.execute(f"PRAGMA table_info({stream.table})")
    return [name for _, name, _, required, _, key in info if required and not key]


@dataclass(slots=True)
class Host:
    directory: Path
    installation: str
    secret: str = ""
    dsn: str = ""
    written: int = field(default=0)

    @property
    def database(self) -> Path:
        return self.directory / "metrics.db"

    @property
    def state(self) -> Path:
        return self.directory / "fleet.json"

    def run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.database) as connection:
            return connection.execute(sql, values).fetchall()

    def write(self, stream: Stream, count: int, at_ms: int, word: str = "x") -> None:
        """Rows whose every value says which they are."""
        with sqlite3.connect(self.database) as connection:
            for _ in range(count):
                self.written += 1
                values: dict[str, Any] = dict.fromkeys(_required(connection, stream), 0)
                values["timestamp"] = at_ms + self.written
                if "rollup_names" in stream.joins:
                    cursor = connection.execute(
                        "INSERT INTO rollup_names (name) VALUES (?)", (f"{word}-{self.written}",)
                    )
                    values["name_id"] = cursor.lastrowid
                elif stream.joins:
                    names = tuple(f"{word}-{self.written % 7}-{part}" for part in "abcd")
                    cursor = connection.execute(
                        "INSERT INTO rollup_containers"
                        " (container_id, container_name, image, tier) VALUES (?, ?, ?, ?)",
                        names,
                    )
                    values["container"] = cursor.lastrowid
                there = {row[1] for row in connection.execute(f"PRAGMA table_info({stream.table})")}
                for place, one in enumerate(stream.columns):
                    if one.source or one.name not in there:
                        continue
                    values[one.name] = {
                        "text": f"{word} {one.name} {self.written} ñ\t'\"\\",
                        "bigint": self.written * 1000 + place,
                        "double precision": self.written + place / 128,
                        "boolean": self.written % 2,
                    }[one.type]
                connection.execute(
                    f"INSERT INTO {stream.table} ({', '.join(values)})"
                    f" VALUES ({', '.join('?' * len(values))})",
                    tuple(values.values()),
                )

    def flush(self, options: Collection[str] = ()) -> Flushed:
        return flush(self.database, self.dsn, Identity(self.installation, self.secret), options)

    def rows(self, stream: Stream) -> list[tuple[Any, ...]]:
        """Everything of a stream that this history has, as the centre should have it."""
        there = {
            f"{alias}{row[1]}"
            for alias, table in (
                ("t.", stream.table),
                ("c.", "rollup_containers"),
                ("n.", "rollup_names"),
            )
            for row in self.run(f"PRAGMA table_info({table})")
        }
        wanted = [one.source or f"t.{one.name}" for one in stream.columns]
        columns = ", ".join(one if one in there else "NULL" for one in wanted)
        return self.run(
            f"SELECT t.id, t.timestamp, {columns} FROM {stream.table} t{stream.joins} ORDER BY t.id"
        )

    def copy(self, directory: Path) -> Host:
        """The disk, with everything on it."""
        shutil.copytree(self.directory, directory)
        return Host(directory, self.installation, self.secret, self.dsn, self.written)

    def lose_state(self) -> None:
        os.unlink(self.state)
