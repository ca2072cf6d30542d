"""What travels from a host to the centre: one stream for each table, column by column.

One description makes the centre's tables and entrance, and the query on the host. A newer version
adds columns at the end of a stream, which may all be NULL: older hosts do not send them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

TEXT, WHOLE, PART, YES_NO = "text", "bigint", "double precision", "boolean"

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Column:
    """One value of a row. `source` is the host's SQL for it, its own name where that is empty."""

    name: str
    type: str
    source: str = ""

    @property
    def sql(self) -> str:
        return f"{self.source or self.name} AS {self.name}"


@dataclass(frozen=True, slots=True)
class Stream:
    """One table of the host and the one at the centre that it fills."""

    name: str
    """At the centre."""
    table: str
    """On the host; its `id` never comes twice and its rows never change."""
    columns: tuple[Column, ...]
    joins: str = ""
    is_fact: bool = False
    """Facts (what was done, and why) and a day's figures are kept longer, and are few."""
    since: int = 1
    """The version of the centre's schema that has it first."""
    option: str = ""
    """What `[fleet]` has to ask for it, "" where every host ships it."""

    @property
    def partition_ms(self) -> int:
        return 28 * DAY_MS if self.is_fact else DAY_MS

    def select(self, present: frozenset[str]) -> str:
        """The host's next rows: `id`, `timestamp`, then the columns; parameters are id and limit.

        A column that is not `present` in the host's tables is NULL: the host is older.
        """
        columns = [
            one.sql if (one.source or one.name) in present else f"NULL AS {one.name}"
            for one in self.columns
        ]
        listed = ", ".join(["t.id", "t.timestamp", *columns])
        return (
            f"SELECT {listed} FROM {self.table} t{self.joins} "  # noqa: S608 - constants
            "WHERE t.id > ? ORDER BY t.id LIMIT ?"
        )


def _all(type_: str, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, type_) for name in names)


REMOVALS = Stream(
    "removals",
    "deletions",
    (
        *_all(TEXT, "decision", "container_id", "container_name", "image", "tier"),
        *_all(WHOLE, "rank"),
        *_all(TEXT, "reason"),
        *_all(PART, "held_mb", "cpu_usage"),
        *_all(TEXT, "outcome"),
        *_all(WHOLE, "duration_ms"),
        *_all(TEXT, "error"),
        *_all(PART, "available_before_mb", "available_after_mb"),
        *_all(TEXT, "action", "rule", "engine"),
    ),
    is_fact=True,
)

OOM_KILLS = Stream(
    "oom_kills",
    "oom_kills",
    (
        *_all(WHOLE, "pid"),
        *_all(TEXT, "process_name", "container_id", "container_name", "image", "cgroup", "cause"),
        *_all(TEXT, "limit_cgroup", "limit_container"),
        *_all(PART, "limit_mb", "used_mb", "anon_mb", "file_mb", "shmem_mb", "swap_mb"),
        *_all(WHOLE, "oom_score_adj", "trigger_pid"),
        *_all(TEXT, "trigger_name", "trigger_container"),
        *_all(WHOLE, "grower_pid"),
        *_all(TEXT, "grower_name", "grower_container"),
        *_all(PART, "grown_mb", "grown_s"),
        *_all(TEXT, "witnesses", "engine"),
    ),
    is_fact=True,
    since=2,
)
"""Without who lived beside: that stays on the host."""

STOPS = Stream("stops", "agent_stops", _all(WHOLE, "until"), is_fact=True)

_HOST = (
    *_all(WHOLE, "first_ms", "last_ms", "ticks", "deleted_count", "psutil_ticks"),
    *_all(TEXT, "source"),
    *_all(WHOLE, "total_ram_max", "used_ram_sum", "used_ram_max"),
    *_all(WHOLE, "available_ram_sum", "available_ram_min"),
    *_all(PART, "cpu_usage_sum", "cpu_usage_max"),
    *_all(WHOLE, "cpu_count_max"),
    *_all(PART, "load1_sum", "load1_max"),
    *_all(WHOLE, "process_count_sum", "process_count_max", "tick_ms_sum", "tick_ms_max"),
    *_all(WHOLE, "container_count_n", "container_count_sum", "container_count_max"),
    *_all(WHOLE, "psi_memory_n"),
    *_all(PART, "psi_memory_sum", "psi_memory_max"),
    *_all(WHOLE, "checks_n", "agree_sum", "conflict_sum", "unverified_sum"),
    *_all(WHOLE, "conflict_ticks", "unverified_ticks", "events_lost"),
)

