"""Brings our Grafana up with compose, waits until it is healthy, and takes it down again.

Ours is what compose labels with the project `so1-grafana`; a container that only has the name is
never touched. Grafana's data volume is never removed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import docker
from docker.errors import APIError, NotFound

from agent.actions.grafana_password import settle_password
from agent.config import GrafanaLanguage
from agent.engine_api import client as dockerapi
from agent.engine_api import ownership
from agent.errors import AgentError
from agent.place import SETTINGS
from agent.util.flock import open_lock_file, try_flock
from agent.util.subprocess import CommandError, find, run
from agent.util.terminal import printable

if TYPE_CHECKING:
    from agent.config import Config, GrafanaSettings

log = logging.getLogger(__name__)

PROJECT = ownership.GRAFANA_PROJECT
CONTAINER = "grafana_so1"
LOCK_NAME = "compose.lock"
IMAGE = "grafana/grafana:13.2.2"
"""The default of `grafana/docker-compose.yml`."""

_DASHBOARDS = {GrafanaLanguage.SPANISH: "./dashboards", GrafanaLanguage.ENGLISH: "./dashboards-en"}

_COMPOSE_TIMEOUT_S = 120.0
_STOP_GRACE_S = 10
_HEALTH_TIMEOUT_S = 180.0
"""The first start downloads the data source plugin and makes Grafana's own database."""
_PORT_WAIT_S = 5.0
_SAY_EVERY_S = 10.0
_POLL_S = 0.5
_CALL_TIMEOUT_S = 30.0

Progress = Callable[[str], None]


