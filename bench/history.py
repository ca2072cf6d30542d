"""Long histories, and how quickly the dashboards' queries answer on them.

    python -m bench.history make year.db --days 365 --history-days 7
    python -m bench.history measure year.db
    python -m bench.history queries year.db > queries.jsonl

`make` writes what an agent would have left: 300 processes, 10 containers of the generator's (some
7,200 names a day) and four that stay, two of them another engine's; short lives, ended processes,
removals that fail and some OOM kills a day; closed into buckets and deleted by the agent's own
code. Days that only buckets are left of have a tick a minute instead of three, or a year would take
a night. `measure` times each query of the dashboards with Python's SQLite, `queries` prints them
for another engine to time.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.config import RetentionSettings
from agent.store import database as sqlite
from agent.store.retention import Pruner
from agent.store.rollups import Roller
from tests.unit.grafana import plugin
from tests.unit.grafana.make_db import tick
from tests.unit.grafana.plugin import View
from tests.unit.grafana.world import (
    END_MS,
    Plan,
    World,
    daemons_of,
    database_service,
    grafana,
    twins,
)

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
RANGES_MS = {
    "1 h": HOUR_MS,
    "6 h": 6 * HOUR_MS,
    "12 h": 12 * HOUR_MS,
    "24 h": DAY_MS,
    "2 d": 2 * DAY_MS,
    "7 d": 7 * DAY_MS,
    "30 d": 30 * DAY_MS,
    "90 d": 90 * DAY_MS,
    "1 y": 365 * DAY_MS,
}
_SPARSE = 3
"""Ticks of 20 s in one of a day that only buckets are left of."""
_BUSY_PROCESSES = 45
"""All that ever are among the largest; a sparse tick has no others."""
_KILLS = 0.005
"""Some 20 OOM kills a day."""
_ENDED = 30
"""Processes that end in a tick: a container's start and end take some."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query as it reaches the plugin's backend."""

    name: str
    span: str
    chosen: str
    """`all` as Grafana's «All», `each` with every value of the variables listed."""
    sql: str


def make(path: Path, days: int, history_days: int, processes: int) -> None:
    """Writes a history of `days` that ends at `END_MS` to a new file."""
    path.unlink(missing_ok=True)
    database, _ = sqlite.open_database(path, 0)
    database.pragma("synchronous", 0)
    connection = sqlite.plain_connection(database)
    world = World(random.Random(7), Plan(processes=processes, kills=_KILLS))
    world.containers += [grafana(world), database_service(world), *twins(world)]
    everyone = daemons_of(world)
    some = everyone[:_BUSY_PROCESSES]
    begin_ms = END_MS - days * DAY_MS
    settings = RetentionSettings(history_days=history_days, max_database_mb=1024 * 1024)
    roller = Roller(database, lambda: 0)
    pruner = Pruner(database, settings, begin_ms * 10**6, 0)
    number = 0
    for day in range(days):
        left = days - day
        step = 1 if left <= history_days + 1 else _SPARSE
        connection.execute("BEGIN")
        for at in range(0, DAY_MS, 20_000 * step):
            now_ms = begin_ms + day * DAY_MS + at
            crowd = everyone if step == 1 else some
            tick(connection, world, crowd, number, 0.0, now_ms, True)
            if step == 1:
                _end_some(connection, now_ms)
            number += step
        connection.execute("COMMIT")
        while roller.run(now_ms):
            pass
        connection.execute("DELETE FROM process_stats WHERE timestamp < ?", (now_ms - DAY_MS,))
        connection.execute("DELETE FROM container_stats WHERE timestamp < ?", (now_ms - DAY_MS,))
        elapsed_ns = (now_ms - begin_ms) * 10**6
        while pruner.run(now_ms * 10**6, elapsed_ns, 10**6, roller.closed_ms, by_age=True):
            pass
        print(f"\rday {day + 1} of {days}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
    sqlite.leave(database, path, wait=True)


def _end_some(connection: sqlite3.Connection, now_ms: int) -> None:
    connection.executemany(
        "INSERT INTO ended_processes (timestamp,started,pid,process_name,parent_pid,parent_name,"
        "container_id,container_name,status,oom,cpu_ms,peak_rss_mb)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        [
            (
                *(now_ms - number, now_ms - 9000, 5000 + number, "runc:[2:INIT]", 4900, "runc"),
                *("0123456789ab", "so1_contenedor_12345", 0, 0, 12.345, 9.5),
            )
            for number in range(_ENDED)
        ],
    )


def queries(connection: sqlite3.Connection) -> Iterator[Query]:
    """Each panel, variable and annotation over each range, for all and for each value listed."""
    for span, span_ms in RANGES_MS.items():
        everything = View(END_MS - span_ms, END_MS)
        chosen: dict[str, list[str]] = {}
        for name in plugin.NAMES:
            for variable in plugin.load(name)["templating"]["list"]:
                if variable["type"] == "query":
                    sql = everything.expand(variable["query"], plugin.interval_ms(span_ms, 100))
                    yield Query(f"{name}: variable {variable['name']}", span, "all", sql)
                    found = connection.execute(sql).fetchall()
                    chosen[variable["name"]] = [str(row[1]) for row in found]
            for mark in plugin.load(name)["annotations"]["list"]:
                sql = mark["target"]["rawQueryText"]
                text = everything.expand(sql, plugin.interval_ms(span_ms, 100))
                yield Query(f"{name}: {mark['name']}", span, "all", text)
        each = View(END_MS - span_ms, END_MS, chosen)
        for panel in plugin.panels():
            yield Query(str(panel), span, "all", everything.expand(panel.sql, _of(panel, span_ms)))
            if "${" in panel.sql:
                yield Query(str(panel), span, "each", each.expand(panel.sql, _of(panel, span_ms)))


def _of(panel: plugin.Panel, span_ms: int) -> int:
    return plugin.interval_ms(span_ms, panel.max_data_points)


def measure(connection: sqlite3.Connection) -> None:
    """Prints the slowest queries of each range, the best of three runs in processor time."""
    for query in queries(connection):
        spent_ms = []
        for _ in range(3):
            began_s = time.thread_time()
            connection.execute(query.sql).fetchall()
            spent_ms.append((time.thread_time() - began_s) * 1000)
        print(f"{min(spent_ms):8.1f} ms  {query.span:5} {query.chosen:5} {query.name}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.history", description=__doc__)
    parser.add_argument("what", choices=("make", "measure", "queries"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--history-days", type=int, default=30)
    parser.add_argument("--processes", type=int, default=285)
    words = parser.parse_args()
    if words.what == "make":
        make(words.file, words.days, words.history_days, words.processes)
        print(f"{words.file}: {words.file.stat().st_size / 2**20:.0f} MB")
        return
    connection = sqlite3.connect(f"file:{words.file}?mode=ro", uri=True)
    if words.what == "measure":
        measure(connection)
        return
    for query in queries(connection):
        name = f"{query.span}|{query.chosen}|{query.name}"
        print(json.dumps({"name": name, "sql": query.sql}))


if __name__ == "__main__":
    main()
