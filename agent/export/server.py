"""A small HTTP server for `/metrics`: one thread for all clients, one rendering a tick.

Whoever scrapes gets bytes that are there already or are made once for all who ask: nobody waits for
a tick, an engine or another client. A client has a deadline and no say in what is kept for it; at
the bound the one that has been there longest goes.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from agent.errors import AgentError, remedy_for

log = logging.getLogger(__name__)

MAX_CLIENTS = 128
MAX_REQUEST_BYTES = 8192
CLIENT_DEADLINE_S = 10.0
_JOIN_S = 5.0
_BACKLOG = 256

Page = Callable[[str], "tuple[str, bytes] | None"]
"""Content type and body for an `Accept` header; None while there is nothing to show."""


class ListenError(AgentError):
    """The address of `metrics.listen` is not available."""


@dataclass(slots=True, eq=False)
class _Scraper:
    socket: socket.socket
    ends: float
    """Monotonic clock."""
    request: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None
    """What is still to be sent; its bytes are the rendering's, not a copy."""
    pending: list[bytes] = field(default_factory=list)


class MetricsServer:
    """Listens from `start` to `close`. `page` is called in the server's thread."""

    def __init__(
        self,
        address: tuple[str, int],
        page: Page,
        *,
        max_clients: int = MAX_CLIENTS,
        deadline_s: float = CLIENT_DEADLINE_S,
    ) -> None:
        """Binds at once. Raises ListenError where that cannot be."""
        self._page = page
        self._max_clients = max_clients
        self._deadline_s = deadline_s
        self._clients: dict[int, _Scraper] = {}
        """By descriptor, the oldest first."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with ExitStack() as made:
            try:
                self._listener = made.enter_context(socket.socket(family, socket.SOCK_STREAM))
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._listener.bind(address)
                self._listener.listen(_BACKLOG)
                self._selector = made.enter_context(selectors.DefaultSelector())
                self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                usual = f"See who has it (ss -ltnp 'sport = :{address[1]}'), or set another."
                raise ListenError(
                    f"The address {address[0]} port {address[1]} of metrics.listen is not "
                    f"available: {error.strerror}.",
                    remedy_for(error, usual),
                ) from error
            made.pop_all()
        self._listener.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Begins to answer. Call once. Raises ListenError where no thread can be started."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self.close()
            raise ListenError(f"No thread can be started to answer: {error}.") from error

    @property
    def answers(self) -> bool:
        """Whether the thread that answers is there still."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread and every connection."""
        os.close(self._waker)
        if self._thread.ident is None:
            self._let_go()
        else:
            self._thread.join(_JOIN_S)

    def _serve(self) -> None:
        try:
            self._selector.register(self._listener, selectors.EVENT_READ, "listener")
            self._selector.register(self._wake, selectors.EVENT_READ, "end")
            while True:
                for key, _ in self._selector.select(self._pause_s()):
                    if key.data == "end":
                        return
                    if key.data == "listener":
                        self._accept()
                    elif key.fd in self._clients:
                        # It may have been dropped for another of this very round.
                        self._attend(self._clients[key.fd])
                self._drop_late()
        finally:
            self._let_go()

    def _pause_s(self) -> float | None:
        oldest = next(iter(self._clients.values()), None)
        return None if oldest is None else max(0.0, oldest.ends - time.monotonic())

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
            connection.setblocking(False)
        except OSError as error:
            # Without descriptors the listener stays readable: not a loop without a pause.
            log.debug("metrics=not-accepted %s", error)
            time.sleep(0.1)
            return
        if len(self._clients) >= self._max_clients:
            self._drop(next(iter(self._clients.values())))
        client = _Scraper(connection, time.monotonic() + self._deadline_s)
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ, "client")

    def _attend(self, client: _Scraper) -> None:
        try:
            if client.answer is None:
                self._read(client)
            else:
                self._send(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _read(self, client: _Scraper) -> None:
        some = client.socket.recv(4096)
        client.request += some
        if b"\r\n\r\n" in client.request or b"\n\n" in client.request:
            head, body = self._answer(bytes(client.request))
        elif not some:
            self._drop(client)
            return
        elif len(client.request) > MAX_REQUEST_BYTES:
            head, body = _response(431, "Request Header Fields Too Large")
        else:
            return
        client.request.clear()
        client.answer, client.pending = memoryview(head), [body]
        self._selector.modify(client.socket, selectors.EVENT_WRITE, "client")
        self._send(client)

    def _answer(self, request: bytes) -> tuple[bytes, bytes]:
        line, *headers = request.decode("latin-1").splitlines()
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(400, "Bad Request")
        method, target = words[0], words[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _response(405, "Method Not Allowed", more="Allow: GET, HEAD\r\n")
        if target != "/metrics":
            return _response(404, "Not Found", b"This host's figures are at /metrics.\n")
        accept = next(
            (one.partition(":")[2] for one in headers if one.lower().startswith("accept:")), ""
        )
        try:
            page = self._page(accept.strip())
        except Exception:  # a fault of ours must not end the answers to all others
            log.exception("metrics=not-rendered")
            return _response(500, "Internal Server Error")
        if page is None:
            return _response(503, "Service Unavailable", b"There was no tick yet.\n")
        head, body = _response(200, "OK", page[1], page[0])
        return head, b"" if method == "HEAD" else body

    def _send(self, client: _Scraper) -> None:
        while client.answer is not None:
            sent = client.socket.send(client.answer)
            client.answer = client.answer[sent:]
            if not client.answer and client.pending:
                client.answer = memoryview(client.pending.pop())
            if not client.answer:
                self._drop(client)
                return

    def _drop_late(self) -> None:
        now = time.monotonic()
        while self._clients:
            oldest = next(iter(self._clients.values()))
            if oldest.ends > now:
                return
            self._drop(oldest)

    def _drop(self, client: _Scraper) -> None:
        client.answer = None
        client.pending.clear()
        self._clients.pop(client.socket.fileno(), None)
        self._selector.unregister(client.socket)
        client.socket.close()

    def _let_go(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._listener.close()
        os.close(self._wake)


def _response(
    status: int,
    reason: str,
    body: bytes = b"",
    content_type: str = "text/plain; charset=utf-8",
    more: str = "",
) -> tuple[bytes, bytes]:
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode("ascii"), body