class Grafana:
    """Our Grafana for one run of the agent. `up` may run in a thread; `cancel` makes it give up."""

    def __init__(
        self,
        settings: GrafanaSettings,
        install: Path,
        database: Path,
        docker_host: str,
        *,
        image: str = IMAGE,
        run_dir: Path | None = None,
    ) -> None:
        self._settings = settings
        self._install = install
        self._database = database
        self._docker_host = docker_host
        self._image = image
        self._run_dir = run_dir
        self._cancelled = threading.Event()
        self._busy = threading.Lock()

    @classmethod
    def configured(cls, config: Config) -> Self:
        """The one that this host's configuration asks for."""
        return cls(
            config.grafana,
            Path(config.paths.install),
            Path(config.paths.database),
            config.docker_host,
            run_dir=Path(config.paths.run),
        )

    @property
    def address(self) -> str:
        """Where a browser on this host finds it."""
        return f"http://localhost:{self._settings.port}"

    def up(self, progress: Progress) -> str:
        """Brings Grafana up and gives its address once it is healthy.

        Raises AgentError, with the remedy, where Docker is away, compose is missing, a foreign
        container has the name, the image is not available, the port is taken, or Grafana does not
        become healthy (it is then left as it is, to be looked at).
        """
        with self._busy, _engine(self._docker_host) as engine:
            self._refuse_foreign(engine)
            command = compose_command()
            self._have_image(engine, progress)
            self._check_cancelled()
            # compose 1.29 fails to re-create a container on a newer engine, so it never has to;
            # and an update of the agent has swapped the directories that are mounted.
            with self._turn():
                self._remove(engine)
            self._check_port()
            self._check_cancelled()
            progress(f"Grafana: starting {self._image} …")
            self._compose_up(command)
            self._wait_healthy(engine, progress)
            if warning := settle_password(self._settings.port, self._settings.admin_password):
                progress(f"Grafana: {warning}")
        return self.address

    def cancel(self) -> None:
        """Makes an `up` in another thread give up at its next step, and any later one at once."""
        self._cancelled.set()

    def down(self) -> None:
        """Removes our Grafana's container and network, if they are there; its volume stays.

        Waits for an `up` in another thread, which it makes give up. Raises EngineUnavailableError
        where Docker cannot be asked.
        """
        self.cancel()
        with self._busy, _engine(self._docker_host) as engine, self._turn():
            self._remove(engine)

    def is_ours(self) -> bool:
        """Whether a container of our compose project exists, running or not."""
        with _engine(self._docker_host) as engine, self._turn():
            found = _inspect(engine, CONTAINER)
            return found is not None and _is_ours(found)

    def directory(self) -> Path:
        """Where the compose file lies: beside the package, as installed, else below `install`."""
        beside = Path(__file__).resolve().parents[2] / "grafana"
        installed = self._install / "src" / "grafana"
        return beside if (beside / "docker-compose.yml").is_file() else installed

    def environment(self) -> dict[str, str]:
        """What the compose file takes from its environment; the password is nowhere else."""
        return {
            "SO1_GRAFANA_IMAGE": self._image,
            "SO1_GRAFANA_PORT": str(self._settings.port),
            "SO1_GRAFANA_DASHBOARDS": _DASHBOARDS[self._settings.language],
            "SO1_DATABASE_DIR": str(self._database.parent),
            # It becomes part of a `file:` address.
            "SO1_DATABASE_FILE": quote(self._database.name),
            "GF_SECURITY_ADMIN_PASSWORD": self._settings.admin_password,
            "DOCKER_HOST": self._docker_host,
        }

    def _refuse_foreign(self, engine: docker.APIClient) -> None:
        found = _inspect(engine, CONTAINER)
        if found is not None and not _is_ours(found):
            raise AgentError(
                f"A container {CONTAINER} is there that is not the agent's; it stays as it is.",
                f"Rename it (`docker rename {CONTAINER} NEW`), or start with --no-grafana.",
            )

    def _have_image(self, engine: docker.APIClient, progress: Progress) -> None:
        """The image, from this host or else from its registry."""
        try:
            engine.inspect_image(self._image)  # type: ignore[no-untyped-call]
        except NotFound:
            progress(f"Grafana: pulling {self._image} …")
            self._pull(engine, progress)

    def _pull(self, engine: docker.APIClient, progress: Progress) -> None:
        repository, colon, tag = self._image.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = self._image, "latest"
        said_s = time.monotonic()
        try:
            for step in engine.pull(repository, tag=tag, stream=True, decode=True):
                self._check_cancelled()
                if "error" in step:
                    raise self._no_image(str(step["error"]))
                if time.monotonic() - said_s > _SAY_EVERY_S:
                    said_s = time.monotonic()
                    progress(f"Grafana: still pulling {self._image} …")
        except APIError as error:
            raise self._no_image(str(error.explanation or error)) from error

    def _no_image(self, cause: str) -> AgentError:
        return AgentError(
            f"Grafana's image {self._image} is not on this host and cannot be pulled: "
            f"{printable(cause)[:200]}.",
            f"`docker pull {self._image}` (or `docker load`) brings it; --no-grafana goes without.",
        )

    def _check_port(self) -> None:
        """Raises AgentError where somebody else listens; Docker lets go of ours with a delay."""
        deadline_s = time.monotonic() + _PORT_WAIT_S
        while not port_is_free(self._settings.port):
            if time.monotonic() > deadline_s:
                raise self._port_taken()
            self._pause()

    def _port_taken(self) -> AgentError:
        port = self._settings.port
        return AgentError(
            f"Port {port} on 127.0.0.1, which Grafana is to have, is taken.",
            f"`sudo ss -ltnp 'sport = :{port}'` names the program; another port is set with "
            f"`port` under [grafana] in {SETTINGS}.",
        )

    def _compose_up(self, command: list[str]) -> None:
        file = self.directory() / "docker-compose.yml"
        argv = [*command, "-p", PROJECT, "-f", str(file), "up", "-d"]
        with self._turn() as lock:
            done = run(
                argv,
                timeout_s=_COMPOSE_TIMEOUT_S,
                env=self.environment(),
                check=False,
                pass_fds=lock,
            )
        if done.status == 0:
            return
        if re.search(r"address already in use|port is already allocated", done.stderr):
            raise self._port_taken()
        log.warning("command=compose status=%d said=%r", done.status, done.stderr[-1000:])
        raise AgentError(
            f"Grafana could not be brought up: {_first_error(done.stderr) or done.last_line}",
            f"`sudo {' '.join(argv[:-1])}` shows all of it.",
        )

    def _wait_healthy(self, engine: docker.APIClient, progress: Progress) -> None:
        began_s = said_s = time.monotonic()
        while True:
            found = _inspect(engine, CONTAINER)
            state = found["State"] if found is not None else {}
            health = state.get("Health", {}).get("Status", "")
            if health == "healthy":
                return
            waited_s = time.monotonic() - began_s
            # `restart` brings it up again and again: a second start is a failure already.
            restarted = bool(found and found.get("RestartCount", 0))
            if health == "unhealthy" or restarted or waited_s > _HEALTH_TIMEOUT_S or not state:
                raise self._unhealthy(engine, waited_s)
            if time.monotonic() - said_s > _SAY_EVERY_S:
                said_s = time.monotonic()
                progress(f"Grafana: not healthy yet after {waited_s:.0f} s, waiting …")
            self._pause()

    def _unhealthy(self, engine: docker.APIClient, waited_s: float) -> AgentError:
        return AgentError(
            f"Grafana did not become healthy in {waited_s:.0f} s"
            f" (its last line: {_last_log_line(engine) or 'none'}).",
            f"`docker logs {CONTAINER}` has the cause; its first start downloads a plugin.",
        )

    def _remove(self, engine: docker.APIClient) -> None:
        """What `compose down` does, without needing compose or its file."""
        mine = {"label": ownership.GRAFANA_FILTER}
        for container in engine.containers(all=True, filters=mine):
            _remove_container(engine, container["Id"])
        for network in engine.networks(filters=mine):
            with suppress(NotFound):
                engine.remove_network(network["Id"])

    @contextmanager
    def _turn(self) -> Iterator[tuple[int, ...]]:
        """One at a time, and compose inherits it: an agent that was killed leaves its compose at
        work, and whoever takes Grafana down then has to wait for that, or it comes up behind him.

        Raises AgentError where the other does not end.
        """
        if self._run_dir is None:
            yield ()
            return
        descriptor = open_lock_file(self._run_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        try:
            deadline_s = time.monotonic() + _COMPOSE_TIMEOUT_S
            while not try_flock(descriptor, fcntl.LOCK_EX):
                if time.monotonic() > deadline_s:
                    raise AgentError(
                        "A compose of an agent that has ended is still at work on Grafana.",
                        f"`sudo fuser -v {self._run_dir / LOCK_NAME}` names it.",
                    )
                time.sleep(_POLL_S / 10)
            yield (descriptor,)
        finally:
            os.close(descriptor)

    def _pause(self) -> None:
        self._cancelled.wait(_POLL_S)
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise AgentError("Grafana's start was given up: the agent stops.")


def compose_command() -> list[str]:
    """`docker compose` where the plugin is there, else `docker-compose`.

    Raises AgentError where neither is.
    """
    candidates = (["docker", "compose"], ["docker-compose"])
    for command in candidates:
        if find(command[0]) is None:
            continue
        try:
            done = run([*command, "version"], timeout_s=30.0, check=False)
        except CommandError as error:
            log.warning("command=%s outcome=unusable %s", " ".join(command), error)
            continue
        if done.status == 0:
            return command
    raise AgentError(
        "Grafana needs docker compose, and neither `docker compose` nor `docker-compose` is there.",
        "Run `sudo apt-get install docker-compose`, or start with --no-grafana.",
    )


def port_is_free(port: int) -> bool:
    """Whether 127.0.0.1:`port` can be listened on (a listener on all addresses has it too)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections that linger after a stop do not look like a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


@contextmanager
def _engine(docker_host: str) -> Iterator[docker.APIClient]:
    """Raises EngineUnavailableError where Docker does not answer, AgentError where it refuses."""
    with closing(dockerapi.connect(docker_host, _CALL_TIMEOUT_S)) as client:
        try:
            with dockerapi.answering(docker_host):
                yield client
        except APIError as error:
            raise AgentError(
                f"Docker refused what Grafana needs: {printable(str(error.explanation or error))}",
                "`docker ps -a` shows what is there.",
            ) from error


def _inspect(engine: docker.APIClient, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = engine.inspect_container(name)
    except NotFound:
        return None
    return found


def _is_ours(container: dict[str, Any]) -> bool:
    labels = container.get("Config", {}).get("Labels") or {}
    return ownership.is_our_grafana(labels)


def _remove_container(engine: docker.APIClient, container_id: str) -> None:
    try:
        engine.stop(container_id, timeout=_STOP_GRACE_S)
        engine.remove_container(container_id, force=True)
    except NotFound:
        return
    except APIError as error:
        # 409: a removal is under way already, by us or by whoever was quicker.
        if error.status_code != 409:
            raise


def _last_log_line(engine: docker.APIClient) -> str:
    try:
        text = engine.logs(CONTAINER, tail=1, stdout=True, stderr=True)
    except APIError:
        return ""
    return printable(text.decode("utf-8", "replace").strip())[-300:]


def _first_error(said: str) -> str:
    """The line that names the cause; the last one of compose 1.29 says only that there was one."""
    for line in said.splitlines():
        if re.search(r"\berror\b", line, re.IGNORECASE):
            return printable(line.strip())[:300]
    return ""
