"""Rows of what seldom changes of a container: one for each change, and all of them once an hour.

A reader of any span therefore finds each container's state in the hour before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from agent.model.container import ContainerKey
from agent.model.state_seen import StateSeen
from agent.store.inserts import insert_many
from agent.store.tables import ContainerStateRow, values_of

REPEAT_MS = 3_600_000


class StateRows:
    """What the history has of each container. One an open database."""

    def __init__(self) -> None:
        self._stored: dict[ContainerKey, StateSeen] = {}
        self._repeat_from_ms = 0
        self._written: tuple[dict[ContainerKey, StateSeen], int] | None = None

    def write(
        self, connection: sqlite3.Connection, seen: Sequence[StateSeen], timestamp_ms: int
    ) -> None:
        """Within the transaction of a look; all containers of it. Raises sqlite3's errors."""
        repeats = not self._repeat_from_ms - REPEAT_MS <= timestamp_ms < self._repeat_from_ms
        known = {} if repeats else self._stored
        changed = [one for one in seen if known.get(one.key) != one]
        if changed:
            values = values_of(ContainerStateRow, [timestamp_ms] * len(changed), changed)
            insert_many(connection, ContainerStateRow, values)
        next_ms = timestamp_ms + REPEAT_MS if repeats else self._repeat_from_ms
        self._written = ({one.key: one for one in seen}, next_ms)

    def committed(self) -> None:
        """What was written last is in the history now."""
        if self._written is not None:
            self._stored, self._repeat_from_ms = self._written
            self._written = None
