"""One flush: what this host has and the centre has not, each row exactly once.

The centre moves a stream's cursor from exactly where this host says that it is, in the transaction
that takes the rows. So a flush may be cut off anywhere and be tried again; and a history that is
not the one which the centre knows (a clone, an old copy, a new database) is seen before one row of
it is taken, and begins an epoch of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import __version__
from agent.errors import AgentError
from agent.fleet.connection import CentreConnection, connected
from agent.fleet.errors import FleetError
from agent.fleet.local import (
    Cursor,
    Queue,
    ShippingState,
    alone,
    new_epoch,
    read_state,
    write_state,
)
from agent.fleet.streams import ALL_STREAMS, Stream, chosen

log = logging.getLogger(__name__)

BATCH_ROWS = 2000
MAX_ROWS = 200_000
"""Of one flush, after a long time without the centre; the rest goes with the next."""

_LATE_MS = 3_600_000
"""A row may be written so long after the moment that it is of: a bucket, when it is closed."""

TAKEN, AGAIN, FORK, UNKNOWN = "taken", "again", "fork", "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who ships."""

    installation: str
    secret: str


@dataclass(frozen=True, slots=True)
class Flushed:
    """What one flush did."""

    rows: int
    epoch: str
    begun: str = ""
    """Why a new epoch was begun, "" where none was."""


def flush(
    database: Path,
    dsn: str,
    identity: Identity,
    options: Collection[str] = (),
    *,
    open_centre: Callable[[str], Any] = connected,
    now_ns: Callable[[], int] = time.time_ns,
) -> Flushed:
    """Ships what is there and keeps how it went. Raises FleetError where it did not go."""
    with alone(database.parent):
        return _flush(database, dsn, identity, chosen(options), open_centre, now_ns)


def _flush(
    database: Path,
    dsn: str,
    identity: Identity,
    streams: Sequence[Stream],
    open_centre: Callable[[str], Any],
    now_ns: Callable[[], int],
) -> Flushed:
    directory = database.parent
    state = read_state(directory)
    tried_ms = now_ns() // 10**6
    try:
        with Queue(database) as queue, open_centre(dsn) as centre:
            shipping = _Flush(queue, centre, identity, directory, state, streams)
            flushed = shipping.run()
            state = shipping.state
            safe_ms = shipping.safe_before_ms(tried_ms)
    except AgentError as error:
        # Cursors that were confirmed before the failure are in the file already.
        state = read_state(directory)
        write_state(directory, _changed(state, tried_ms=tried_ms, problem=str(error)))
        raise
    done_ms = now_ns() // 10**6 if flushed.rows < MAX_ROWS else state.shipped_ms
    write_state(
        directory,
        _changed(
            state,
            tried_ms=tried_ms,
            shipped_ms=done_ms,
            rows=flushed.rows,
            safe_before_ms=safe_ms,
            problem="",
        ),
    )
    return flushed


