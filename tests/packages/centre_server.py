"""A fleet's PostgreSQL that containers of an engine of its own reach by TCP and verified TLS.

It runs in the engine's network namespace, which has nothing but a loopback: this machine's network
is not touched. The administrator's commands are the image's, the oracle is psql.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fleet.certificates import authority, server_certificate
from tests.fleet.postgres import Server, server_inside
from tests.fleet.programs import program
from tests.packages.conftest import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.private_engine import PrivateEngine

NAME = "centre.example"
_ADDRESS = "127.0.0.1"


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

    def logins(self) -> list[str]:
        """What its log says of each session that a host's login had."""
        lines = self.server.log().splitlines()
        return [one for one in lines if "connection authorized: user=so1_agent " in one]

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
def centre_server(engine: PrivateEngine) -> Iterator[CentreServer]:
    """A server with the centre's schema, in the network of the engine's host."""
    with tempfile.TemporaryDirectory() as where:
        certificate = authority(Path(where), "fleet")

        def prepare(data: Path) -> None:
            server_certificate(certificate, data, NAME)

        with server_inside(engine.in_its_network(), prepare, ssl="on") as one:
            made = CentreServer(engine, one, certificate)
            password = made.administer("init").rpartition(" ")[2]
            yield CentreServer(engine, one, certificate, password)
