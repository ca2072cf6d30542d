"""The throw-away container of `agent bpf check --canary`: started, talked to, removed.

Its image holds nothing: the host's own `/usr` is mounted read-only and its Python runs a short
program whose every request is known, so that no registry and no image of the host's is needed.
"""

from __future__ import annotations

import io
import json
import os
import select
import tarfile
import tempfile
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import docker
import docker.errors

from agent.engine_api.client import answering, connect
from agent.errors import AgentError
from agent.model.container import DOCKER, ContainerKey

LABEL = "so1.canary"
_IMAGE = "so1-canary"
_TAG = "local"
_PYTHON = "/usr/bin/python3"
_LIFE = Path(__file__).resolve().with_name("life.py")
_DIRECTORIES = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
_TIMEOUT_S = 120.0


class CanaryError(AgentError):
    """The canary could not be started or stopped answering."""


class Canary:
    """One canary; leaving the block removes it, with its image."""

    def __init__(self, docker_host: str) -> None:
        self._host = docker_host
        self._stack = ExitStack()
        self.id = ""
        self.name = f"so1_canary_{uuid.uuid4().hex[:8]}"
        self.first_pid = 0

    def __enter__(self) -> Self:
        """Raises CanaryError, EngineUnavailableError."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        if not Path(_PYTHON).exists():
            raise CanaryError(f"The canary needs {_PYTHON}.", "Run `apt-get install python3`.")
        self._client = connect(self._host, _TIMEOUT_S)
        self._stack.callback(self._client.close)
        place = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="so1-canary-"))
        for name in ("ask", "done"):
            os.mkfifo(f"{place}/{name}", 0o600)
        # Opened for both directions: neither side waits for the other's open, nor sees an end.
        self._ask = os.open(f"{place}/ask", os.O_RDWR | os.O_CLOEXEC)
        self._stack.callback(os.close, self._ask)
        self._done = os.open(f"{place}/done", os.O_RDWR | os.O_CLOEXEC)
        self._stack.callback(os.close, self._done)
        self._answers = b""
        try:
            with answering(self._host):
                self._remove_old()
                self._client.import_image(
                    src=_nothing(),
                    repository=_IMAGE,
                    tag=_TAG,
                )
                self._stack.callback(self._remove_image)
                self.id = self._create(place)
                self._stack.callback(self._remove, self.id)
                self._client.start(self.id)
                self.first_pid = self._client.inspect_container(self.id)["State"]["Pid"]
        except docker.errors.APIError as error:
            raise CanaryError(
                f"Docker refuses the canary: {str(error.explanation)[:300]}.",
                "Look at `sudo docker info`.",
            ) from error

    def _create(self, place: str) -> str:
        mounts = {"/usr": "/usr", place: "/canary"}
        mounts.update(
            {f"/{name}": f"/{name}" for name in _DIRECTORIES if _is_real_directory(f"/{name}")}
        )
        config = self._client.create_host_config(
            binds={
                source: {"bind": target, "mode": "rw" if target == "/canary" else "ro"}
                for source, target in mounts.items()
            },
            network_mode="none",
            tmpfs={"/canary-tmpfs": "size=256m"},
        )
        created = self._client.create_container(
            f"{_IMAGE}:{_TAG}",
            [_PYTHON, "-I", "-S", "-c", _LIFE.read_text(encoding="utf-8"), "/canary"],
            name=self.name,
            labels={LABEL: "1", "so1.protect": "true"},
            host_config=config,
        )
        return str(created["Id"])

    @property
    def key(self) -> ContainerKey:
        return ContainerKey(DOCKER, self.id)

    def ask(self, do: str, **arguments: int) -> dict[str, int]:
        """One request and its answer. Raises CanaryError where none comes in time."""
        os.write(self._ask, json.dumps({"do": do, **arguments}).encode() + b"\n")
        deadline = time.monotonic() + _TIMEOUT_S
        while b"\n" not in self._answers:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._done], [], [], left_s)[0]:
                raise CanaryError(f"The canary did not answer: {self._log()}")
            self._answers += os.read(self._done, 4096)
        line, _, self._answers = self._answers.partition(b"\n")
        answer: dict[str, int] = json.loads(line)
        return answer

    def execute(self, seconds: int) -> None:
        """A second process by `docker exec` that sleeps. Raises EngineUnavailableError."""
        sleep = f"import time; time.sleep({seconds})"
        with answering(self._host):
            made = self._client.exec_create(self.id, [_PYTHON, "-I", "-S", "-c", sleep])
            self._client.exec_start(made["Id"], detach=True)

    def _log(self) -> str:
        try:
            with answering(self._host):
                text: bytes = self._client.logs(self.id, tail=3)
        except (AgentError, docker.errors.APIError):
            return "its log cannot be read"
        return text.decode("utf-8", "replace").strip()[-300:] or "it said nothing"

    def _remove_old(self) -> None:
        """What a run that was killed has left."""
        for old in self._client.containers(all=True, filters={"label": LABEL}):
            self._remove(old["Id"])

    def _remove(self, container_id: str) -> None:
        with suppress(docker.errors.NotFound), answering(self._host):
            self._client.remove_container(container_id, force=True, v=True)

    def _remove_image(self) -> None:
        with suppress(docker.errors.APIError), answering(self._host):
            self._client.remove_image(f"{_IMAGE}:{_TAG}")


def _is_real_directory(path: str) -> bool:
    return Path(path).is_dir() and not Path(path).is_symlink()


def _nothing() -> bytes:
    """A root file system of mount points and, where the host has them, links into `/usr`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("usr", "canary", "canary-tmpfs", "proc", "sys", "dev", "etc", "tmp"):
            archive.addfile(_entry(name, tarfile.DIRTYPE))
        for name in _DIRECTORIES:
            path = Path("/") / name
            if path.is_symlink():
                link = _entry(name, tarfile.SYMTYPE)
                link.linkname = os.readlink(path)
                archive.addfile(link)
            elif path.is_dir():
                archive.addfile(_entry(name, tarfile.DIRTYPE))
    return buffer.getvalue()


def _entry(name: str, kind: bytes) -> Any:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = 0o755
    return entry
