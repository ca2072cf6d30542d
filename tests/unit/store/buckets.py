"""What each bucket of the history should hold, reckoned in plain Python over the rows of ticks.

Knows nothing of the SQL under test. A bucket of any level is reckoned from ticks alone where no row
is among the others; where some are, level by level, as the rule for the largest has it.
"""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

from agent.store import database as sqlite

Row = dict[str, Any]
LENGTHS = {"5m": 300_000, "1h": 3_600_000, "1d": 86_400_000}
KEEP = 20


def read(connection: sqlite3.Connection, table: str) -> list[Row]:
    cursor = connection.execute(f"SELECT * FROM {table} ORDER BY timestamp")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def by_bucket(rows: list[Row], length: int) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["timestamp"] - row["timestamp"] % length].append(row)
    return found


def known(rows: list[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if row[column] is not None]


def summed(rows: list[Row], column: str) -> Any:
    values = known(rows, column)
    return sum(values) if values else None


def most(rows: list[Row], column: str) -> Any:
    return max(known(rows, column), default=None)


SURE = (
    *("total_ram", "free_ram", "used_ram", "available_ram", "cpu_usage", "cpu_count", "load1"),
    *("process_count", "tick_ms"),
)
UNSURE = ("container_count", "psi_memory", "psi_cpu")
LOSSES = ("events_lost", "events_corrected", "events_late", "events_missed")
CHECKS = ("agree", "conflict", "unverified", "added", "strayed", "moved", "dropped")


def host(ticks: list[Row], checks: list[Row]) -> Row:
    found: Row = {
        "first_ms": ticks[0]["timestamp"],
        "last_ms": ticks[-1]["timestamp"],
        "ticks": len(ticks),
        "deleted_count": summed(ticks, "deleted_count"),
        "source": most(ticks, "source"),
        "psutil_ticks": sum(row["source"] == "psutil" for row in ticks),
        "checks_n": len(checks),
        "conflict_ticks": sum(row["conflict"] > 0 for row in checks) if checks else None,
        "unverified_ticks": sum(row["unverified"] > 0 for row in checks) if checks else None,
        **{name: summed(checks, name) for name in LOSSES},
    }
    for name in (*SURE, *UNSURE):
        found[f"{name}_sum"] = summed(ticks, name)
        found[f"{name}_min"] = min(known(ticks, name), default=None)
        found[f"{name}_max"] = most(ticks, name)
        found[f"{name}_last"] = ticks[-1][name]
    for name in UNSURE:
        found[f"{name}_n"] = len(known(ticks, name))
    for name in CHECKS:
        found[f"{name}_sum"] = summed(checks, name)
        found[f"{name}_max"] = most(checks, name)
    return found


def container(rows: list[Row]) -> Row:
    return {
        "ticks": len(rows),
        "held_mb_sum": summed(rows, "held_mb"),
        "held_mb_max": most(rows, "held_mb"),
        "held_mb_last": rows[-1]["held_mb"],
        "rss_mb_sum": summed(rows, "rss_mb"),
        "rss_mb_max": most(rows, "rss_mb"),
        "cache_mb_n": len(known(rows, "cache_mb")),
        "cache_mb_sum": summed(rows, "cache_mb"),
        "cpu_usage_sum": summed(rows, "cpu_usage"),
        "cpu_usage_max": most(rows, "cpu_usage"),
        "cpu_usage_last": rows[-1]["cpu_usage"],
        "cpu_short_lived_n": len(known(rows, "cpu_short_lived")),
        "cpu_short_lived_sum": summed(rows, "cpu_short_lived"),
        "cpu_unexplained_n": len(known(rows, "cpu_unexplained")),
        "cpu_unexplained_sum": summed(rows, "cpu_unexplained"),
        "processes_max": most(rows, "processes"),
        **{name: summed(rows, name) for name in ("starts", "exits", "oom_kills")},
    }


def process(rows: list[Row]) -> Row:
    return {
        "ticks": len(rows),
        **{f"{name}_sum": summed(rows, name) for name in ("ram_usage", "cpu_usage")},
        **{f"{name}_max": most(rows, name) for name in ("ram_usage", "cpu_usage")},
        **{f"{name}_last": rows[-1][name] for name in ("ram_usage", "cpu_usage")},
    }


Keyed = dict[tuple[Any, ...], list[Row]]


def keyed(rows: list[Row], *key: str) -> Keyed:
    found: Keyed = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in key)].append(row)
    return found


CONTAINER_KEY = ("container_id", "container_name", "image", "tier", "engine")


def members(groups: Keyed, memory: str, cpu: str) -> Keyed:
    """Each key's rows of ticks, those of the ones that are not among the largest under others'."""

    def ranked(column: str) -> dict[tuple[Any, ...], int]:
        keys = [key for key in groups if "(others)" not in key]
        keys.sort(key=lambda key: (-sum(row[column] for row in groups[key]), key))
        return {key: place for place, key in enumerate(keys)}

    by_memory, by_cpu = ranked(memory), ranked(cpu)
    better = sorted(by_memory, key=lambda key: (min(by_memory[key], by_cpu[key]), by_memory[key]))[
        :KEEP
    ]
    found: Keyed = defaultdict(list)
    for key, rows in groups.items():
        if key in better:
            found[key] += rows
        elif len(key) == 2:
            found[0, "(others)"] += rows
        else:
            found["", "(others)", "", *key[3:]] += rows
    return found


