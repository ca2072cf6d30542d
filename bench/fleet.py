"""`python -m bench.fleet`: a centre under N hosts, played through the real entrance.

Each host is the shipper itself (`agent.fleet.shipper`) over recorded ticks: one bucket of a host
and its containers for each flush, in the very statements that a host sends. What is left out is the
start of a Python for each flush: clients are long-lived, a few for all hosts. The figures are
processor seconds, the server's and the clients' apart: wall time says nothing where others work.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from agent.fleet import centre as administration
from agent.fleet import shipper
from agent.fleet.connection import connected
from agent.fleet.local import Cursor, ShippingState
from agent.fleet.shipper import Identity
from agent.fleet.streams import CONTAINERS, HOSTS, MINUTES, PROCESSES_5M, STREAMS, Stream, chosen
from agent.fleet.streams import PROCESSES as PROCESSES_ASKED
from tests.fleet.host import Host, make_history
from tests.fleet.postgres import server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fleet.postgres import Server

QUIET = {
    "log_statement": "none",
    "log_min_error_statement": "error",
    "log_connections": "off",
    "log_min_duration_statement": "-1",
    "fsync": "on",
    "shared_buffers": "'256MB'",
    "synchronous_commit": "on",
    "max_wal_size": "'2GB'",
}
"""As a centre has it, and not as the tests have it."""
_TICK = os.sysconf("SC_CLK_TCK")
PROCESSES = 21
_LEVELS_MS = {"1m": 60_000, "5m": 300_000, "1h": 3_600_000, "1d": 86_400_000}

Rows = dict[str, list[tuple[Any, ...]]]
"""Of each stream, without ids."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One bucket as a history has it: rows of the host and of its containers, without ids."""

    rows: Rows

    @classmethod
    def from_history(cls, containers: int) -> Recorded:
        with tempfile.TemporaryDirectory() as directory:
            host = Host(Path(directory) / "host", "0" * 32)
            make_history(host.database)
            host.write(HOSTS, 1, 0, "bench")
            host.write(CONTAINERS, containers, 0, "bench")
            host.write(PROCESSES_5M, PROCESSES, 0, "bench")
            return cls(
                {
                    one.name: [row[2:] for row in host.rows(one)]
                    for one in (HOSTS, CONTAINERS, PROCESSES_5M)
                }
            )

    def of_minute(self, streams: Sequence[Stream], at_ms: int) -> Rows:
        """What is closed at the end of a minute, of every level that the streams have."""
        found = {}
        for stream in streams:
            kind, _, level = stream.name.rpartition("_")
            if level in _LEVELS_MS and at_ms % _LEVELS_MS[level] == 0:
                found[stream.name] = self.rows[f"{kind}_5m"]
        return found


class PlayedQueue:
    """Stands for a host's history, which has grown by `rows` since the last flush."""

    def __init__(self, rows: Rows, state: ShippingState, at_ms: int) -> None:
        self._rows = {
            name: [(state.cursor(name).id + n, at_ms, *row) for n, row in enumerate(many, start=1)]
            for name, many in rows.items()
        }

    def has(self, stream: Stream) -> bool:
        return True

    def holds(self, stream: Stream, cursor: Cursor) -> bool:
        return True

    def following(self, stream: Stream, cursor: Cursor, limit: int) -> list[tuple[Any, ...]]:
        return [row for row in self._rows.get(stream.name, ()) if row[0] > cursor.id][:limit]


