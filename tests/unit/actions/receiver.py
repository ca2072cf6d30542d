"""A receiver on a free port that answers as a test says, each request in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Answer = Callable[[socket.socket, threading.Event], None]


@dataclass
class Received:
    """One request, split by the test's own few lines."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class LocalReceiver:
    port: int
    requests: list[Received] = field(default_factory=list)
    answer: Answer = field(default=lambda one, _over: one.sendall(b"HTTP/1.1 200 OK\r\n\r\n"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def status(line: str, *, headers: str = "", body: str = "") -> Answer:
    text = f"HTTP/1.1 {line}\r\n{headers}\r\n{body}".encode()
    return lambda one, _over: one.sendall(text)


def never(_one: socket.socket, over: threading.Event) -> None:
    over.wait(30)


def dripping(text: bytes) -> Answer:
    """A byte every 50 ms, then again from the beginning: it never ends."""

    def answer(one: socket.socket, over: threading.Event) -> None:
        while True:
            for byte in text:
                one.sendall(bytes([byte]))
                if over.wait(0.05):
                    return

    return answer


def endless(head: bytes) -> Answer:
    def answer(one: socket.socket, over: threading.Event) -> None:
        one.sendall(head)
        while not over.is_set():
            one.sendall(b"x" * 65536)

    return answer


@contextmanager
def receiving(answer: Answer | None = None) -> Iterator[LocalReceiver]:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        receiver = LocalReceiver(server.getsockname()[1])
        if answer is not None:
            receiver.answer = answer

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=_one, args=(receiver, one, over), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield receiver
        finally:
            over.set()
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _one(receiver: LocalReceiver, one: socket.socket, over: threading.Event) -> None:
    with one, suppress(OSError):
        read = b""
        while b"\r\n\r\n" not in read:
            if not (piece := one.recv(65536)):
                return
            read += piece
        head, _, body = read.partition(b"\r\n\r\n")
        line, *others = head.decode("ascii").split("\r\n")
        headers = dict(other.split(": ", 1) for other in others)
        while len(body) < int(headers["Content-Length"]):
            body += one.recv(65536)
        receiver.requests.append(Received(line, headers, body))
        receiver.answer(one, over)
