"""One PostgreSQL server for the layer, a centre of its own for each test."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.fleet.streams import Stream
    from tests.fleet.host import Host
    from tests.fleet.postgres import Server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    from tests.fleet.postgres import server

    with server() as one:
        yield one


@dataclass(slots=True)
class Centre:
    """A fresh database with the schema in it. The roles are the server's, and stay."""

    server: Server
    database: str
    password: str

    def dsn(self, user: str = "postgres", password: str = "") -> str:
        return self.server.dsn(user, self.database, password)

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.server.ask(sql, *values, database=self.database)

    def rows(self, stream: Stream, host: Host) -> list[tuple[Any, ...]]:
        """Everything that came from a host's stream, wherever it was put, by epoch's age and id."""
        columns = ", ".join(f"r.{one.name}" for one in stream.columns)
        return self.ask(
            f"SELECT r.id, r.timestamp, {columns} FROM so1.{stream.name} r"
            " JOIN so1.epochs e USING (installation, epoch)"
            " WHERE installation = %s ORDER BY e.began_at, r.id",
            host.installation,
        )

    def epochs(self, host: Host) -> list[str]:
        found = self.ask(
            "SELECT reason FROM so1.epochs WHERE installation = %s ORDER BY began_at",
            host.installation,
        )
        return [reason for (reason,) in found]

    def gaps(self, host: Host) -> list[tuple[str, int, int]]:
        return self.ask(
            "SELECT stream, first_id, last_id FROM so1.gaps WHERE installation = %s ORDER BY 1, 2",
            host.installation,
        )


passwords: dict[int, str] = {}
"""By the server's port."""
TEMPLATE = "so1_template"
"""A centre as `init` makes it: a copy of it is made in a moment, its partitions are not."""
_numbers = itertools.count(1)


@pytest.fixture
def centre(postgres: Server) -> Iterator[Centre]:
    with fresh_centre(postgres) as one:
        yield one


@pytest.fixture(scope="module")
def lasting_centre(postgres: Server) -> Iterator[Centre]:
    """For tests that change nothing in it."""
    with fresh_centre(postgres) as one:
        yield one


@contextmanager
def fresh_centre(postgres: Server) -> Iterator[Centre]:
    from agent.fleet import centre as administration
    from agent.fleet.connection import connected

    if postgres.port not in passwords:
        postgres.ask(f"CREATE DATABASE {TEMPLATE}", database="postgres")
        with connected(postgres.dsn(database=TEMPLATE)) as connection:
            # The role is the whole server's: its password is made once.
            made = administration.initialise(connection, 30, 10)
        passwords[postgres.port] = made.password
    name = f"so1_{next(_numbers)}"
    postgres.ask(
        f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy", database="postgres"
    )
    one = Centre(postgres, name, passwords[postgres.port])
    # The rights on a database itself are not copied.
    with connected(one.dsn()) as connection:
        administration.initialise(connection)
    yield one
    postgres.ask(f"DROP DATABASE {name} WITH (FORCE)", database="postgres")


@pytest.fixture
def new_host(centre: Centre, tmp_path: Path) -> Callable[..., Host]:
    """Makes an enrolled host with an empty history."""
    from agent.fleet import centre as administration
    from agent.fleet.connection import connected
    from tests.fleet.host import Host, make_history

    def make(letter: str = "a") -> Host:
        host = Host(tmp_path / f"host-{letter}", letter * 32)
        make_history(host.database)
        with connected(centre.dsn()) as connection:
            host.secret = administration.enroll(connection, host.installation, f"host-{letter}")
        host.dsn = centre.dsn("so1_agent", centre.password)
        return host

    return make


@pytest.fixture
def host(new_host: Callable[..., Host]) -> Host:
    return new_host()
