"""What to delete and when: by age, by size, and never because a clock is wrong.

The rule is pure (`ClockWatch`, `confirmed_before`, `cutoffs`), the executor (`Pruner`) deletes in
small batches after a tick. Age goes by the wall clock, but a row goes only when time has *shown* to
pass since: at least a day of rows (or the bound, where it is shorter) must have been recorded after
it. A host that boots in the year 2036 therefore has a day to notice before anything is erased.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import peewee

from agent.config import RetentionSettings
from agent.store import database as sqlite
from agent.store import rollup_tables as rollups
from agent.store.tables import HISTORY_TABLES, RAW_TABLES, Metrics, table_name

log = logging.getLogger(__name__)

_RAW = tuple(table_name(model) for model in RAW_TABLES)
_HISTORY = tuple(table_name(model) for model in HISTORY_TABLES)
_MINUTES = rollups.MINUTE_TABLES
_FINE = rollups.FINE_TABLES
_COARSE = rollups.COARSE_TABLES

_HOUR_MS = 3_600_000
JUMP_NS = 3600 * 10**9
"""A step of the wall clock above this suspends deleting by age until the next start."""

EVIDENCE_MS = 24 * _HOUR_MS
"""So much recorded time has to lie after a row before its age counts."""

_STEP_MS = _HOUR_MS
"""Between two rows at most this much counts as recorded: an outage or a clock's step does not."""

_EVIDENCE_ROWS = 200_000
_MIN_BATCH_ROWS = 10_000
_LOG_ALLOWANCE_BYTES = 4 * 1024 * 1024
"""What the write-ahead log takes beside the database, of the size bound."""

_VACUUM_PAGES = 512
_SLACK_PAGES = 256
"""Free pages that stay for the next ticks, rather than being returned and taken again."""


