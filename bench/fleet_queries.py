"""`python -m bench.fleet_queries`: «Monitor de Flota» over 1,000 hosts and 30 days.

The centre's rows are made inside the server, as many as hosts would ship (10 containers and one
«(others)» each): hours and days of the whole time, 5 minutes of the last seven hours. Each query of
the dashboard is run three times as a reader. `--close-up` fills and asks only what the panels of
minutes and of processes read, as if every host shipped both.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from agent.fleet import centre as administration
from agent.fleet.connection import connected
from agent.fleet.streams import BY_NAME, Stream
from bench.fleet import PROCESSES, QUIET, cpu_s
from tests.fleet.flota_oracle import Seen
from tests.fleet.flota_world import DAY, FIVE, HOUR, MINUTE, Fleet
from tests.fleet.postgres import server
from tests.fleet.test_flota import PANELS, expand
from tests.unit.grafana.plugin import interval_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fleet.postgres import Server

CONTAINERS = 11
ROOMY = {
    "shared_buffers": "'1GB'",
    "work_mem": "'64MB'",
    "fsync": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}
RANGES = {"6 h": 6 * HOUR, "36 h": 36 * HOUR, "7 d": 7 * DAY, "30 d": 30 * DAY}

_REMOVED = {
    "decision": "'d' || n",
    "container_id": "md5(h || ' ' || n) || md5(n::text)",
    "container_name": "'c' || n % 50",
    "image": "'image'",
    "tier": "'low'",
    "rank": "1",
    "reason": "CASE n % 3 WHEN 0 THEN 'exited' ELSE 'excess-low' END",
    "held_mb": "5",
    "cpu_usage": "1",
    "outcome": "CASE n % 20 WHEN 0 THEN 'failed' ELSE 'removed' END",
    "rule": "'rule-' || n % 4",
    "engine": "'docker'",
}
_KILLED = {
    "pid": "n",
    "process_name": "'worker'",
    "container_id": "md5(h || ' ' || n % 10) || md5((n % 10)::text)",
    "container_name": "'service-' || (h * 7 + n % 10) % 400",
    "image": "'image'",
    "cgroup": "''",
    "cause": "CASE n % 4 WHEN 0 THEN 'global' ELSE 'limit' END",
    "anon_mb": "100",
    "used_mb": "128",
}


def _values(stream: Stream) -> str:
    """SQL for each column: plausible, and different from host to host and time to time."""
    made = []
    for one in stream.columns:
        if one.name == "container_id":
            made.append("CASE c WHEN 10 THEN '' ELSE md5(h || ' ' || c) || md5(c::text) END")
        elif one.name == "container_name":
            made.append("CASE c WHEN 10 THEN '(others)' ELSE 'service-' || (h * 7 + c) % 400 END")
        elif one.name == "name":
            made.append("CASE c WHEN 20 THEN '(others)' ELSE 'program-' || (h * 7 + c) % 400 END")
        elif one.name == "pid":
            made.append("CASE c WHEN 20 THEN 0 ELSE 400 + h % 90 + c END")
        elif one.type == "text":
            made.append("CASE h % 3 WHEN 0 THEN 'low' ELSE 'high' END")
        elif one.name in ("ticks", "checks_n", "container_count_n"):
            made.append("15")
        elif one.name in ("conflict_ticks", "events_lost", "oom_kills", "conflict_sum"):
            made.append("(random() < 0.01)::int")
        elif one.name == "total_ram_max":
            made.append("16000000")
        elif one.type == "bigint":
            made.append("(random() * 200000000)::bigint")
        else:
            made.append("random() * 1000")
    return ", ".join(made)


@dataclass(frozen=True, slots=True)
class Part:
    """What is made of one stream: `each` rows a host and bucket over the last `span_ms`."""

    stream: str
    bucket_ms: int
    span_ms: int
    each: int = 1


WHOLE = tuple(
    Part(f"{kind}_{level}", bucket, span, each)
    for level, bucket, span in (
        ("1d", DAY, 30 * DAY),
        ("1h", HOUR, 30 * DAY),
        ("5m", FIVE, 7 * HOUR),
    )
    for kind, each in (("host", 1), ("container", CONTAINERS))
)
CLOSE_UP = (
    *(one for one in WHOLE if one.stream.startswith("host")),
    *(Part("host_1m", MINUTE, HOUR), Part("container_1m", MINUTE, HOUR, CONTAINERS)),
    *(Part("process_1d", DAY, 30 * DAY, PROCESSES), Part("process_1h", HOUR, 2 * DAY, PROCESSES)),
    Part("process_5m", FIVE, 3 * HOUR, PROCESSES),
)
CLOSE_PANELS = (
    *("CPU y RAM por Minuto", "RAM Retenida por Contenedor y Minuto"),
    *("Procesos Mayores", "CPU por Proceso en el Tiempo"),
)


def fill(one: Server, hosts: int, now_ms: int, parts: Sequence[Part]) -> dict[str, int]:
    """The rows of a fleet that has been shipping for 30 days; how many of each stream."""
    installation = "lpad(to_hex(h), 32, '0')"
    one.ask(
        "INSERT INTO so1.installations (installation, secret_hash, name, seen_at)"
        f" SELECT {installation}, '', 'host-' || h, clock_timestamp()"
        f" FROM generate_series(1, {hosts}) h"
    )
    epoch = "'00000000-0000-4000-8000-000000000001'::uuid"
    one.ask(
        "INSERT INTO so1.epochs (installation, epoch, reason)"
        f" SELECT {installation}, {epoch}, 'first' FROM generate_series(1, {hosts}) h"
    )
    found = {}
    for part in parts:
        bucket, stream = part.bucket_ms, BY_NAME[part.stream]
        until = now_ms // bucket * bucket - bucket
        first = (now_ms - part.span_ms) // bucket * bucket
        names = ", ".join(column.name for column in stream.columns)
        one.ask(
            f"INSERT INTO so1.{stream.name} (installation, epoch, id, timestamp, {names})"
            f" SELECT {installation}, {epoch}, at / {bucket} * 30 + c, at, {_values(stream)}"
            f" FROM generate_series({first}, {until}, {bucket}) at,"
            f" generate_series(1, {hosts}) h, generate_series(0, {part.each} - 1) c"
        )
        one.ask(
            "INSERT INTO so1.cursors (installation, epoch, stream, last_id, last_timestamp)"
            f" SELECT {installation}, {epoch}, '{stream.name}', 1, {until}"
            f" FROM generate_series(1, {hosts}) h"
        )
        found[stream.name] = one.ask(f"SELECT count(*) FROM so1.{stream.name}")[0][0]
    for name, count, values in (("removals", 1000, _REMOVED), ("oom_kills", 100, _KILLED)):
        columns = [column.name for column in BY_NAME[name].columns]
        one.ask(
            f"INSERT INTO so1.{name} (installation, epoch, id, timestamp, {', '.join(columns)})"
            f" SELECT {installation}, {epoch}, n, {now_ms} - n * {30 * DAY // count}::bigint - h,"
            f" {', '.join(values.get(column, 'NULL') for column in columns)}"
            f" FROM generate_series(1, {hosts}) h, generate_series(1, {count}) n"
        )
        found[name] = hosts * count
    one.ask("VACUUM ANALYZE")
    return found


def measure(one: Server, now_ms: int, titles: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """By panel and range: the best of three, wall seconds and the server's CPU seconds."""
    found: dict[str, dict[str, list[float]]] = {}
    with psycopg.connect(one.dsn("grafana_bench"), autocommit=True) as reader:
        for title in titles:
            panel = PANELS[title]
            found[title] = {}
            for name, span in RANGES.items():
                interval = interval_ms(span, panel.get("maxDataPoints") or 1500)
                seen = Seen(Fleet(now_ms, []), now_ms - span, now_ms, interval)
                sql = expand(panel["targets"][0]["rawSql"], seen)
                best = [1e9, 1e9]
                for _ in range(3):
                    spent, began = cpu_s(one), time.monotonic()
                    reader.execute(sql).fetchall()
                    best[0] = min(best[0], time.monotonic() - began)
                    best[1] = min(best[1], cpu_s(one) - spent)
                found[title][name] = [round(value, 3) for value in best]
            print(title, found[title], flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fleet_queries", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--close-up", action="store_true")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    # The end of an hour, so that the newest one is being written.
    now_ms = time.time_ns() // 10**6
    with server(bool, **{**QUIET, **ROOMY}) as one:
        with connected(one.dsn()) as connection:
            administration.initialise(connection, 60, 31)
        one.ask("CREATE ROLE grafana_bench LOGIN IN ROLE so1_reader")
        rows = fill(one, words.hosts, now_ms, CLOSE_UP if words.close_up else WHOLE)
        print(rows, flush=True)
        titles = CLOSE_PANELS if words.close_up else tuple(PANELS)
        found: dict[str, Any] = {"rows": rows, "panels": measure(one, now_ms, titles)}
        (size,) = one.ask("SELECT pg_database_size('so1')")[0]
        found["bytes"] = size
    if words.json:
        words.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
