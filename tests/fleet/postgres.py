"""A PostgreSQL server of Debian's for tests: its own directory, a Unix socket and a local port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet import trixie
from tests.fleet.programs import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER = "postgres"
ROOT = os.environ.get("SO1_POSTGRES_ROOT", "")


def binaries() -> Path:
    """Of the newest version that is installed, or of the tree that `SO1_POSTGRES_ROOT` names."""
    if ROOT:
        return Path(trixie.PROGRAMS)
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[-3])
    )
    if not found:
        missing = "postgresql is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found[-1].parent


@dataclass(slots=True)
class Server:
    """One server. It refuses to run as root, so it runs as `postgres` or `nobody`."""

    directory: Path
    port: int
    log_lines: list[str] = field(default_factory=list)
    running: bool = False
    inside: tuple[str, ...] = ()
    """Words before each of its programs, as root's: into another namespace."""

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def dsn(self, user: str = USER, database: str = "so1", password: str = "") -> str:
        """Over the Unix socket; with a password through TCP, where it is asked for."""
        host = "127.0.0.1" if password else str(self.directory)
        word = f" password={password} sslmode=disable" if password else ""
        return f"host={host} port={self.port} user={user} dbname={database}{word}"

    def connect(self, user: str = USER, database: str = "so1", password: str = "") -> Any:
        # Its own import: tests/packages starts a server in an environment that has no driver.
        import psycopg

        return psycopg.connect(self.dsn(user, database, password), autocommit=True)

    def ask(self, sql: str, *values: object, database: str = "so1") -> list[tuple[Any, ...]]:
        """What the superuser is told: the tests' oracle."""
        with self.connect(database=database) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def control(self, *words: str, check: bool = True) -> None:
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", f"{self.directory}/log", *words,
            check=check,
        )  # fmt: skip

    def start(self) -> None:
        self.control("start")
        self.running = True

    def stop(self, mode: str = "fast") -> None:
        self.control("-m", mode, "stop", check=False)
        self.running = False

    def kill(self) -> None:
        """As a power cut: `kill -9` of all of its processes."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # The parent first, or it would begin to clear up after its children.
        for one in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        for one in (pid, *map(int, children)):
            wait_until(partial(_has_ended, one), "its end")
        # Where nobody reaps it, it would be taken for a living one.
        (self.data / "postmaster.pid").unlink()
        for left in self.directory.glob(".s.PGSQL.*"):
            left.unlink()
        self.running = False

    def log(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    def run(self, name: str, *words: str, check: bool = True) -> None:
        argv = trixie.command(ROOT, name, words) if ROOT else [str(binaries() / name), *words]
        group = pwd.getpwnam(_user()).pw_gid
        if self.inside:
            begin = ("setpriv", f"--reuid={_user()}", f"--regid={group}", "--clear-groups")
            argv = [*self.inside, *begin, *argv]
        changes_user = os.geteuid() == 0 and not ROOT and not self.inside
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            user=_user() if changes_user else None,
            group=group if changes_user else None,
            extra_groups=[] if changes_user else None,
            env={"PATH": "/usr/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
        if check and done.returncode != 0:
            log = self.directory / "log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise AssertionError(f"{name}: {done.stdout}{done.stderr}{said}")


def _has_ended(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def user() -> str:
    """Who runs what refuses to run as root."""
    return _user()


def _user() -> str:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return "nobody"
    return USER


@contextmanager
def server(prepare: Callable[[Path], object] = bool, **settings: str) -> Iterator[Server]:
    """A running server with an empty database `so1`, gone afterwards.

    `prepare` puts files into its data directory before it starts.
    """
    with server_inside((), prepare, **settings) as one:
        yield one


@contextmanager
def server_inside(
    inside: tuple[str, ...], prepare: Callable[[Path], object], **settings: str
) -> Iterator[Server]:
    """The same, in another namespace (`Server.inside`)."""
    binaries()
    # The path of a socket is short, and pytest's are long.
    directory = Path(tempfile.mkdtemp(prefix="so1-pg-"))
    one = Server(directory, free_port(), inside=inside)
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, _user())
        directory.chmod(0o755)
        one.run(
            "initdb", "-D", str(one.data), "-U", USER, "-E", "UTF8", "--no-sync",
            "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256",
        )  # fmt: skip
        with (one.data / "postgresql.conf").open("a") as file:
            file.write(
                f"port = {one.port}\nunix_socket_directories = '{directory}'\n"
                "listen_addresses = '127.0.0.1'\nshared_buffers = 32MB\nfsync = off\n"
                # As talkative as an administrator could make it: secrets must not be in it.
                "log_statement = all\nlog_min_error_statement = debug5\n"
                "log_min_duration_statement = 0\nlog_connections = on\n"
            )
            for name, value in settings.items():
                file.write(f"{name} = {value}\n")
        prepare(one.data)
        if os.geteuid() == 0:
            for path in one.data.iterdir():
                shutil.chown(path, _user())
        one.start()
        one.run("createdb", "-h", str(directory), "-p", str(one.port), "-U", USER, "so1")
        yield one
    finally:
        if one.running:
            one.stop("immediate")
        shutil.rmtree(directory, ignore_errors=True)
