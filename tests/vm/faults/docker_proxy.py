"""A Unix socket between the agent and the real engine, which spoils what the engine answers.

Requests always reach the engine; a mode says what becomes of the bytes that come back. A mode holds
for connections that are open as well.
"""

from __future__ import annotations

import random
import select
import socket
import threading
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_CHUNK = 1 << 16
_DRIP_S = 0.3
_NOISE = random.Random(2).randbytes(2048)
_LIE = b'[{"Id": 7, "Names": null}, "\\u0000", {"Labels": [[]]}]'


class Mode(Enum):
    """What the agent gets instead of the engine's answer."""

    PASS = "the answer"
    GARBAGE = "random bytes"
    NOT_JSON = "a whole answer that is no JSON"
    LIE = "JSON of another shape"
    HALF = "half of the answer"
    DRIP = "one byte after another"
    HANG = "nothing at all"
    FAIL = "status 500"
    CUT = "the end of the connection"


def _http(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode("ascii") + b"\r\n\r\n" + body


_INSTEAD = {
    Mode.GARBAGE: _NOISE,
    Mode.NOT_JSON: _http("200 OK", b"<html>" + _NOISE + b"</html>"),
    Mode.LIE: _http("200 OK", _LIE),
    Mode.FAIL: _http("500 Internal Server Error", b'{"message": "driver failed"}'),
    Mode.CUT: b"",
}


class DockerProxy:
    """Listens at `path`; a context manager."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path = path
        self.host = f"unix://{path}"
        self.mode = Mode.PASS
        self._engine = engine.removeprefix("unix://")
        self._ending = threading.Event()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._listener.close()
        self.cut()

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self) -> None:
        """Ends every connection there is, the stream of events too."""
        for pair in tuple(self._pairs):
            for one in pair:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        pair = (client, engine)
        self._pairs.add(pair)
        try:
            with client, engine:
                engine.connect(self._engine)
                self._pump(client, engine)
        except OSError:
            return
        finally:
            self._pairs.discard(pair)

    def _pump(self, client: socket.socket, engine: socket.socket) -> None:
        while True:
            for readable in select.select([client, engine], [], [])[0]:
                data = readable.recv(_CHUNK)
                if not data:
                    return
                if readable is client:
                    engine.sendall(data)
                elif not self._answer(client, data):
                    return

    def _answer(self, client: socket.socket, data: bytes) -> bool:
        """Whether the connection goes on."""
        mode = self.mode
        if mode is Mode.PASS:
            client.sendall(data)
            return True
        if mode is Mode.HANG:
            return True
        if mode is Mode.DRIP:
            for at in range(len(data)):
                if self.mode is not Mode.DRIP or self._ending.wait(_DRIP_S):
                    return False
                client.sendall(data[at : at + 1])
            return True
        client.sendall(_INSTEAD.get(mode, data[: len(data) // 2]))
        return False
