"""The history by buckets of time: which figures of a tick are kept, and how they are folded.

Each column of a bucket is described once: how it is made from ticks, and how it is folded from the
finer level. Means are sums with counts, so that they can be folded again; a column that may be NULL
has a count of its own. The tables and their views are in `migrations/0010_rollups.py`, a
container's engine in `0065_engine_of_buckets.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

LARGEST = 20
"""So many containers or processes of a bucket have a row of their own; the rest share one."""

OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Level:
    """Buckets of one length; `finer` is what they are made from, "" for ticks."""

    name: str
    bucket_ms: int
    finer: str

    def begin(self, at_ms: int) -> int:
        return at_ms // self.bucket_ms * self.bucket_ms


LEVELS = (
    Level("5m", 300_000, ""),
    Level("1h", 3_600_000, "5m"),
    Level("1d", 86_400_000, "1h"),
)
MINUTE = Level("1m", 60_000, "")
"""Beside them, of hosts and containers, where a fleet asks for it: a queue that only it reads."""


@dataclass(frozen=True, slots=True)
class Rolled:
    """One column of a bucket: SQL over ticks, and the aggregate that folds buckets together."""

    name: str
    made: str
    fold: str


@dataclass(frozen=True, slots=True)
class Rollup:
    """What there is a table of at each level."""

    name: str
    ticks: str
    """Where its rows of ticks are."""
    key: tuple[str, ...]
    """What tells its rows of one bucket apart."""
    columns: tuple[Rolled, ...]
    last: tuple[str, ...] = ()
    """Columns of which the value at the last tick is kept too."""
    names: str = ""
    """The join that gives a closed bucket's rows their key, where names are kept apart."""
    memory: str = ""
    """The column that says which are largest by memory, "" where all have a row of their own."""
    cpu: str = ""

    def table(self, level: Level) -> str:
        return f"rollup_{self.name}_{level.name}"

    def source(self, level: Level) -> str:
        """What a bucket of `level` is made from."""
        return f"rollup_{self.name}_{level.finer}{self.names}" if level.finer else self.ticks

    def figures(self, level: Level) -> tuple[str, ...]:
        """SQL of each column, over `source`."""
        return tuple(f"{one.fold}({one.name})" if level.finer else one.made for one in self.columns)

    def last_of(self, level: Level) -> tuple[str, ...]:
        return tuple(f"{one}_last" if level.finer else one for one in self.last)

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns of its tables without `id`, `timestamp` and the key."""
        return (*(one.name for one in self.columns), *(f"{one}_last" for one in self.last))


def _figure(name: str, *folds: str, null: bool = False) -> tuple[Rolled, ...]:
    counted = (Rolled(f"{name}_n", f"count({name})", "sum"),) if null else ()
    return (*counted, *(Rolled(f"{name}_{fold}", f"{fold}({name})", fold) for fold in folds))


def _total(name: str, made: str = "") -> tuple[Rolled, ...]:
    return (Rolled(name, made or f"sum({name})", "sum"),)


_SURE = (
    "total_ram",
    "free_ram",
    "used_ram",
    "available_ram",
    "cpu_usage",
    "cpu_count",
    "load1",
    "process_count",
    "tick_ms",
)
_UNSURE = ("container_count", "psi_memory", "psi_cpu")
_CHECKS = ("agree", "conflict", "unverified", "added", "strayed", "moved", "dropped")

_LOSSES = ("events_lost", "events_corrected", "events_late", "events_missed")

HOST = Rollup(
    "host",
    "metrics LEFT JOIN attribution_checks USING (timestamp)",
    (),
    (
        Rolled("first_ms", "min(timestamp)", "min"),
        Rolled("last_ms", "max(timestamp)", "max"),
        *_total("ticks", "count(*)"),
        *_total("deleted_count"),
        # 'psutil' sorts after 'modules': the worst.
        Rolled("source", "max(source)", "max"),
        *_total("psutil_ticks", "sum(source = 'psutil')"),
        *(column for name in _SURE for column in _figure(name, "sum", "min", "max")),
        *(column for name in _UNSURE for column in _figure(name, "sum", "min", "max", null=True)),
        *_total("checks_n", "count(agree)"),
        *(column for name in _CHECKS for column in _figure(name, "sum", "max")),
        *_total("conflict_ticks", "sum(conflict > 0)"),
        *_total("unverified_ticks", "sum(unverified > 0)"),
        *(column for name in _LOSSES for column in _total(name)),
    ),
    (*_SURE, *_UNSURE),
)

CONTAINER = Rollup(
    "container",
    "container_totals",
    ("container_id", "container_name", "image", "tier", "engine"),
    (
        *_total("ticks", "count(*)"),
        *_figure("held_mb", "sum", "max"),
        *_figure("rss_mb", "sum", "max"),
        *_figure("cache_mb", "sum", null=True),
        *_figure("cpu_usage", "sum", "max"),
        *_figure("cpu_short_lived", "sum", null=True),
        *_figure("cpu_unexplained", "sum", null=True),
        *_figure("processes", "max"),
        *_total("starts"),
        *_total("exits"),
        *_total("oom_kills"),
    ),
    ("held_mb", "cpu_usage"),
    names=" JOIN rollup_containers c ON c.id = container",
    memory="held_mb_sum",
    cpu="cpu_usage_sum",
)

PROCESS = Rollup(
    "process",
    "process_stats",
    ("pid", "name"),
    (
        *_total("ticks", "count(*)"),
        *_figure("ram_usage", "sum", "max"),
        *_figure("cpu_usage", "sum", "max"),
    ),
    ("ram_usage", "cpu_usage"),
    names=" JOIN rollup_names n ON n.id = name_id",
    memory="ram_usage_sum",
    cpu="cpu_usage_sum",
)

REMOVALS = Rollup(
    "removals", "deletions", ("tier", "outcome", "reason"), _total("removals", "count(*)")
)

KINDS = (HOST, CONTAINER, PROCESS, REMOVALS)

MINUTE_TABLES = tuple(kind.table(MINUTE) for kind in (HOST, CONTAINER))
FINE_TABLES = tuple(kind.table(LEVELS[0]) for kind in KINDS)
COARSE_TABLES = (
    *(kind.table(level) for level in LEVELS[1:] for kind in KINDS),
    "agent_stops",
)

CONTAINER_KEY = "container"
PROCESS_KEY = ("pid", "name_id")


def promised() -> dict[str, tuple[str, ...]]:
    """Every table of buckets, and its columns."""
    keys = {"host": (), "container": (CONTAINER_KEY,), "process": PROCESS_KEY}
    found = {
        kind.table(level): ("id", "timestamp", *keys.get(kind.name, kind.key), *kind.stored)
        for level in (MINUTE, *LEVELS)
        for kind in (KINDS if level in LEVELS else (HOST, CONTAINER))
    }
    found["agent_stops"] = ("id", "timestamp", "until")
    found["rollup_containers"] = ("id", *CONTAINER.key)
    found["rollup_names"] = ("id", "name")
    found["rollup_until"] = ("bucket_ms", "until")
    return found
