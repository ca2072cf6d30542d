"""An engine on a Unix socket that answers what a test tells it to, byte for byte if need be."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSION = {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"}
SECOND = 10**9
Handler = Callable[[socket.socket, str], None]


def reply(body: Any, status: str = "200 OK") -> bytes:
    """A whole HTTP answer with a JSON body."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"\r\n" + text


class FakeEngine:
    """`answers` maps the path's end (`/containers/json`) to an answer, bytes, or a handler."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "docker.sock"
        self.host = f"unix://{self.path}"
        self.answers: dict[str, Any] = {"/version": VERSION}
        self.requests: list[str] = []
        """Each path that was asked for, with its query."""
        self.calls: list[str] = []
        """Each request's method and the path behind the version, without its query."""
        self._open: set[socket.socket] = set()
        self._ending = threading.Event()
        self.start()

    def start(self) -> None:
        self._ending.clear()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """As an engine that is stopped: all connections end, the socket is gone."""
        self._ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.path.unlink()
        self.drop()

    def drop(self) -> None:
        """Ends the connections that there are."""
        for one in tuple(self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    @property
    def connections(self) -> int:
        return len(self._open)

    def asked(self, end: str) -> int:
        """How often a path that ends so was asked for."""
        return sum(one.partition("?")[0].endswith(end) for one in self.requests)

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                while (first := lines.readline()).strip():
                    length = 0
                    while line := lines.readline().strip():
                        name, _, value = line.partition(b":")
                        if name.lower() == b"content-length":
                            length = int(value)
                    lines.read(length)
                    method, target = first.decode().split()[:2]
                    self.requests.append(target)
                    path = target.partition("?")[0]
                    self.calls.append(f"{method} {path[path.find('/', 1) :]}")
                    self._answer(connection, method, target)
        except OSError:
            return
        finally:
            self._open.discard(connection)

    def _answer(self, connection: socket.socket, method: str, target: str) -> None:
        path = target.partition("?")[0]
        for end, answer in self.answers.items():
            if path.endswith(end):
                if callable(answer):
                    answer(connection, target)
                else:
                    connection.sendall(answer if isinstance(answer, bytes) else reply(answer))
                return
        connection.sendall(reply({"message": f"No such thing: {path}"}, "404 Not Found"))


def listed(letter: str, **changed: Any) -> dict[str, Any]:
    """An entry of the list."""
    entry = {
        "Id": letter * 64,
        "Names": [f"/name-{letter}"],
        "Image": "alpine:latest",
        "ImageID": "sha256:" + "1" * 64,
        "Created": 1_700_000_000,
        "State": "running",
        "Status": "Up 2 seconds",
        "Labels": {"a": "b"},
    }
    return {**entry, **changed}


def inspected(letter: str, **changed: Any) -> dict[str, Any]:
    """A container's description."""
    entry = {
        "Id": letter * 64,
        "Created": "2026-11-24T15:12:45.123456789Z",
        "Name": f"/name-{letter}",
        "Image": "sha256:" + "1" * 64,
        "Config": {"Image": "alpine:latest", "Labels": {"a": "b"}},
        "State": {"Pid": 4321, "Status": "running"},
    }
    return {**entry, **changed}


def offer(fake: FakeEngine, *containers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The engine has exactly these: each an entry of the list and a description."""
    for key in [key for key in fake.answers if key.endswith("/json")]:
        del fake.answers[key]
    fake.answers["/containers/json"] = [entry for entry, _ in containers]
    for entry, description in containers:
        fake.answers[f"/containers/{entry['Id']}/json"] = description


class Clock:
    """Both clocks; a test moves them."""

    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns


def hang(connection: socket.socket, target: str) -> None:
    """Never a word, until the one that asked gives up."""
    connection.settimeout(30)
    while connection.recv(4096):
        pass