_CONTAINER = (
    Column("container_id", TEXT, "c.container_id"),
    Column("container_name", TEXT, "c.container_name"),
    Column("image", TEXT, "c.image"),
    Column("tier", TEXT, "c.tier"),
    *_all(WHOLE, "ticks"),
    *_all(PART, "held_mb_sum", "held_mb_max", "held_mb_last", "rss_mb_sum", "rss_mb_max"),
    *_all(WHOLE, "cache_mb_n"),
    *_all(PART, "cache_mb_sum", "cpu_usage_sum", "cpu_usage_max", "cpu_usage_last"),
    *_all(WHOLE, "cpu_short_lived_n"),
    *_all(PART, "cpu_short_lived_sum"),
    *_all(WHOLE, "cpu_unexplained_n"),
    *_all(PART, "cpu_unexplained_sum"),
    *_all(WHOLE, "processes_max", "starts", "exits", "oom_kills"),
    Column("engine", TEXT, "c.engine"),
)
"""An id is one engine's word alone; NULL is of before there were several: Docker's."""

_PROCESS = (
    *_all(WHOLE, "pid"),
    Column("name", TEXT, "n.name"),
    *_all(WHOLE, "ticks"),
    *_all(PART, "ram_usage_sum", "ram_usage_max", "cpu_usage_sum", "cpu_usage_max"),
    *_all(PART, "ram_usage_last", "cpu_usage_last"),
)


MINUTES, PROCESSES = "minutes", "processes"
"""What `[fleet]` may ask for beside what every host ships."""


def _hosts(level: str, since: int = 1, option: str = "") -> Stream:
    name, table = f"host_{level}", f"rollup_host_{level}"
    return Stream(name, table, _HOST, is_fact=level == "1d", since=since, option=option)


def _containers(level: str, since: int = 1, option: str = "") -> Stream:
    return Stream(
        f"container_{level}",
        f"rollup_container_{level}",
        _CONTAINER,
        joins=" JOIN rollup_containers c ON c.id = t.container",
        is_fact=level == "1d",
        since=since,
        option=option,
    )


def _processes(level: str) -> Stream:
    return Stream(
        f"process_{level}",
        f"rollup_process_{level}",
        _PROCESS,
        joins=" JOIN rollup_names n ON n.id = t.name_id",
        is_fact=level == "1d",
        since=3,
        option=PROCESSES,
    )


HOSTS, CONTAINERS = _hosts("5m"), _containers("5m")
HOSTS_1H, CONTAINERS_1H = _hosts("1h", 2), _containers("1h", 2)
HOSTS_1D, CONTAINERS_1D = _hosts("1d", 2), _containers("1d", 2)
"""What questions over more than a day are answered from; a twelfth more rows, made by the host."""
HOSTS_1M, CONTAINERS_1M = _hosts("1m", 3, MINUTES), _containers("1m", 3, MINUTES)
PROCESSES_5M, PROCESSES_1H, PROCESSES_1D = (_processes(level) for level in ("5m", "1h", "1d"))

STREAMS = (
    *(REMOVALS, STOPS, HOSTS, CONTAINERS),
    OOM_KILLS,
    *(HOSTS_1H, CONTAINERS_1H, HOSTS_1D, CONTAINERS_1D),
)
"""What every host ships."""
OPTIONAL = (HOSTS_1M, CONTAINERS_1M, PROCESSES_5M, PROCESSES_1H, PROCESSES_1D)
ALL_STREAMS = (*STREAMS, *OPTIONAL)
"""What a centre has tables of."""
BY_NAME = {stream.name: stream for stream in ALL_STREAMS}


def chosen(options: Collection[str]) -> tuple[Stream, ...]:
    """What a host ships that asks for `options`."""
    return (*STREAMS, *(one for one in OPTIONAL if one.option in options))
