"""A Docker engine for one test module alone: what it counts and removes is nobody else's.

Policy and generator look at every container of an engine, so tests of theirs on a shared one would
meet other people's. It has no network: nothing here needs one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers import (
    ALPINE,
    STRESS,
    DockerCommandError,
    engine_answers,
    remove_all,
    wait_until,
)
from tests.docker import newest_engine
from tests.docker.engine_tree import INSTALLED, SUITES, Inside, engine_tree
from tests.docker.left_mounts import remove_engines_directory
from tests.docker.rootless import rootless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DOCKERS = (*SUITES, pytest.param(newest_engine.NAME, marks=pytest.mark.full))
"""Parameters for private_engine: with --full Docker 26.1 (Debian 13), 28.5 (sid) and 29 too."""
_ROOTLESS = "/usr/share/docker.io/contrib/dockerd-rootless.sh"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class PrivateEngine:
    """The oracle's way to the engine: the docker command line, and nothing of the agent."""

    directory: Path
    daemon: subprocess.Popen[bytes] | None = None
    log: list[str] = field(default_factory=list)
    inside: Inside = field(default_factory=Inside)
    program: str = field(default_factory=newest_engine.program)

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/docker.sock"

    def docker(
        self, *words: str, data: bytes | None = None, check: bool = True, timeout_s: float = 120
    ) -> str:
        """The output of `docker WORDS…`, stripped; DockerCommandError when it fails."""
        done = subprocess.run(
            ["docker", "-H", self.host, *words], input=data, capture_output=True, timeout=timeout_s
        )
        if check and done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise DockerCommandError(f"docker {' '.join(words)}: {said}")
        return done.stdout.decode(errors="replace").strip()

    def in_its_network(self) -> tuple[str, ...]:
        """Words before a program that runs in the engine's network: a loopback and nothing else."""
        assert self.daemon is not None
        inside = ("nsenter", f"--net=/proc/{self.daemon.pid}/ns/net")
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        return inside

    def run(self, *options: str, image: str = ALPINE, command: Sequence[str] = ()) -> str:
        """Starts a container that sleeps, or runs `command`; its full id.

        Docker 26 lets one whose network is a bridge that the engine has not got run, but refuses to
        rename it.
        """
        words = command or ("sleep", "infinity")
        return self.docker("run", "-d", "--network=none", *options, image, *words)

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", container))
        return found[0]

    def exists(self, container: str) -> bool:
        """Whether a container has this very id."""
        return container in self.docker("ps", "-aq", "--no-trunc").split()

    def names(self, *options: str) -> set[str]:
        return set(self.docker("ps", *options, "--format", "{{.Names}}").split())

    def events(self, since: str, *actions: str) -> list[tuple[str, str]]:
        """(action, full id) of containers since a moment (`now()`), oldest first."""
        lines = self.docker(
            *("events", "--since", since, "--until", self.now(), "--filter", "type=container"),
            *("--format", "{{.Action}} {{.ID}}"),
        ).splitlines()
        pairs = [tuple(line.split(" ", 1)) for line in lines]
        return [(action, which) for action, which in pairs if action in actions]

    def now(self) -> str:
        return f"{time.time():.6f}"

    def clear(self) -> None:
        """Removes every container of this engine."""
        remove_all(lambda: self.docker("ps", "-aq").split(), self.docker, "the engine is empty")

    def kill_daemon(self) -> None:
        """As a crash: its containers and their shims live on; a containerd of its own dies too."""
        assert self.daemon is not None
        # Where the host has a containerd already, the daemon uses that one.
        file = self.directory / "exec/containerd/containerd.pid"
        pid = file.read_text().strip() if file.exists() else "none"
        self.daemon.kill()
        self.daemon.wait(60)
        # dockerd takes one that nobody has reaped yet for a living one, and waits for it in vain.
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "containerd is gone")

    def start_daemon(self) -> None:
        """Starts it again on the same directory and waits until it answers."""
        self.daemon = _start(self)

    def pause_daemon(self) -> None:
        """Docker hangs: it takes connections and never answers."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGSTOP)

    def resume_daemon(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGCONT)


@contextmanager
def private_engine(which: str = INSTALLED) -> Iterator[PrivateEngine]:
    """An engine in a directory of its own, with both stand-in images, gone afterwards.

    `which` is the installed one, `newest` (Docker 29) or that of another suite (engine_tree).
    """
    Inside().need("docker", "busybox", "stress")
    if os.geteuid() != 0:
        pytest.skip("root is needed to start dockerd")
    # Not below /tmp: the path of a Unix socket is short, and pytest's are long.
    directory = Path(tempfile.mkdtemp(prefix="so1-engine-", dir="/var/lib"))
    program = newest_engine.program()
    if which != INSTALLED:
        program = str(newest_engine.obtain()) if which == newest_engine.NAME else "dockerd"
    suite = INSTALLED if which == newest_engine.NAME else which
    try:
        with engine_tree(suite, directory) as inside, _engine(directory, inside, program) as engine:
            yield engine
    finally:
        remove_engines_directory(directory)


@contextmanager
def _engine(directory: Path, inside: Inside, program: str) -> Iterator[PrivateEngine]:
    inside.need(program)
    engine = PrivateEngine(directory, inside=inside, program=program)
    try:
        engine.daemon = _start(engine)
        for image, programs in ((ALPINE, ()), (STRESS, ("stress",))):
            engine.docker(
                *("import", "-c", f"ENV PATH={_PATH}", "-", image),
                data=_archive(directory, programs),
            )
        yield engine
    finally:
        if engine.daemon is not None:
            try:
                engine.resume_daemon()
                engine.clear()
            finally:
                engine.daemon.terminate()
                engine.daemon.wait(timeout=60)


@contextmanager
def rootless_engine(which: str = INSTALLED) -> Iterator[PrivateEngine]:
    """The same of a user's, by Debian's script for it."""
    Inside().need("docker", "busybox", "stress")
    if os.geteuid() != 0:
        pytest.skip("root is needed to become another user")
    directory = Path(tempfile.mkdtemp(prefix="so1-engine-", dir="/var/lib"))
    try:
        with (
            rootless(which, directory, "rootlesskit") as inside,
            _engine(directory, inside, _ROOTLESS) as engine,
        ):
            yield engine
    finally:
        remove_engines_directory(directory)


def _start(engine: PrivateEngine) -> subprocess.Popen[bytes]:
    place = engine.directory
    # In a network namespace of its own: an engine without a bridge deletes the host's
    # docker0, which is another engine's, when it starts.
    begin: tuple[str, ...] = ("unshare", "--net", engine.program)
    more: tuple[str, ...] = ()
    if engine.program == _ROOTLESS:
        # The host's network is nothing that a user's engine could harm.
        without = ("NET=host", "PORT_DRIVER=none", "MTU=0", f"STATE_DIR={place}/run/kit")
        begin = (
            "env",
            *(f"DOCKERD_ROOTLESS_ROOTLESSKIT_{one}" for one in without),
            "sh",
            _ROOTLESS,
        )
    with (place / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            engine.inside.words(
                *begin,
                *("--host", engine.host, "--data-root", str(place / "data")),
                *("--exec-root", str(place / "exec"), "--pidfile", str(place / "pid")),
                *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
                *more,
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def answers_or_ended() -> bool:
        # It listens before it has restored its containers: a look may get no answer.
        return daemon.poll() is not None or engine_answers(engine.docker)

    try:
        wait_until(answers_or_ended, "dockerd answers")
        assert daemon.poll() is None, "dockerd ended"
    except AssertionError as error:
        said = (place / "dockerd.log").read_text(errors="replace").strip().splitlines()
        raise AssertionError("\n".join([str(error), *said[-40:]])) from None
    return daemon


def _archive(directory: Path, programs: Sequence[str]) -> bytes:
    """A root file system of busybox, with its applets, and `programs` with their libraries."""
    archive = directory / "root.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("busybox", *programs):
            path = Path(str(shutil.which(name)))
            tar.add(path.resolve(), f"bin/{name}")
            listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True)
            for word in listed.stdout.split():
                if word.startswith("/"):
                    tar.add(Path(word).resolve(), word.lstrip("/"))
        applets = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
        for applet in applets.stdout.split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for name in ("tmp", "proc", "etc"):
            place = tarfile.TarInfo(name)
            place.type, place.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(place)
    return archive.read_bytes()
