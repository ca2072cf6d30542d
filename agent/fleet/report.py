"""What people ask: what this host has still to ship, and what all hosts together look like.

The second is asked of the centre as a reader; a replica will do.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import Config
from agent.errors import AgentError
from agent.fleet.local import Queue, read_state
from agent.fleet.streams import ALL_STREAMS, chosen
from agent.util.terminal import printable

if TYPE_CHECKING:
    from agent.fleet.connection import CentreConnection

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class PendingRows:
    """One stream's rows that are still to be shipped."""

    stream: str
    rows: int
    oldest_s: int
    """Age of the oldest; 0 where none waits."""


@dataclass(frozen=True, slots=True)
class HostStatus:
    centre: bool
    """Whether a centre is set."""
    epoch: str
    shipped_s: int | None
    """Seconds since everything was there; None for never."""
    rows: int
    waiting: tuple[PendingRows, ...]
    problem: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def host_status(config: Config) -> HostStatus:
    """What waits on this host, and why. Raises FleetError where the history cannot be read."""
    database = Path(config.paths.database)
    state = read_state(database.parent)
    now_ms = time.time_ns() // 10**6
    waiting = []
    problem = state.problem
    try:
        with Queue(database) as queue:
            for stream in chosen(config.fleet.options):
                if queue.has(stream):
                    rows, oldest_ms = queue.waiting(stream, state.cursor(stream.name))
                    age_s = max(0, now_ms - oldest_ms) // 1000 if rows else 0
                    waiting.append(PendingRows(stream.name, rows, age_s))
    except AgentError as error:
        problem = problem or str(error)
    shipped_s = max(0, now_ms - state.shipped_ms) // 1000 if state.shipped_ms else None
    if config.fleet.dsn and not problem:
        late_s = 3 * config.fleet.flush_s
        if shipped_s is None:
            problem = "Nothing has been shipped yet: the agent does it, or agent fleet ship."
        elif shipped_s > late_s:
            problem = f"Nothing was shipped for {shipped_s} s: does the agent run (agent status)?"
    return HostStatus(
        bool(config.fleet.dsn), state.epoch, shipped_s, state.rows, tuple(waiting), problem
    )


