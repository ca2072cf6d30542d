"""How long `agent policy replay` takes over a long history, and with how much memory.

    python -m bench.replay make month.db --days 30
    python -m bench.replay measure month.db --runs 3

`make` writes what an agent would have left of 20 containers in so many days, 4,320 ticks a day,
governed by its own policy: the built-in set and a rule of one's own, something new every half an
hour. `measure` runs the command itself in a process of its own, under the rules of then and under
others: wall time, processor time and the most resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.config import decode_config
from agent.store import database as sqlite
from agent.store.database import plain_connection

TICK_MS = 20_000
TICKS_A_DAY = 4_320
_OWN = '[[policy.rule]]\nname = "jobs"\nmatch = { name = "job-*" }\n'
LIVE = _OWN + 'keep = 6\norder = "held"\naction = "remove"\n'
OTHERS = {
    "one acts now and then": _OWN + 'when = { held_mb = 400 }\naction = "remove"\n',
    "a time counts in most ticks": _OWN
    + 'when = { cpu = { above = 10, for = "30m" } }\naction = "remove"\n',
    "a rule holds in each": _OWN + 'when = { held_mb = 1 }\naction = "notify"\n',
    "a rule of the host's memory": _OWN + 'when = { available_mb = 3000 }\naction = "stop"\n',
}
_TOTALS = """
    INSERT INTO container_totals (timestamp, container_id, container_name, image, tier, governed,
      processes, held_mb, held_basis, rss_mb, cache_mb, cpu_usage, cpu_short_lived, cpu_unexplained,
      starts, exits, oom_kills, swap_mb, held_estimated_mb, rule)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'cgroup2', ?, 12.5, ?, 0.01, 0.02, 0, 0, 0, 0.0, 0.0, ?)
"""
_METRICS = """
    INSERT INTO metrics (timestamp, total_ram, free_ram, used_ram, container_count, process_count,
      deleted_count, available_ram, cpu_usage, cpu_count, load1, psi_memory, psi_cpu, source,
      tick_ms)
    VALUES (?, 8000000, 2000000, 4000000, 20, 300, ?, ?, 12.5, 2, 0.5, 0.4, 1.2, 'modules', 60)
"""
_CHECKS = """
    INSERT INTO attribution_checks (timestamp, agree, conflict, unverified, added, strayed, moved,
      dropped, events_lost) VALUES (?, 60, 0, 0, 0, 0, 0, 0, 0)
"""
_STATE = """
    INSERT INTO container_states (timestamp, engine, container_id, state, health, created, started,
      disputed) VALUES (?, 'docker', ?, 'running', '', ?, ?, 0)
"""
_DELETION = """
    INSERT INTO deletions (timestamp, decision, container_id, container_name, image, tier, rank,
      reason, held_mb, cpu_usage, outcome, duration_ms, error, available_before_mb,
      available_after_mb, action, rule)
    VALUES (?, ?, ?, ?, ?, ?, 1, 'rule', ?, ?, 'removed', 300, '', 4000, 4050, 'remove', ?)
