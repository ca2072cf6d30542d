"""A primary fails over to a replica that had not everything yet: nothing is lost or doubled."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.fleet import centre as administration
from agent.fleet.connection import connected
from agent.fleet.streams import STREAMS
from tests.fleet.conftest import Centre
from tests.fleet.host import Host, make_history
from tests.fleet.postgres import Server, server, user
from tests.fleet.programs import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary and its streaming replica."""
    with server() as primary:
        directory = Path(f"{primary.directory}-replica")
        directory.mkdir()
        shutil.chown(directory, user())
        replica = replace(primary, directory=directory, port=free_port(), running=False)
        try:
            primary.run(
                "pg_basebackup", "-h", str(primary.directory), "-p", str(primary.port), "-U",
                "postgres", "-D", str(replica.data), "-R", "-c", "fast",
            )  # fmt: skip
            with (replica.data / "postgresql.conf").open("a") as file:
                file.write(f"port = {replica.port}\nunix_socket_directories = '{directory}'\n")
            replica.start()
            yield primary, replica
        finally:
            if replica.running:
                replica.stop("immediate")
            shutil.rmtree(directory, ignore_errors=True)


def test_rows_that_a_replica_had_not_are_shipped_again(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, replica = pair
    host = Host(tmp_path / "host", "a" * 32)
    make_history(host.database)
    with connected(primary.dsn()) as connection:
        password = administration.initialise(connection, 3, 3).password
        host.secret = administration.enroll(connection, host.installation, "web-1")
    host.dsn = (
        f"host=127.0.0.1,127.0.0.1 port={primary.port},{replica.port} user=so1_agent dbname=so1"
        f" password={password} sslmode=disable"
    )

    def write(count: int) -> None:
        for stream in STREAMS:
            host.write(stream, count, time.time_ns() // 10**6 - 60_000)

    write(5)
    host.flush()
    wait_until(
        lambda: replica.ask("SELECT to_regclass('so1.removals')::text") != [(None,)],
        "the replica has the tables",
    )
    wait_until(
        lambda: replica.ask("SELECT count(*) FROM so1.removals") == [(5,)], "the replica has them"
    )
    # The replica stands still, and the primary goes on and dies.
    replica.stop()
    write(7)
    host.flush()
    assert primary.ask("SELECT count(*) FROM so1.removals") == [(12,)]
    primary.kill()
    replica.start()
    replica.control("promote")
    write(2)
    assert host.flush().rows == 9 * len(STREAMS)
    centre = Centre(replica, "so1", password)
    for stream in STREAMS:
        assert centre.rows(stream, host) == host.rows(stream)
    assert centre.epochs(host) == ["first"]
    assert centre.gaps(host) == []