def plain_status(found: HostStatus) -> str:
    shipped = "never" if found.shipped_s is None else f"{found.shipped_s} s ago"
    lines = [
        f"centre     {'set' if found.centre else 'none ([fleet] dsn is not set)'}",
        f"epoch      {found.epoch or 'none yet'}",
        f"shipped    {shipped}, {found.rows} rows in the last flush",
    ]
    lines += [
        f"waiting    {one.stream}: {one.rows} rows"
        + (f", the oldest {one.oldest_s} s old" if one.rows else "")
        for one in found.waiting
    ]
    if found.problem:
        lines.append(f"problem    {printable(found.problem)}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class HostRow:
    name: str
    installation: str
    seen_s: int | None
    version: str
    epochs: int
    forks: int
    gaps: int
    conflict_ticks: int
    """Of the last hour."""
    events_lost: int
    used_ratio: float | None
    rows: int
    """Figures of the last hour, by which a host's growth is told."""


@dataclass(frozen=True, slots=True)
class FleetContainer:
    host: str
    name: str
    image: str
    held_mb: float
    cpu_percent: float
    oom_kills: int


@dataclass(frozen=True, slots=True)
class FleetTop:
    hosts: tuple[HostRow, ...]
    """The silent and the untrusted first."""
    containers: tuple[FleetContainer, ...]
    removals: tuple[tuple[str, str, str, int], ...]
    """Host, reason, outcome and how many, of the last day."""
    bytes: dict[str, int] = field(default_factory=dict)
    """By stream, with indexes."""
    out_of_range: int = 0
    missing: tuple[tuple[str, str], ...] = ()
    """At a hub: shards that do not answer, and why."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


_HOSTS = """
    SELECT h.name, h.installation, extract(epoch FROM clock_timestamp() - h.seen_at)::bigint,
        coalesce(h.version, ''),
        (SELECT count(*) FROM so1.epochs e WHERE e.installation = h.installation),
        (SELECT count(*) FROM so1.epochs e
            WHERE e.installation = h.installation AND e.reason = 'fork'),
        (SELECT count(*) FROM so1.gaps g WHERE g.installation = h.installation),
        coalesce(f.conflict_ticks, 0), coalesce(f.events_lost, 0), f.used_ratio,
        coalesce(f.rows, 0)
    FROM so1.hosts h LEFT JOIN (
        SELECT installation, sum(conflict_ticks)::bigint AS conflict_ticks,
            sum(events_lost)::bigint AS events_lost,
            sum(used_ram_sum)::float8 / nullif(sum(ticks * total_ram_max), 0) AS used_ratio,
            count(*) AS rows
        FROM so1.host_5m WHERE timestamp >= %s GROUP BY installation
    ) f USING (installation)
    ORDER BY h.seen_at NULLS FIRST, 6 DESC, 7 DESC, 8 DESC, h.name LIMIT %s
"""

_CONTAINERS = """
    SELECT h.name, c.container_name, c.image, c.held_mb_last, c.cpu, c.oom_kills
    FROM (
        SELECT DISTINCT ON (installation, container_id) installation, container_id,
            container_name, image, held_mb_last,
            cpu_usage_sum / nullif(ticks, 0) AS cpu, coalesce(oom_kills, 0) AS oom_kills
        FROM so1.container_5m WHERE timestamp >= %s AND held_mb_last IS NOT NULL
        ORDER BY installation, container_id, timestamp DESC
    ) c JOIN so1.hosts h USING (installation)
    ORDER BY c.held_mb_last DESC, h.name, c.container_name LIMIT %s
"""

# One that is `gone` for a reason is there still (`model.removal.in_words`).
_REMOVALS = """
    SELECT h.name, r.reason,
        CASE WHEN r.outcome = 'gone' AND r.error <> '' THEN 'left alone' ELSE r.outcome END,
        count(*)
    FROM so1.removals r JOIN so1.hosts h USING (installation)
    WHERE r.timestamp >= %s GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT %s
"""

_BYTES = """
    SELECT coalesce(sum(pg_total_relation_size(i.inhrelid)), 0)::bigint
    FROM pg_inherits i WHERE i.inhparent = %s::regclass
"""


def fleet_top(connection: CentreConnection, number: int) -> FleetTop:
    """All hosts at one look, of one centre or of all that a hub reads."""
    missing = _missing(connection)
    now_ms = time.time_ns() // 10**6
    hour, day = now_ms - HOUR_MS, now_ms - 24 * HOUR_MS
    return FleetTop(
        hosts=tuple(HostRow(*row) for row in connection.rows(_HOSTS, (hour, number))),
        containers=tuple(
            FleetContainer(host, name, image, float(held), float(cpu or 0), int(kills))
            for host, name, image, held, cpu, kills in connection.rows(_CONTAINERS, (hour, number))
        ),
        removals=tuple(
            (str(host), str(reason), str(outcome), int(count))
            for host, reason, outcome, count in connection.rows(_REMOVALS, (day, number))
        ),
        bytes={
            stream.name: int(connection.rows(_BYTES, (f"so1.{stream.name}",))[0][0])
            for stream in ALL_STREAMS
        },
        out_of_range=int(connection.rows("SELECT count(*) FROM so1.out_of_range")[0][0]),
        missing=missing,
    )


def _missing(connection: CentreConnection) -> tuple[tuple[str, str], ...]:
    """A hub's shards that do not answer, and why; it answers without them from now on."""
    if not connection.value("SELECT to_regclass('so1.shards') IS NOT NULL"):
        return ()
    with connection.transaction():
        connection.run("SELECT so1.look()")
        found = connection.rows(
            "SELECT name, problem FROM so1.shards WHERE NOT answers ORDER BY name"
        )
    return tuple((str(name), str(problem)) for name, problem in found)