"""


@dataclass(slots=True)
class _One:
    id: str
    name: str
    image: str
    tier: str
    rule: str | None
    held_mb: float
    cpu: float
    started_ms: int


_KINDS = (
    # name, image, tier, rule, how many stay
    ("job", "registry.example/job:1", "none", "jobs", 6),
    ("so1_contenedor", "alpine:latest", "low", "original-low", 3),
    ("so1_contenedor", "polinux/stress", "high", "original-high", 2),
    ("svc", "registry.example/service:2", "none", None, 9),
)


def make(path: Path, days: int) -> None:
    """Writes a history that ends now to a new file."""
    path.unlink(missing_ok=True)
    database, _ = sqlite.open_database(path, 0)
    database.pragma("synchronous", 0)
    connection = plain_connection(database)
    chance = random.Random(7)
    numbers = iter(range(1, 10**9))
    begin_ms = time.time_ns() // 10**6 - days * TICKS_A_DAY * TICK_MS
    crowd = [_new(kind, next(numbers), chance, begin_ms) for kind in _KINDS for _ in range(kind[4])]
    settings = msgspec.json.encode(decode_config(LIVE, "agent.toml").policy).decode()
    connection.execute("INSERT INTO policy_rules VALUES (NULL, ?, ?)", (begin_ms, settings))
    for day in range(days):
        connection.execute("BEGIN")
        for tick in range(day * TICKS_A_DAY, (day + 1) * TICKS_A_DAY):
            _tick(connection, crowd, tick, begin_ms + tick * TICK_MS, chance, numbers)
        connection.execute("COMMIT")
        print(f"\rday {day + 1} of {days}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    sqlite.leave(database, path, wait=True)


def _new(
    kind: tuple[str, str, str, str | None, int], number: int, chance: random.Random, at_ms: int
) -> _One:
    name, image, tier, rule, _ = kind
    container_id = f"{chance.getrandbits(48):012x}"
    held_mb = chance.uniform(20, 300)
    return _One(container_id, f"{name}-{number}", image, tier, rule, held_mb, 0.0, at_ms)


def _tick(
    connection: sqlite3.Connection,
    crowd: list[_One],
    tick: int,
    at_ms: int,
    chance: random.Random,
    numbers: Iterator[int],
) -> None:
    kind = _KINDS[tick // 90 % 3]
    comes = tick % 90 == 45
    if comes:
        crowd.append(_new(kind, next(numbers), chance, at_ms))
    for one in crowd:
        one.held_mb = max(1.0, one.held_mb + chance.uniform(-2, 2))
        one.cpu = round(chance.uniform(0, 40), 3)
    rows = [
        (
            *(at_ms, one.id, one.name, one.image, one.tier, int(one.rule is not None), 3),
            *(one.held_mb, one.held_mb * 0.9, one.cpu, one.rule),
        )
        for one in crowd
    ]
    connection.executemany(_TOTALS, rows)
    changed = crowd if tick % 180 == 0 else crowd[-1:] if comes else []
    connection.executemany(
        _STATE, [(at_ms, one.id, one.started_ms, one.started_ms) for one in changed]
    )
    connection.execute(_METRICS, (at_ms, int(comes), chance.uniform(2_800_000, 4_000_000)))
    connection.execute(_CHECKS, (at_ms,))
    if comes:
        of_kind = [one for one in crowd if one.rule == kind[3]]
        goes = min(of_kind, key=lambda one: (-int(one.held_mb + 0.5), -one.cpu, one.id))
        crowd.remove(goes)
        told = (f"{tick:012x}", goes.id, goes.name, goes.image, goes.tier)
        connection.execute(_DELETION, (at_ms, *told, goes.held_mb, goes.cpu, goes.rule))


def measure(path: Path, days: int, runs: int) -> list[dict[str, object]]:
    """Each way of replaying so often; prints a line for each run."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        config = place / "agent.toml"
        config.write_text(f'[paths]\ndatabase = "{path.resolve()}"\n{LIVE}', encoding="utf-8")
        ways: dict[str, tuple[str, ...]] = {"the rules of then": ()}
        for number, (name, text) in enumerate(OTHERS.items()):
            (place / f"{number}.toml").write_text(text, encoding="utf-8")
            ways[name] = ("--with", str(place / f"{number}.toml"))
        for _ in range(runs):
            for name, words in ways.items():
                one = _run(name, config, days, words)
                found.append(one)
                print(
                    f"{one['wall_s']:6.2f} s wall  {one['cpu_s']:6.2f} s CPU  "
                    f"{one['max_rss_mb']:5.1f} MB  {name}: {one['came']}",
                    flush=True,
                )
    return found


def _run(name: str, config: Path, days: int, words: tuple[str, ...]) -> dict[str, object]:
    command = [sys.executable, "-m", "agent", "policy", "replay", "--since", f"{days}d"]
    began_s = time.monotonic()
    with subprocess.Popen(
        [*command, "--json", "--config", str(config), *words], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began_s
    if process.returncode:
        raise SystemExit(f"the replay ended with status {process.returncode}")
    replay = json.loads(told)["replay"]
    keys = ("ticks", "recorded", "reproduced", "action_count")
    return {
        "way": name,
        "wall_s": round(wall_s, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "max_rss_mb": round(used.ru_maxrss / 1024, 1),
        "came": {key: replay[key] for key in keys} | {"differences": len(replay["differences"])},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.replay", description=__doc__)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    if words.what == "make":
        make(words.file, words.days)
        print(f"{words.file}: {words.file.stat().st_size / 2**20:.0f} MB")
        return
    found = measure(words.file, words.days + 1, words.runs)
    if words.json:
        words.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
