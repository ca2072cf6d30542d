"""Closes buckets of a minute from ticks, where a centre is to have them.

They stand beside the levels of 5 minutes and more, which are made without them: nothing on this
host is read from a minute's bucket. It is closed by the first tick behind its end and never changes
then; it goes once it is shipped and as old as raw rows may become.
"""

from __future__ import annotations

from collections.abc import Callable

import peewee

from agent.store import database as sqlite
from agent.store import rollups
from agent.store.rollup_tables import CONTAINER, HOST, MINUTE

BUCKETS_A_TICK = 12
_BUDGET_NS = 20 * 10**6
"""Catching up takes no more of a tick's time than this, and one bucket."""

_TICKS = ("metrics",)


class Minutes:
    """Closes what is due, a little after each tick."""

    def __init__(self, boot_ns: Callable[[], int]) -> None:
        self._boot_ns = boot_ns
        self._wake_ms = 0
        """Below this timestamp of a tick there is nothing to do."""

    def run(self, database: peewee.SqliteDatabase, newest_ms: int) -> int:
        """Closes buckets that end before the tick of `newest_ms`, and gives how many.

        The first one ever is the newest tick's: what was before has its 5 minutes. One
        transaction. Raises sqlite3's errors.
        """
        if newest_ms < self._wake_ms:
            return 0
        deadline_ns = self._boot_ns() + _BUDGET_NS
        with sqlite.transaction(database) as connection:
            until = rollups.read_until(connection, MINUTE) or MINUTE.begin(newest_ms)
            for closed in range(BUCKETS_A_TICK):
                first = rollups.first_since(connection, _TICKS, until)
                begin = MINUTE.begin(newest_ms if first is None else first)
                end = begin + MINUTE.bucket_ms
                if newest_ms < end:
                    rollups.write_until(connection, MINUTE, begin)
                    self._wake_ms = end
                    return closed
                if closed and self._boot_ns() >= deadline_ns:
                    return closed
                for kind in (HOST, CONTAINER):
                    rollups.close_bucket(connection, kind, MINUTE, begin)
                until = end
                rollups.write_until(connection, MINUTE, until)
        return BUCKETS_A_TICK