def named(
    rows: list[Row], level: str, key: tuple[str, ...], memory: str, cpu: str
) -> dict[int, Keyed]:
    """By bucket and key the rows of ticks behind it, through all levels below."""
    found: dict[int, Keyed] = {}
    for begin, group in by_bucket(rows, LENGTHS["5m"]).items():
        found[begin] = members(keyed(group, *key), memory, cpu)
    for name in ("1h", "1d"):
        if level == "5m" or (level == "1h" and name == "1d"):
            break
        coarser: dict[int, Keyed] = {}
        for begin, groups in sorted(found.items()):
            into = coarser.setdefault(begin - begin % LENGTHS[name], defaultdict(list))
            for one, ticks in groups.items():
                into[one] += ticks
        found = {begin: members(groups, memory, cpu) for begin, groups in coarser.items()}
    return found


def a_history(path: Path, seed: int, *, hours: float = 30.0, crowd: int = 8) -> list[int]:
    """Ticks with everything that may be odd in them; gives their timestamps.

    Gaps, restarts, a Docker and a BPF that are away, a clock that jumps, ticks at the very edge of
    a bucket, containers that share a name, come for a tick or are renamed.
    """
    rng = random.Random(seed)
    database, _ = sqlite.open_database(path, 0)
    sqlite.leave(database, path, wait=False)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    at = 1_764_000_000_000 + rng.randrange(86_400_000)
    end = at + int(hours * 3_600_000)
    stamps: list[int] = []
    alive: list[tuple[str, str, str, str, float]] = []
    with connection:
        while at < end:
            stamps.append(at)
            _write(connection, rng, at, alive, crowd)
            step = rng.choice((20_000, 20_000, 60_000, 300_000 - at % 300_000))
            step = rng.choice((1, 7_200_000, 400_000)) if rng.random() < 0.02 else step
            at += max(1, step)
    connection.close()
    return stamps


def _write(
    connection: sqlite3.Connection,
    rng: random.Random,
    at: int,
    alive: list[tuple[str, str, str, str, float]],
    crowd: int,
) -> None:
    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.3 else value

    alive[:] = [one for one in alive if rng.random() < 0.9]
    while len(alive) < crowd:
        number = rng.randrange(10**9)
        tier = rng.choice(("low", "high", "none"))
        alive.append((f"{number:012x}", f"c{number % 5}", "alpine", tier, rng.random() * 100))
    removed = int(rng.random() < 0.2)
    source = rng.choice(("modules", "modules", "psutil"))
    connection.execute(
        f"INSERT INTO metrics VALUES (NULL{', ?' * 15})",
        (
            *(at, 8_000_000, rng.randrange(10**6), rng.randrange(10**7), maybe(len(alive)), 9),
            *(removed, rng.randrange(10**7), rng.random() * 100, 4, rng.random()),
            *(maybe(rng.random()), maybe(rng.random()), source, rng.randrange(2000)),
        ),
    )
    there = {row[1] for row in connection.execute("PRAGMA table_info(attribution_checks)")}
    checks = [name for name in (*CHECKS, *LOSSES) if name in there]
    connection.execute(
        f"INSERT INTO attribution_checks (timestamp, {', '.join(checks)})"
        f" VALUES (?{', ?' * len(checks)})",
        (at, *(rng.randrange(3) for _ in checks)),
    )
    for identity, name, image, tier, held in alive:
        connection.execute(
            "INSERT INTO container_totals (timestamp, container_id, container_name, image, tier,"
            " governed, processes, held_mb, held_basis, rss_mb, cache_mb, cpu_usage,"
            " cpu_short_lived, cpu_unexplained, starts, exits, oom_kills)"
            f" VALUES (?{', ?' * 16})",
            (
                *(at, identity, name, image, tier, 1, rng.randrange(4), held * rng.random()),
                *("cgroup2", held, maybe(held / 3), rng.random() * 90, maybe(rng.random())),
                *(maybe(rng.random()), maybe(rng.randrange(3)), maybe(rng.randrange(3)), 0),
            ),
        )
    for pid in rng.sample(range(1, 60), crowd):
        connection.execute(
            "INSERT INTO process_stats VALUES (NULL, ?, ?, ?, ?, ?)",
            (at, pid, f"p{pid % 7}", rng.random() * 50, rng.random() * 100),
        )
    if removed:
        connection.execute(
            "INSERT INTO deletions (timestamp, decision, container_id, container_name, image, tier,"
            " rank, reason, held_mb, cpu_usage, outcome, duration_ms, error, available_before_mb,"
            f" available_after_mb) VALUES (?{', ?' * 14})",
            (
                *(at, "d", alive[0][0], alive[0][1], "alpine", alive[0][3], 1),
                *(rng.choice(("excess-low", "exited")), 1.0, 1.0),
                *(rng.choice(("removed", "failed")), 5, "", 1.0, 2.0),
            ),
        )
