"""A fleet's PostgreSQL that containers of an engine of its own reach over a network, by TLS.

The engine has a network namespace of its own, which is joined to the centre's by one cable. The
administrator's commands are the image's, the oracle is psql.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fleet.certificates import authority, server_certificate
from tests.fleet.postgres import Server, server
from tests.fleet.programs import program
from tests.packages.conftest import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.private_engine import PrivateEngine

NAME = "centre.example"
_ADDRESS, _ENGINES = "192.0.2.1", "192.0.2.2"
"""Of the block for documentation (RFC 5737): nobody's."""


@dataclass(frozen=True, slots=True)
class CentreServer:
    """`password` is the hosts'; the server's certificate is the authority's, for NAME alone."""

    engine: PrivateEngine
    server: Server
    authority: Path
    password: str = ""

    def ask(self, sql: str) -> list[str]:
        """A line a row, by the superuser."""
        words = ("-h", str(self.server.directory), "-p", str(self.server.port))
        done = subprocess.run(
            [program("psql"), *words, "-U", "postgres", "-d", "so1", "-AtX", "-c", sql],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    def administer(self, *words: str) -> str:
        """`agent fleet WORDS…` of the image, on the server's own socket."""
        dsn = f"host=/run/centre port={self.server.port} user=postgres dbname=so1"
        mount = f"{self.server.directory}:/run/centre"
        first, *others = words
        return self.engine.docker(
            *("run", "--rm", "--network=none", "-v", mount, IMAGE, "fleet", first, dsn, *others)
        )

    def write_settings(self, place: Path, more: str) -> None:
        """What docs/fleet.md has an administrator put in /etc/so1, in the directory `place`."""
        dsn = (
            f"postgresql://so1_agent@{NAME}:{self.server.port}/so1?passfile=/etc/so1/fleet.pgpass"
            # No name server knows the name; the certificate is for it all the same.
            f"&sslrootcert=/etc/so1/ca.pem&hostaddr={_ADDRESS}"
        )
        (place / "agent.toml").write_text(
            f'{more}[fleet]\ndsn = "{dsn}"\nflush_s = 10\nresolution = "60s"\n'
        )
        (place / "ca.pem").write_bytes(self.authority.read_bytes())
        secret = place / "fleet.pgpass"
        secret.touch(mode=0o600)
        secret.write_text(f"{NAME}:{self.server.port}:so1:so1_agent:{self.password}\n")

    def enroll(self, installation: str, place: Path) -> None:
        secret = place / "fleet.secret"
        secret.touch(mode=0o600)
        secret.write_text(self.administer("enroll", installation) + "\n")


@contextmanager
def _cable(pid: int) -> Iterator[None]:
    """From here into the network namespace of a process, with an address at each end."""
    name = f"so1c{pid}"
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net")
    for words in (
        f"ip link add {name} type veth peer name so1 netns {pid}",
        f"ip address add {_ADDRESS}/30 dev {name}",
        f"ip link set {name} up",
    ):
        subprocess.run(words.split(), check=True, capture_output=True)
    try:
        for words in ("link set lo up", f"address add {_ENGINES}/30 dev so1", "link set so1 up"):
            subprocess.run([*inside, "ip", *words.split()], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@contextmanager
def centre_server(engine: PrivateEngine) -> Iterator[CentreServer]:
    """A server with the centre's schema, which takes the engine's containers in by TLS alone."""
    assert engine.daemon is not None
    with tempfile.TemporaryDirectory() as where, _cable(engine.daemon.pid):
        certificate = authority(Path(where), "fleet")

        def prepare(data: Path) -> None:
            server_certificate(certificate, data, NAME)
            with (data / "pg_hba.conf").open("a") as file:
                file.write(f"hostssl so1 so1_agent {_ENGINES}/32 scram-sha-256\n")

        with server(prepare, ssl="on", listen_addresses=f"'{_ADDRESS}'") as one:
            made = CentreServer(engine, one, certificate)
            password = made.administer("init").rpartition(" ")[2]
            yield CentreServer(engine, one, certificate, password)
