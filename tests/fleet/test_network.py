"""Between a host and its centre: verified TLS, a pool, several addresses, hostile defaults."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from agent.fleet import centre as administration
from agent.fleet.connection import connected
from agent.fleet.errors import FleetError
from agent.fleet.streams import STREAMS
from tests.fleet.certificates import authority, openssl, server_certificate
from tests.fleet.postgres import server, user
from tests.fleet.programs import PROJECT, free_port, program, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fleet.conftest import Centre
    from tests.fleet.host import Host


def now_ms() -> int:
    return time.time_ns() // 10**6 - 60_000


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path, Path]]:
    """A server with a certificate for `localhost`: its port, the password, its CA and another."""
    where = tmp_path_factory.mktemp("tls")
    ours, other = authority(where, "ours"), authority(where, "other")

    def prepare(data: Path) -> None:
        server_certificate(ours, data, "localhost")

    with server(prepare, ssl="on") as one:
        with connected(one.dsn()) as connection:
            password = administration.initialise(connection, 2, 2).password
        yield str(one.port), password, ours, other


def look(dsn: str) -> None:
    with connected(dsn) as connection:
        assert connection.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


def test_a_server_is_taken_for_the_centre_only_by_name_and_authority(
    tls: tuple[str, str, Path, Path],
) -> None:
    port, password, ours, other = tls
    base = f"port={port} user=so1_agent dbname=so1 password={password}"
    look(f"host=localhost {base} sslrootcert={ours}")
    for name, dsn in {
        "another name": f"host=127.0.0.1 {base} sslrootcert={ours}",
        "another authority": f"host=localhost {base} sslrootcert={other}",
        "the system's authorities": f"host=localhost {base}",
    }.items():
        with pytest.raises(FleetError) as raised:
            look(dsn)
        assert "cannot be reached" in raised.value.message, name
        assert password not in str(raised.value)


def test_without_a_word_on_it_the_hosts_own_authorities_are_trusted(
    tls: tuple[str, str, Path, Path], tmp_path: Path
) -> None:
    """A host on which `update-ca-certificates` took the centre's authority in, and one without."""
    port, password, ours, other = tls
    dsn = f"host=localhost port={port} user=so1_agent dbname=so1 password={password}"
    ended = {}
    for which in (ours, other):
        authorities = tmp_path / which.stem
        authorities.mkdir()
        shutil.copy(which, authorities)
        openssl("rehash", str(authorities))
        done = subprocess.run(
            [
                *("unshare", "--mount", "sh", "-euc"),
                'mount --bind "$0" /etc/ssl/certs && exec "$@"',
                *(authorities, sys.executable, "-c"),
                "import sys; from tests.fleet.test_network import look; look(sys.argv[1])",
                dsn,
            ],
            cwd=PROJECT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
        )
        ended[which] = done.returncode, done.stderr[-1500:]
    assert ended[ours] == (0, "")
    assert ended[other][0] == 1
    assert "certificate verify failed" in ended[other][1]


def test_a_server_without_tls_gets_no_password_over_a_network(centre: Centre) -> None:
    port, password = centre.server.port, centre.password
    with pytest.raises(FleetError) as raised:
        look(
            f"host=localhost port={port} user=so1_agent dbname={centre.database}"
            f" password={password} sslrootcert=/dev/null"
        )
    assert "SSL" in raised.value.message or "certificate" in raised.value.message


@pytest.fixture
def pool(centre: Centre, tmp_path: Path) -> Iterator[str]:
    """PgBouncer in transaction mode with one connection to the centre: hosts share it."""
    port = free_port()
    where = centre.server.directory / f"pool-{port}"
    where.mkdir()
    (where / "users").write_text(f'"so1_agent" "{centre.password}"\n')
    (where / "pgbouncer.ini").write_text(
        f"[databases]\n{centre.database} = host={centre.server.directory}"
        f" port={centre.server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {where}/users\n"
        "pool_mode = transaction\ndefault_pool_size = 1\nmax_client_conn = 100\n"
    )
    for path in (where, *where.iterdir()):
        shutil.chown(path, user())
    with running(
        [program("pgbouncer"), str(where / "pgbouncer.ini")], tmp_path / "log", user=user()
    ):
        dsn = (
            f"host=127.0.0.1 port={port} user=so1_agent dbname={centre.database}"
            f" password={centre.password} sslmode=disable target_session_attrs=any"
        )
        wait_until(lambda: answers(dsn), "the pool")
        yield dsn


def answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.Error:
        return False
    return True


def test_hosts_ship_through_a_pool_of_one_connection(
    new_host: Callable[..., Host], centre: Centre, pool: str
) -> None:
    hosts = [new_host(letter) for letter in "abcdef"]
    problems: list[str] = []

    def ship(host: Host) -> None:
        try:
            for _ in range(4):
                for stream in STREAMS:
                    host.write(stream, 5, now_ms())
                host.flush()
        except FleetError as error:
            problems.append(str(error))

    for host in hosts:
        host.dsn = pool
    threads = [threading.Thread(target=ship, args=(host,)) for host in hosts]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert problems == []
    for host in hosts:
        for stream in STREAMS:
            assert centre.rows(stream, host) == host.rows(stream)


def test_an_address_that_answers_is_found_among_several(host: Host, centre: Centre) -> None:
    nowhere, here = free_port(), centre.server.port
    host.dsn = (
        f"host=127.0.0.1,127.0.0.1 port={nowhere},{here} user=so1_agent dbname={centre.database}"
        f" password={centre.password} sslmode=disable"
    )
    host.write(STREAMS[0], 2, now_ms())
    assert host.flush().rows == 2


def test_defaults_that_another_host_set_for_all_stop_nobody(host: Host, centre: Centre) -> None:
    """A role may change its own defaults, and all hosts share one."""
    dsn = centre.dsn("so1_agent", centre.password)
    try:
        with psycopg.connect(dsn, autocommit=True) as attacker:
            for setting in (
                "default_transaction_read_only = on",
                "search_path = pg_temp",
                "statement_timeout = 1",
                "default_transaction_isolation = serializable",
                "DateStyle = German",
                "standard_conforming_strings = off",
                "extra_float_digits = -15",
            ):
                attacker.execute(f"ALTER ROLE so1_agent SET {setting}")
        for stream in STREAMS:
            host.write(stream, 20, now_ms())
        # The timeout of a millisecond also meets the first statement of a transaction.
        with psycopg.connect(centre.dsn(), autocommit=True) as boss:
            boss.execute("ALTER ROLE so1_agent RESET statement_timeout")
        host.flush()
    finally:
        with psycopg.connect(centre.dsn(), autocommit=True) as boss:
            boss.execute("ALTER ROLE so1_agent RESET ALL")
            boss.execute("ALTER ROLE so1_agent SET log_parameter_max_length = 0")
    for stream in STREAMS:
        assert centre.rows(stream, host) == host.rows(stream)