class _Flush:
    def __init__(
        self,
        queue: Queue,
        centre: CentreConnection,
        identity: Identity,
        directory: Path,
        state: ShippingState,
        streams: Sequence[Stream],
    ) -> None:
        self._queue = queue
        self._centre = centre
        self._identity = identity
        self._directory = directory
        self.state = state
        self._streams = streams
        self._begun = ""
        self._columns_taken: dict[str, frozenset[str]] = {}
        """By function, once one is to be called."""
        self._said: set[str] = set()

    def run(self) -> Flushed:
        self._take_up()
        shipped = 0
        for stream in self._streams:
            shipped += self._ship(stream, MAX_ROWS - shipped)
        return Flushed(shipped, self.state.epoch, self._begun)

    def safe_before_ms(self, tried_ms: int) -> int:
        """The timestamp of the oldest row that is still to go, or a while ago where none is."""
        oldest = [
            self._queue.waiting(stream, self.state.cursor(stream.name))[1]
            for stream in self._streams
        ]
        return min((at for at in oldest if at), default=tried_ms - _LATE_MS)

    def _take_up(self) -> None:
        """Goes on where the centre's cursors are, if they are rows of this history.

        Of every stream: what is not shipped any more may be again, and not twice.
        """
        epoch, known = self._cursors()
        if not known:
            # The centre began again, or forgot this installation and enrolled it again.
            self._begin("begun again" if self.state.epoch else "first", {})
            return
        ours = {
            stream.name: known.get(stream.name, Cursor())
            for stream in ALL_STREAMS
            if self._queue.has(stream)
        }
        if all(self._queue.holds(stream, ours[stream.name]) for stream in _of(ours)):
            self._keep(ours, epoch)
            return
        parted = {
            stream.name: self._parted(stream, epoch, ours[stream.name]) for stream in _of(ours)
        }
        shared = {name: cursor for name, cursor in parted.items() if cursor.id}
        self._begin("fork" if shared else "begun again", shared)

    def _parted(self, stream: Stream, epoch: str, known: Cursor) -> Cursor:
        """The last row that this history and the centre's have in common."""
        common = self.state.cursor(stream.name)
        if not self._queue.holds(stream, common):
            common = Cursor()
        low, high = common.id, known.id
        while low < high:
            middle = self._queue.at_or_below(stream, (low + high + 1) // 2)
            if middle is None or middle.id <= low:
                # No row of ours up to there: what is common, if anything, lies above.
                low = (low + high + 1) // 2
            elif self._holds(stream, epoch, middle):
                low, common = (low + high + 1) // 2, middle
            else:
                high = middle.id - 1
        return common

    def _holds(self, stream: Stream, epoch: str, cursor: Cursor) -> bool:
        with self._centre.transaction():
            found = self._centre.rows(
                "SELECT so1_api.holds(%s, %s, %s::uuid, %s, %s, %s)",
                (
                    *(self._identity.installation, self._identity.secret, epoch),
                    *(stream.name, cursor.id, cursor.timestamp),
                ),
            )
        return bool(found[0][0])

    def _cursors(self) -> tuple[str, dict[str, Cursor]]:
        with self._centre.transaction():
            found = self._centre.rows(
                "SELECT epoch, stream, last_id, last_timestamp"
                " FROM so1_api.cursors(%s, %s, %s::uuid, %s)",
                (
                    self._identity.installation,
                    self._identity.secret,
                    self.state.epoch or None,
                    __version__,
                ),
            )
        epoch = str(found[0][0]) if found else ""
        return epoch, {str(stream): Cursor(int(at), int(when)) for _, stream, at, when in found}

    def _begin(self, reason: str, cursors: dict[str, Cursor]) -> None:
        """A new epoch, whose cursors begin at `cursors`. Kept here before the centre knows it."""
        epoch, before = new_epoch(), self.state.epoch or None
        names = list(cursors)
        with self._centre.transaction():
            self._centre.run(
                "SELECT so1_api.begin_epoch(%s, %s, %s::uuid, %s::uuid, %s, %s, %s::text[],"
                " %s::bigint[], %s::bigint[])",
                (
                    self._identity.installation,
                    self._identity.secret,
                    epoch,
                    before,
                    reason,
                    __version__,
                    names,
                    [cursors[name].id for name in names],
                    [cursors[name].timestamp for name in names],
                ),
            )
        self.state = _changed(self.state, epoch=epoch, cursors=dict(cursors))
        write_state(self._directory, self.state)
        self._begun = reason

    def _ship(self, stream: Stream, most: int) -> int:
        shipped = 0
        while shipped < most:
            cursor = self.state.cursor(stream.name)
            rows = self._queue.following(stream, cursor, min(BATCH_ROWS, most - shipped))
            if not rows:
                break
            outcome = self._send(stream, cursor, rows)
            if outcome in (FORK, UNKNOWN):
                raise FleetError(
                    f"The centre's cursor of {stream.name} moved while this host shipped: another "
                    "one ships under its id.",
                    "Two machines with one disk image? Remove /var/lib/so1/installation on one of "
                    "them and enroll it.",
                )
            self._keep({**self.state.cursors, stream.name: Cursor(rows[-1][0], rows[-1][1])})
            shipped += len(rows)
            if len(rows) < BATCH_ROWS:
                break
        return shipped

    def _send(self, stream: Stream, cursor: Cursor, rows: list[tuple[Any, ...]]) -> str:
        columns = [list(column) for column in zip(*rows, strict=True)]
        parameters: dict[str, Any] = {
            "installation": self._identity.installation,
            "secret": self._identity.secret,
            "epoch": self.state.epoch,
            "last_id": cursor.id,
            "last_timestamp": cursor.timestamp,
            "ids": columns[0],
            "timestamps": columns[1],
        }
        types = {"epoch": "uuid", "ids": "bigint[]", "timestamps": "bigint[]"}
        taken = self._taken(stream)
        for column, values in zip(stream.columns, columns[2:], strict=True):
            if column.name not in taken:
                continue
            parameters[column.name] = values
            types[column.name] = f"{column.type}[]"
        listed = ", ".join(
            f"p_{name} => %({name})s" + (f"::{types[name]}" if name in types else "")
            for name in parameters
        )
        with self._centre.transaction():
            found = self._centre.rows(
                f"SELECT outcome FROM so1_api.ingest_{stream.name}({listed})",  # noqa: S608
                parameters,
            )
        return str(found[0][0])

    def _taken(self, stream: Stream) -> frozenset[str]:
        """The columns that the centre takes: one of before this agent knows fewer.

        Its rows go without the others, which `agent fleet init` there would make room for.
        """
        if not self._columns_taken:
            found = self._centre.rows(
                "SELECT p.proname, p.proargnames FROM pg_catalog.pg_proc p"
                " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
                " WHERE n.nspname = 'so1_api'"
            )
            self._columns_taken = {
                str(function): frozenset(str(name).removeprefix("p_") for name in names or ())
                for function, names in found
            }
        taken = self._columns_taken.get(f"ingest_{stream.name}", frozenset())
        missing = [one.name for one in stream.columns if one.name not in taken]
        if taken and missing and stream.name not in self._said:
            self._said.add(stream.name)
            log.warning(
                "centre=older stream=%s not-taken=%s hint=%s",
                stream.name,
                ",".join(missing),
                "agent fleet init at the centre",
            )
        return taken

    def _keep(self, cursors: dict[str, Cursor], epoch: str = "") -> None:
        changed = _changed(self.state, cursors=cursors, epoch=epoch or self.state.epoch)
        if changed != self.state:
            self.state = changed
            write_state(self._directory, self.state)


def _of(cursors: Mapping[str, Cursor]) -> list[Stream]:
    return [stream for stream in ALL_STREAMS if stream.name in cursors]


def _changed(state: ShippingState, **changed: Any) -> ShippingState:
    values = {name: getattr(state, name) for name in ShippingState.__struct_fields__}
    return ShippingState(**{**values, **changed})
