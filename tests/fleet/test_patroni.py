"""Patroni fails a centre over by itself: hosts go on with the new primary, each row once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from agent.fleet import centre as administration
from agent.fleet.connection import connected
from agent.fleet.errors import FleetError
from agent.fleet.streams import STREAMS
from tests.fleet import trixie
from tests.fleet.host import Host, make_history
from tests.fleet.postgres import ROOT, user
from tests.fleet.programs import free_port, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PATRONI, CONTROLLER = "../../../../bin/patroni", "../../../../bin/patroni_raft_controller"

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not ROOT or not Path(f"{ROOT}/usr/bin/patroni").exists(),
        reason="needs SO1_POSTGRES_ROOT, a tree that has Patroni (tests/fleet/trixie.py)",
    ),
]


@dataclass(slots=True)
class Node:
    name: str
    directory: Path
    port: int
    raft: int
    process: Any = None

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        dsn = f"host=127.0.0.1 port={self.port} user=postgres password=boss dbname="
        with psycopg.connect(
            dsn + ("so1" if "so1." in sql else "postgres"), autocommit=True, connect_timeout=5
        ) as one:
            found = one.execute(sql)
            return found.fetchall() if found.description else []

    def leads(self) -> bool:
        try:
            return self.ask("SELECT pg_is_in_recovery()") == [(False,)]
        except psycopg.Error:
            return False

    def follows(self) -> bool:
        try:
            return self.ask("SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]
        except psycopg.Error:
            return False

    def kill(self) -> None:
        """As a machine that lost its power: Patroni and PostgreSQL at once."""
        postmaster = int((self.directory / "data/postmaster.pid").read_text().split()[0])
        for pid in (self.process.pid, postmaster):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for one in (pid, *map(int, children)):
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)


def _settings(node: Node, others: list[Node]) -> dict[str, Any]:
    return {
        "scope": "so1",
        "name": node.name,
        "restapi": {
            "listen": f"127.0.0.1:{free_port()}",
        },
        "raft": {
            "data_dir": str(node.directory / "raft"),
            "self_addr": f"127.0.0.1:{node.raft}",
            "partner_addrs": [f"127.0.0.1:{one.raft}" for one in others],
        },
        "bootstrap": {
            "dcs": {"ttl": 20, "loop_wait": 1, "retry_timeout": 3},
            "initdb": [{"encoding": "UTF8"}, {"auth-host": "scram-sha-256"}, "no-sync"],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{node.port}",
            "connect_address": f"127.0.0.1:{node.port}",
            "data_dir": str(node.directory / "data"),
            "bin_dir": trixie.PROGRAMS,
            "use_unix_socket": True,
            "pgpass": str(node.directory / "pgpass"),
            "authentication": {
                "superuser": {"username": "postgres", "password": "boss"},
                "replication": {"username": "copy", "password": "copy"},
            },
            "pg_hba": [
                "local all all trust",
                "host all all 127.0.0.1/32 scram-sha-256",
                "host replication copy 127.0.0.1/32 scram-sha-256",
            ],
            "parameters": {
                "unix_socket_directories": str(node.directory),
                "fsync": "off",
                "shared_buffers": "32MB",
            },
        },
    }


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Two servers under Patroni, and a third vote."""
    top = Path(tempfile.mkdtemp(prefix="so1-patroni-"))
    made = [Node(name, top / name, free_port(), free_port()) for name in ("one", "two", "vote")]
    try:
        with ExitStack() as stack:
            for node in made:
                (node.directory / "raft").mkdir(parents=True)
                file = node.directory / "patroni.json"
                file.write_text(json.dumps(_settings(node, [o for o in made if o is not node])))
            for path in (top, *top.rglob("*")):
                shutil.chown(path, user())
            for node in made:
                program = CONTROLLER if node.name == "vote" else PATRONI
                argv = trixie.command(ROOT, program, (str(node.directory / "patroni.json"),))
                log = tmp_path / f"{node.name}.log"
                node.process = stack.enter_context(running(argv, log))
            servers = made[:2]
            wait_until(lambda: any(one.leads() for one in servers), "a leader", 120)
            wait_until(lambda: any(one.follows() for one in servers), "a replica", 120)
            yield servers
    except AssertionError as error:
        said = {one.name: (tmp_path / f"{one.name}.log").read_text()[-1500:] for one in made}
        raise AssertionError(f"{error}: {said}") from error
    finally:
        shutil.rmtree(top, ignore_errors=True)


def test_hosts_ship_on_to_the_primary_that_patroni_promotes(
    nodes: list[Node], tmp_path: Path
) -> None:
    (leader,) = (one for one in nodes if one.leads())
    (replica,) = (one for one in nodes if one is not leader)
    leader.ask("CREATE DATABASE so1")
    host = Host(tmp_path / "host", "a" * 32)
    make_history(host.database)
    boss = f"host=127.0.0.1 port={leader.port} user=postgres password=boss dbname=so1"
    with connected(f"{boss} sslmode=disable") as connection:
        password = administration.initialise(connection, 3, 3).password
        host.secret = administration.enroll(connection, host.installation, "web-1")
    host.dsn = (
        f"host=127.0.0.1,127.0.0.1 port={leader.port},{replica.port} user=so1_agent dbname=so1"
        f" password={password} sslmode=disable"
    )

    def write(count: int) -> None:
        for stream in STREAMS:
            host.write(stream, count, time.time_ns() // 10**6 - 60_000)

    write(20)
    host.flush()
    leader.kill()
    write(5)
    with pytest.raises(FleetError):
        host.flush()

    def flushed() -> bool:
        try:
            host.flush()
        except FleetError:
            return False
        return True

    wait_until(flushed, "a flush to the new primary", 120)
    assert replica.leads()
    for stream in STREAMS:
        columns = ", ".join(one.name for one in stream.columns)
        found = replica.ask(f"SELECT id, timestamp, {columns} FROM so1.{stream.name} ORDER BY id")
        assert found == host.rows(stream)
    assert replica.ask("SELECT count(*) FROM so1.gaps") == [(0,)]
    assert replica.ask("SELECT reason FROM so1.epochs") == [("first",)]
