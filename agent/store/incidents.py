"""What the history knows of single processes: who was killed for lack of memory, who ended, and
where a process was seen. For `agent oom` and `agent who`.

An agent that has not been started since its upgrade has no such tables yet: then there is nothing.
"""

# ruff: noqa: S608 - what is put into queries are names of our own tables and columns
from __future__ import annotations

from dataclasses import dataclass

from agent.store.queries import History
from agent.store.tables import Ended, EndedRow, OomKilled, OomKillRow, columns, fields, table_name

__all__ = ["Ended", "OomEntry", "OomKilled", "SeenProcess"]


@dataclass(frozen=True, slots=True)
class OomEntry:
    """One kill and the number that it is asked for by."""

    number: int
    kill: OomKilled


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Kills of a container that its own counter has and no record tells of."""

    container_id: str
    container_name: str
    kills: int


@dataclass(frozen=True, slots=True)
class UnseenSpan:
    """One command of a container that no tick saw, over a span."""

    engine: str
    container_id: str
    container_name: str
    parent: str
    name: str
    processes: int
    cpu_ms: float
    peak_rss_mb: float | None


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A container's process over the ticks that saw it."""

    pid: int
    name: str
    engine: str
    container_id: str
    container_name: str
    verified: str
    """In the last of them, as the next two."""
    basis: str
    ram_mb: float
    cpu_percent: float
    first_ms: int
    last_ms: int


def oom_kills(history: History, count: int, since_ms: int = 0) -> tuple[OomEntry, ...]:
    """The newest `count` kills at or after `since_ms`, newest first."""
    return _kills(
        history, "WHERE timestamp >= ? ORDER BY timestamp DESC, id DESC LIMIT ?", since_ms, count
    )


def oom_kill(history: History, number: int) -> OomEntry | None:
    return next(iter(_kills(history, "WHERE id = ?", number)), None)


def oom_count(history: History, since_ms: int) -> int:
    """How many processes were killed for lack of memory at or after `since_ms`."""
    if not _is_there(history, OomKillRow):
        return 0
    (row,) = history.rows("SELECT count(*) AS kills FROM oom_kills WHERE timestamp >= ?", since_ms)
    return int(row["kills"])


def unseen(history: History, since_ms: int, count: int) -> tuple[UnseenSpan, ...]:
    """The commands that no tick saw since then, the `count` that cost most CPU."""
    found = history.rows(
        "SELECT engine, container_id, max(container_name) AS container_name, "
        "parent_name AS parent, process_name AS name, sum(count) AS processes, "
        "sum(cpu_ms) AS cpu_ms, max(peak_rss_mb) AS peak_rss_mb FROM short_lived "
        "WHERE timestamp >= ? GROUP BY engine, container_id, parent_name, process_name "
        "ORDER BY sum(cpu_ms) DESC, container_id, engine, process_name LIMIT ?",
        since_ms,
        count,
    )
    return tuple(UnseenSpan(**row) for row in found)


def kill_of(history: History, pid: int, near_ms: int) -> OomEntry | None:
    """The kill of a process that ended about then."""
    where = "WHERE pid = ? AND timestamp BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
    return next(iter(_kills(history, where, pid, near_ms - 60_000, near_ms + 1000)), None)


def killed(
    history: History, since_ms: int, *, pid: int | None = None, name: str = ""
) -> tuple[OomEntry, ...]:
    """The kills of that number, or name, since then, newest first."""
    what, value = ("pid", pid) if pid is not None else ("process_name", name)
    where = f"WHERE {what} = ? AND timestamp >= ? ORDER BY timestamp DESC, id DESC LIMIT 100"
    return _kills(history, where, value, since_ms)


def uncounted(history: History, since_ms: int) -> tuple[Uncounted, ...]:
    """Containers whose counters tell of more kills than there are records."""
    if not _is_there(history, OomKillRow):
        return ()
    found = history.rows(
        "SELECT t.container_id, max(t.container_name) AS container_name, "
        "sum(t.oom_kills) - (SELECT count(*) FROM oom_kills k WHERE k.engine = t.engine "
        "AND k.container_id = t.container_id AND k.timestamp >= ?1) AS kills "
        "FROM container_totals t WHERE t.timestamp >= ?1 AND t.oom_kills > 0 "
        "GROUP BY t.engine, t.container_id HAVING kills > 0 ORDER BY kills DESC, t.container_id",
        since_ms,
    )
    return tuple(Uncounted(**row) for row in found)


def ended(
    history: History, since_ms: int, *, pid: int | None = None, name: str = ""
) -> tuple[Ended, ...]:
    """Processes of that number, or name, that ended since, newest first."""
    if not _is_there(history, EndedRow):
        return ()
    names = [one.name for one in fields(EndedRow)]
    listed = ", ".join(
        f"{column} AS {name_}" for column, name_ in zip(columns(EndedRow), names, strict=True)
    )
    what, value = ("pid", pid) if pid is not None else ("process_name", name)
    found = history.rows(
        f"SELECT {listed} FROM {table_name(EndedRow)} "
        f"WHERE {what} = ? AND timestamp >= ? ORDER BY timestamp DESC, id DESC LIMIT 100",
        value,
        since_ms,
    )
    return tuple(Ended(**{**row, "oom": bool(row["oom"])}) for row in found)


def sightings(
    history: History, since_ms: int, *, pid: int | None = None, name: str = ""
) -> tuple[SeenProcess, ...]:
    """Containers' processes of that number, or name, that ticks saw since, the last seen first."""
    what, value = ("pid", pid) if pid is not None else ("process_name", name)
    where = f"{what} = ? AND timestamp >= ? GROUP BY pid, process_name, engine, container_id"
    first = {
        (row["pid"], row["name"], row["engine"], row["container_id"]): row["first_ms"]
        for row in history.rows(
            "SELECT pid, process_name AS name, engine, container_id, min(timestamp) AS first_ms "
            f"FROM container_stats WHERE {where}",
            value,
            since_ms,
        )
    }
    found = history.rows(
        # SQLite takes the other columns from the row that has the greatest timestamp.
        "SELECT pid, process_name AS name, engine, container_id, container_name, verified, basis, "
        "ram_usage AS ram_mb, cpu_usage AS cpu_percent, max(timestamp) AS last_ms "
        f"FROM container_stats WHERE {where} ORDER BY last_ms DESC LIMIT 100",
        value,
        since_ms,
    )
    return tuple(
        SeenProcess(
            **row, first_ms=first[row["pid"], row["name"], row["engine"], row["container_id"]]
        )
        for row in found
    )


def _kills(history: History, rest: str, *values: object) -> tuple[OomEntry, ...]:
    if not _is_there(history, OomKillRow):
        return ()
    names = [one.name for one in fields(OomKillRow)]
    listed = ", ".join(
        f"{column} AS {name}" for column, name in zip(columns(OomKillRow), names, strict=True)
    )
    query = f"SELECT id AS number, {listed} FROM {table_name(OomKillRow)} {rest}"
    return tuple(
        OomEntry(int(row.pop("number")), OomKilled(**row)) for row in history.rows(query, *values)
    )


def _is_there(history: History, table: type) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return bool(history.rows(query, table_name(table)))