class PlayedHost:
    def __init__(self, number: int, secret: str) -> None:
        self.identity = Identity(f"{number:032x}", secret)
        self.state = ShippingState()

    def flush(
        self, centre: Any, rows: Rows, at_ms: int = 0, streams: Sequence[Stream] = STREAMS
    ) -> int:
        queue = PlayedQueue(rows, self.state, at_ms or time.time_ns() // 10**6)
        one = shipper._Flush(  # noqa: SLF001
            queue,  # type: ignore[arg-type]
            centre,
            self.identity,
            Path(),
            self.state,
            streams,
        )
        done = one.run()
        self.state = one.state
        return done.rows


def cpu_s(server_: Server) -> float:
    """Of a server and all its processes, those that have ended too."""
    pid = int((server_.data / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = _times(pid, 4)
    return (total + sum(_times(int(child), 2) for child in children)) / _TICK


def _times(pid: int, count: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(value) for value in fields[11 : 11 + count])


@dataclass(frozen=True, slots=True)
class Work:
    dsn: str
    secret: str
    first: int
    count: int
    rounds: int
    buckets: int
    every_s: float
    """From flush to flush of a host; 0: as fast as it goes."""
    containers: int


def client(work: Work) -> tuple[int, float, list[float]]:
    """Plays some hosts over one connection: rows, CPU, and each flush's lag in seconds."""
    recorded = Recorded.from_history(work.containers).rows
    played = {one.name: recorded[one.name] * work.buckets for one in (HOSTS, CONTAINERS)}
    hosts = [PlayedHost(work.first + n, work.secret) for n in range(work.count)]
    rows, lags = 0, []
    began_s, spent_s = time.monotonic(), time.process_time()
    with mock.patch.object(shipper, "write_state"), connected(work.dsn) as centre:
        for turn in range(work.rounds):
            for place, host in enumerate(hosts):
                # Jittered evenly over the interval, as hosts are.
                due_s = began_s + work.every_s * (turn + place / max(1, work.count))
                time.sleep(max(0.0, due_s - time.monotonic()) if work.every_s else 0)
                rows += host.flush(centre, played)
                if work.every_s:
                    lags.append(time.monotonic() - due_s)
    return rows, time.process_time() - spent_s, lags


def enroll_all(one: Server, hosts: int) -> str:
    """The secret of all of them."""
    secret = "bench-" * 6
    values = ", ".join(f"('{n:032x}', sha256('{secret}'), 'host-{n}')" for n in range(hosts))
    one.ask("TRUNCATE so1.installations CASCADE")
    one.ask(f"INSERT INTO so1.installations (installation, secret_hash, name) VALUES {values}")
    return secret


def play_day(one: Server, password: str, hosts: int, options: Sequence[str]) -> dict[str, Any]:
    """A day of hosts that ship each minute what `options` ask for: CPU, and growth by stream."""
    streams = chosen(options)
    secret = enroll_all(one, hosts)
    for stream in streams:
        one.ask(f"TRUNCATE so1.{stream.name}")
    recorded = Recorded.from_history(11)
    played = [PlayedHost(n, secret) for n in range(hosts)]
    end_ms = time.time_ns() // 10**6 // 86_400_000 * 86_400_000
    rows, spent_s = 0, cpu_s(one)
    with (
        mock.patch.object(shipper, "write_state"),
        connected(one.dsn("so1_agent", "so1", password)) as centre,
    ):
        for at_ms in range(end_ms - 86_400_000 + 60_000, end_ms + 1, 60_000):
            for host in played:
                # A bucket's timestamp is where it begins.
                rows += host.flush(
                    centre, recorded.of_minute(streams, at_ms), at_ms - 60_000, streams
                )
    spent_s = cpu_s(one) - spent_s
    return {
        "hosts": hosts,
        "options": list(options),
        "rows_a_host": round(rows / hosts),
        "server_cpu_s_a_host": round(spent_s / hosts, 2),
        "percent_of_a_core_for_1000_hosts": round(spent_s / hosts / 86_400 * 1000 * 100, 1),
        "bytes_a_host": {
            name: round(found["rows"] * found["bytes_a_row"] / hosts)
            for name, found in sizes(one, streams).items()
        },
        "streams": sizes(one, streams),
    }


def play(
    one: Server, password: str, hosts: int, clients: int, **more: Any
) -> dict[str, float | int]:
    secret = enroll_all(one, hosts)
    share = hosts // clients
    works = [
        Work(one.dsn("so1_agent", "so1", password), secret, n * share, share, **more)
        for n in range(clients)
    ]
    before, began_s = cpu_s(one), time.monotonic()
    with multiprocessing.Pool(clients) as pool:
        done = pool.map(client, works)
    server_s = cpu_s(one) - before
    wall_s = time.monotonic() - began_s
    rows = sum(found[0] for found in done)
    flushes = share * clients * more["rounds"]
    lags = sorted(lag for found in done for lag in found[2])
    found: dict[str, float | int] = {
        "hosts": hosts,
        "flushes": flushes,
        "rows": rows,
        "wall_s": round(wall_s, 1),
        "server_cpu_s": round(server_s, 2),
        "rows_per_cpu_s": round(rows / server_s),
        "server_ms_a_flush": round(server_s / flushes * 1000, 3),
        "client_ms_a_flush": round(sum(one[1] for one in done) / flushes * 1000, 3),
    }
    if lags:
        found |= {"lag_median_s": round(lags[len(lags) // 2], 3), "lag_max_s": round(lags[-1], 3)}
    return found


def sizes(one: Server, streams: Sequence[Stream]) -> dict[str, dict[str, float]]:
    """Bytes a row with indexes, by stream that has rows."""
    found = {}
    for stream in streams:
        (size,) = one.ask(
            "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits"
            " WHERE inhparent = %s::regclass",
            f"so1.{stream.name}",
        )[0]
        (rows,) = one.ask(f"SELECT count(*) FROM so1.{stream.name}")[0]
        if rows:
            found[stream.name] = {"rows": rows, "bytes_a_row": round(size / rows)}
    return found


def ship_cpu(one: Server, password: str, flushes: int) -> dict[str, float]:
    """What `agent fleet ship` costs a host, the start of its Python included."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(Path(directory) / "host", "e" * 32, dsn=one.dsn("so1_agent", "so1", password))
        make_history(host.database)
        with connected(one.dsn()) as connection:
            host.secret = administration.enroll(connection, host.installation, "real")
        secret = Path(directory) / "secret"
        secret.write_text(host.secret)
        secret.chmod(0o600)
        (host.directory / "installation").write_text(host.installation + "\n")
        config = Path(directory) / "agent.toml"
        config.write_text(
            f'[fleet]\ndsn = "{host.dsn}"\nsecret_file = "{secret}"\n'
            f'[paths]\ndatabase = "{host.database}"\n'
        )
        argv = [sys.executable, "-m", "agent", "fleet", "ship", "--config", str(config)]
        # As installed: what Python has compiled is kept.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{directory}/pyc"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        spent = []
        for _ in range(flushes + 1):
            host.write(HOSTS, 1, time.time_ns() // 10**6)
            host.write(CONTAINERS, 11, time.time_ns() // 10**6)
            before = os.times()
            subprocess.run(argv, check=True, capture_output=True, env=environment)
            after = os.times()
            spent.append(
                after.children_user
                - before.children_user
                + after.children_system
                - before.children_system
            )
        best = min(spent)
    return {
        "cpu_s_a_flush": round(best, 3),
        "percent_at_300_s": round(best / 3, 3),
        "percent_at_60_s": round(best / 0.6, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few hosts, to try it out")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120, help="of the play in real time")
    parser.add_argument("--only-shipper", action="store_true")
    parser.add_argument("--only-day", action="store_true", help="a day by minutes, and growth")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    small = 20 if words.quick else 1
    found: dict[str, Any] = {}

    def say(name: str, value: Any) -> None:
        found[name] = value
        print(name, json.dumps(value), flush=True)
        if words.json:
            words.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    common = {"clients": words.clients, "containers": 11}
    with server(bool, **QUIET) as one:
        with connected(one.dsn()) as connection:
            password = administration.initialise(connection, 30, 10).password
        if words.only_shipper:
            say("shipper", ship_cpu(one, password, 10))
            return 0
        if words.only_day:
            for options in ((), (MINUTES,), (MINUTES, PROCESSES_ASKED)):
                say(f"a day of {options}", play_day(one, password, 5, options))
            return 0
        fast = {**common, "every_s": 0, "buckets": 1}
        say("1000 hosts, one flush each", play(one, password, 1000 // small, rounds=3, **fast))
        every = words.seconds / 2
        say(
            f"1000 hosts at {every:g} s, in real time",
            play(
                one, password, 1000 // small, rounds=2, **{**common, "every_s": every, "buckets": 1}
            ),
        )
        say("10000 hosts, one flush each", play(one, password, 10_000 // small, rounds=1, **fast))
        say("bytes", sizes(one, (HOSTS, CONTAINERS)))
        for buckets in (5, 165):
            say(
                f"ceiling, {buckets * 12} rows a flush",
                play(one, password, 100 // small, rounds=3, **{**fast, "buckets": buckets}),
            )
        say("shipper", ship_cpu(one, password, 5))
    return 0


if __name__ == "__main__":
    sys.exit(main())