class ClockWatch:
    """Whether the wall clock was stepped while the agent ran, told by the boot clock."""

    def __init__(self, wall_ns: int, boot_ns: int) -> None:
        self._first_ns = self._last_ns = wall_ns - boot_ns
        self.jumped_ns = 0
        """How far it was stepped when it was noticed; 0 while it never was."""

    def look(self, wall_ns: int, boot_ns: int) -> bool:
        """True when this look is the one that notices a jump of more than an hour.

        Many small steps in one direction count as one.
        """
        offset_ns = wall_ns - boot_ns
        step_ns = max(offset_ns - self._last_ns, offset_ns - self._first_ns, key=abs)
        self._last_ns = offset_ns
        if self.jumped_ns or abs(step_ns) <= JUMP_NS:
            return False
        self.jumped_ns = step_ns
        return True

    @property
    def suspended(self) -> str:
        """Why nothing is deleted by age, "" where it is."""
        if not self.jumped_ns:
            return ""
        return (
            f"The clock was stepped by {self.jumped_ns / 10**9:+.0f} s, so rows are not deleted by "
            "age until the next start."
        )


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Rows with a timestamp below these may go; 0 where none may."""

    raw_before_ms: int = 0
    history_before_ms: int = 0
    fine_before_ms: int = 0
    """Buckets of 5 minutes."""
    coarse_before_ms: int = 0
    """Buckets of an hour and a day."""


def take_evidence(newest_first: Iterable[int]) -> list[int]:
    """As many of the `metrics` timestamps, newest first, as a day of recorded time needs."""
    taken: list[int] = []
    recorded_ms = 0
    for timestamp_ms in newest_first:
        if taken:
            recorded_ms += min(taken[-1] - timestamp_ms, _STEP_MS)
        taken.append(timestamp_ms)
        if recorded_ms >= EVIDENCE_MS or len(taken) >= _EVIDENCE_ROWS:
            break
    return taken


def confirmed_before(evidence: Sequence[int], running_ms: int, needed_ms: int) -> int | None:
    """The timestamp below which every row has `needed_ms` of recorded time after it.

    `evidence` are the `metrics` timestamps from before this start, newest first, `running_ms` how
    long this run has lasted by the boot clock. None: all rows from before this start have it. 0:
    none has it.
    """
    if running_ms >= needed_ms:
        return None
    recorded_ms = running_ms
    for newer, older in pairwise(evidence):
        recorded_ms += min(newer - older, _STEP_MS)
        if recorded_ms >= needed_ms:
            return older + 1
    return 0


def cutoffs(
    now_ms: int, settings: RetentionSettings, evidence: Sequence[int], running_ms: int
) -> Cutoffs:
    """What may go by age. `now_ms` is the wall clock, which has not jumped in this run."""

    def before(bound_ms: int) -> int:
        confirmed = confirmed_before(evidence, running_ms, min(bound_ms, EVIDENCE_MS))
        by_age = now_ms - bound_ms
        return max(0, by_age if confirmed is None else min(by_age, confirmed))

    return Cutoffs(
        before(settings.raw_hours * _HOUR_MS),
        before(settings.history_days * 24 * _HOUR_MS),
        before(settings.rollup_5min_days * 24 * _HOUR_MS),
        before(settings.rollup_days * 24 * _HOUR_MS),
    )


class Pruner:
    """Carries the rule out on an open database, a little after each tick."""

    def __init__(
        self,
        database: peewee.SqliteDatabase,
        settings: RetentionSettings,
        wall_ns: int,
        boot_ns: int,
    ) -> None:
        self._database = database
        self._settings = settings
        self._began_ns = boot_ns
        newest_first = "SELECT timestamp FROM metrics ORDER BY timestamp DESC"
        cursor = sqlite.plain_connection(database).execute(newest_first)
        self._evidence = take_evidence(row[0] for row in cursor)
        cursor.close()
        self._bound_bytes = settings.max_database_mb * 1024 * 1024 - _LOG_ALLOWANCE_BYTES
        self._page_bytes = int(sqlite.rows(database, "PRAGMA page_size")[0][0])
        self._oldest_ms: dict[Sequence[str], int] = {}
        """By tables, at the last look. Rows are added at the other end only."""
        self._say_outage(wall_ns // 10**6)

    def run(
        self,
        wall_ns: int,
        boot_ns: int,
        rows_written: int,
        closed_ms: int,
        *,
        by_age: bool,
        hold_ms: int | None = None,
    ) -> int:
        """Deletes what is due, at least twice what was written if so much is due. Gives how many.

        By age only what lies in closed buckets (before `closed_ms`) goes. `hold_ms` keeps history
        and buckets from there on: they are still to be shipped. Without `by_age` only the size
        bound counts, which knows no hold. Raises sqlite3's and peewee's errors.
        """
        left = max(_MIN_BATCH_ROWS, 2 * rows_written)
        deleted = 0
        if by_age:
            running_ms = (boot_ns - self._began_ns) // 10**6
            due = cutoffs(wall_ns // 10**6, self._settings, self._evidence, running_ms)
            if running_ms >= EVIDENCE_MS:
                self._evidence = []
            shipped_ms = sys.maxsize if hold_ms is None else hold_ms
            for tables, before_ms in (
                (_RAW, min(due.raw_before_ms, closed_ms)),
                (_HISTORY, min(due.history_before_ms, closed_ms, shipped_ms)),
                (_MINUTES, min(due.raw_before_ms, shipped_ms)),
                (_FINE, min(due.fine_before_ms, shipped_ms)),
                (_COARSE, min(due.coarse_before_ms, shipped_ms)),
            ):
                deleted += self._delete_below(tables, before_ms, left - deleted)
        total, free = self._pages()
        if (total - free) * self._page_bytes > self._bound_bytes:
            deleted += self._shrink(max(left - deleted, 1))
            total, free = self._pages()
        self._return_pages(total, free)
        return deleted

    def _shrink(self, limit: int) -> int:
        """The oldest ticks, whatever the clock says; process rows first, the newest tick never."""
        deleted = 0
        for tables in (_MINUTES, _RAW, _HISTORY, _FINE, _COARSE):
            newest = max(self._edge(table, "max") for table in tables)
            while deleted < limit and self._used_bytes() > self._bound_bytes:
                batch = self._delete_below(tables, newest, limit - deleted, once=True)
                if not batch:
                    break
                deleted += batch
        return deleted

    def _delete_below(
        self, tables: Sequence[str], before_ms: int, limit: int, *, once: bool = False
    ) -> int:
        """Whole ticks from the oldest on, about `limit` rows, each batch one transaction."""
        deleted = 0
        if self._oldest_ms.get(tables, 0) >= before_ms:
            return 0
        while deleted < limit:
            oldest = self._oldest_ms[tables] = min(
                (at for table in tables if (at := self._edge(table, "min"))), default=0
            )
            if not oldest or oldest >= before_ms:
                break
            until = self._batch_end(tables, oldest, before_ms, limit - deleted)
            with sqlite.transaction(self._database) as connection:
                if tables in (_MINUTES, _FINE, _COARSE):
                    deleted += _forget_containers(connection, tables, until)
                for table in tables:
                    statement = f'DELETE FROM "{table}" WHERE timestamp < ?'  # noqa: S608
                    deleted += connection.execute(statement, (until,)).rowcount
            if once:
                break
        return deleted

    def _batch_end(self, tables: Sequence[str], oldest: int, before_ms: int, limit: int) -> int:
        """Where a batch of about `limit` rows ends, never inside a tick and always after one."""
        until = before_ms
        for table in tables:
            query = f'SELECT timestamp FROM "{table}" ORDER BY timestamp LIMIT 1 OFFSET ?'  # noqa: S608
            found = sqlite.rows(self._database, query, (limit,))
            if found:
                until = min(until, int(found[0][0]))
        return max(until, oldest + 1)

    def _edge(self, table: str, which: str) -> int:
        query = f'SELECT {which}(timestamp) FROM "{table}"'  # noqa: S608
        return int(sqlite.rows(self._database, query)[0][0] or 0)

    def _pages(self) -> tuple[int, int]:
        total = int(sqlite.rows(self._database, "PRAGMA page_count")[0][0])
        free = int(sqlite.rows(self._database, "PRAGMA freelist_count")[0][0])
        return total, free

    def _used_bytes(self) -> int:
        total, free = self._pages()
        return (total - free) * self._page_bytes

    def _return_pages(self, total: int, free: int) -> None:
        """Gives free pages back to the disk, but not those that the next ticks will take."""
        slack = max(_SLACK_PAGES, total // 20)
        if total * self._page_bytes > self._bound_bytes:
            slack = 0
        if free > slack:
            # As a script: `execute` stops after the first step, and each step returns one page.
            sqlite.plain_connection(self._database).executescript(
                f"PRAGMA incremental_vacuum({min(free - slack, _VACUUM_PAGES)})"
            )

    def _say_outage(self, now_ms: int) -> None:
        newest_ms = self._edge(table_name(Metrics), "max")
        if newest_ms - now_ms > _HOUR_MS:
            log.warning(
                "clock=behind the newest row is %.1f h ahead of it: new rows are numbered 1 ms "
                "apart after that one until the clock has passed it",
                (newest_ms - now_ms) / _HOUR_MS,
            )
        elif newest_ms and now_ms - newest_ms > EVIDENCE_MS:
            log.info(
                "retention=waiting the newest row is %.1f days old: rows from before stay until a "
                "day has been recorded",
                (now_ms - newest_ms) / EVIDENCE_MS,
            )


def _forget_containers(connection: sqlite3.Connection, tables: Sequence[str], until: int) -> int:
    """Deletes the names of containers that only buckets before `until` of `tables` are of."""
    every = [one for one in (*_MINUTES, *_FINE, *_COARSE) if one.startswith("rollup_container_")]
    going = " UNION ".join(
        f"SELECT container FROM {table} WHERE timestamp < :until"  # noqa: S608
        for table in every
        if table in tables
    )
    staying = " ".join(
        f"AND NOT EXISTS (SELECT 1 FROM {table} WHERE container = c.id"  # noqa: S608
        f"{' AND timestamp >= :until' if table in tables else ''})"
        for table in every
    )
    gone = f"SELECT id FROM rollup_containers c WHERE id IN ({going}) {staying}"  # noqa: S608
    statement = f"DELETE FROM rollup_containers WHERE id IN ({gone})"  # noqa: S608
    return connection.execute(statement, {"until": until}).rowcount
