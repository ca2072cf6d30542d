"""The one place that makes a connection to the Docker engine.

Whatever the engine sends is bounded here: the time-out of a call covers the whole of its answer,
not only each piece of it, and so does a limit on its size. An engine that hangs, drips, or answers
nonsense is `EngineUnavailableError`, like one that is not there.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker
import docker.errors
import docker.transport
import msgspec
import requests.exceptions
import urllib3.exceptions
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool

from agent.engine_api import versions
from agent.engine_api.address import PODMAN_KIND, kind_of, look_remedy, product, start_remedy
from agent.errors import EngineUnavailableError
from agent.place import SETTINGS
from agent.util.terminal import printable

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 64 << 20
"""One answer: the list of some ten thousand containers."""
MAX_EVENT_BYTES = 1 << 20

_NOT_DOCKER = f"Look what listens there: docker_host in {SETTINGS} names it."
_SCHEME = "unix://"
_VERSION_HEAD = "Api-Version"


class BoundedSocket(socket.socket):
    """A socket whose time-out is one for the whole answer, and which counts what it receives.

    `settimeout` restarts the clock; urllib3 calls it once for each request.
    """

    _deadline: float | None = None
    _left_bytes = MAX_ANSWER_BYTES

    def settimeout(self, value: float | None) -> None:
        self._deadline = None if value is None else time.monotonic() + value
        self._left_bytes = MAX_ANSWER_BYTES
        super().settimeout(value)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`. Raises TimeoutError past the deadline, OSError past the size."""
        if self._deadline is not None:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the answer took too long")
            super().settimeout(left_s)
        received = super().recv_into(buffer, nbytes, flags)
        if self._deadline is not None:
            self._left_bytes -= received
            if self._left_bytes < 0:
                raise OSError(f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB")
        return received


class _Connection(UnixHTTPConnection):
    def connect(self) -> None:
        sock = BoundedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.unix_socket)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class _Pool(UnixHTTPConnectionPool):
    def _new_conn(self) -> Any:
        timeout: Any = self.timeout
        return _Connection(self.base_url, self.socket_path, timeout)


class _Adapter(docker.transport.UnixHTTPAdapter):
    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:
        """One pool for all: docker-py's own has one an URL, so a connection a container."""
        del url, proxies
        with self.pools.lock:
            pool = self.pools.get(_SCHEME)
            if pool is None:
                pool = _Pool(_SCHEME, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[_SCHEME] = pool
        return pool


class _Client(docker.APIClient):
    def _raise_for_status(self, response: requests.Response) -> None:
        """As docker-py's, which takes each refusal's body for an object that has a `message`."""
        try:
            super()._raise_for_status(response)  # type: ignore[misc]  # the stubs lack it
        except (KeyError, TypeError):
            raise ValueError(f"a refusal ({response.status_code}) without a message") from None


def socket_path(docker_host: str) -> str:
    """The path in `unix:///path`. Raises EngineUnavailableError for any other address."""
    if not docker_host.startswith(_SCHEME + "/"):
        raise EngineUnavailableError(
            f"{docker_host} is not a local Docker address.", "Set docker_host to unix:///path."
        )
    return docker_host.removeprefix(_SCHEME)


@contextmanager
def answering(docker_host: str) -> Iterator[None]:
    """Within the block every way in which the engine can fail to answer is EngineUnavailableError.

    `docker.errors.NotFound` is an answer and passes, as do other refusals with a status below 500.
    """
    try:
        yield
    except docker.errors.APIError as error:
        status = error.response.status_code if error.response is not None else 500
        if 400 <= status < 500:
            raise
        reason = str(error.explanation or f"status {status}")[:300]
        raise EngineUnavailableError(
            f"{product(docker_host)} at {docker_host} fails: {reason}.", look_remedy(docker_host)
        ) from error
    except (requests.exceptions.Timeout, TimeoutError) as error:
        raise EngineUnavailableError(
            f"{product(docker_host)} at {docker_host} does not answer in time.",
            look_remedy(docker_host),
        ) from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        msgspec.MsgspecError,
        OSError,
        ValueError,
        RecursionError,
    ) as error:
        cause = _cause(error)
        raise EngineUnavailableError(
            f"{product(docker_host)} at {docker_host} does not answer: {_words(cause)}.",
            _remedy(cause, docker_host),
        ) from error


def other_docker_host(docker_host: str) -> str:
    """A sentence where DOCKER_HOST names another engine than `docker_host`, else "".

    The docker command goes by that variable and the agent does not: it runs as root, from a unit.
    """
    named = os.environ.get("DOCKER_HOST", "")
    if not named or _same_socket(named, docker_host):
        return ""
    return (
        f"DOCKER_HOST is {printable(named)[:300]}, which the agent does not go by: it asks "
        f"{docker_host} (docker_host in {SETTINGS})."
    )


def _same_socket(one: str, other: str) -> bool:
    return one == other or (
        one.startswith(_SCHEME)
        and other.startswith(_SCHEME)
        and os.path.realpath(one.removeprefix(_SCHEME))
        == os.path.realpath(other.removeprefix(_SCHEME))
    )


def _remedy(cause: BaseException, docker_host: str) -> str:
    """What can help against the innermost cause: not every engine that fails is to be started."""
    if isinstance(cause, PermissionError):
        return "Run it as root: with sudo."
    if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
        return f"{start_remedy(docker_host)} {other_docker_host(docker_host)}".rstrip()
    return look_remedy(docker_host) if isinstance(cause, OSError) else _NOT_DOCKER


def connect(docker_host: str, timeout_s: float) -> docker.APIClient:
    """A client that speaks the newest API version that both sides know.

    `timeout_s` is the time that one call may take as a whole; a call may be given its own. Close it
    after use. Raises EngineUnavailableError where the engine cannot be reached or is too old.
    """
    path = socket_path(docker_host)
    with answering(docker_host):
        client = _client(path, versions.OLDEST, timeout_s)
        try:
            version = _negotiated(_about(client, docker_host), docker_host)
        finally:
            client.close()
        return _client(path, version, timeout_s)


@contextmanager
def connect_briefly(docker_host: str, timeout_s: float) -> Iterator[docker.APIClient]:
    """A client for the length of a block. Raises as `connect` does."""
    client = connect(docker_host, timeout_s)
    try:
        yield client
    finally:
        client.close()


def _client(path: str, version: str, timeout_s: Any) -> docker.APIClient:
    client = _Client(base_url=_SCHEME + path, version=version, timeout=timeout_s)
    client.mount("http+docker://", _Adapter("http+unix://" + path, timeout_s))
    return client


def _about(client: docker.APIClient, docker_host: str) -> Any:
    """What the engine says of its versions.

    Podman puts its answer to /version together from other programs' and the packages' word, for
    seconds on a busy host; the head of its answer to /_ping has its newest version too.
    """
    if kind_of(docker_host) != PODMAN_KIND:
        return client.version(api_version=False)
    response = client.get(f"{client.base_url}/_ping", timeout=client.timeout)
    response.raise_for_status()
    return {"ApiVersion": response.headers.get(_VERSION_HEAD)}


def _negotiated(answer: Any, docker_host: str) -> str:
    try:
        return versions.negotiated(answer, docker_host)
    except ValueError as error:
        raise EngineUnavailableError(
            f"{docker_host} does not answer as {product(docker_host)} does.", _NOT_DOCKER
        ) from error


def _cause(error: BaseException) -> BaseException:
    """The innermost reason: docker-py and requests wrap it several times."""
    seen: BaseException = error
    while inner := seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__):
        seen = inner
    return seen


def _words(cause: BaseException) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return printable(str(cause))[:200] or type(cause).__name__


class EventsRefusedError(EngineUnavailableError):
    """The engine is there and does not let us follow its events: a proxy in front of it."""


class EventStream:
    """The engine's container events as they come, on a connection of its own.

    `close` may be called from any thread and ends a read that waits.
    """

    def __init__(self, docker_host: str, kinds: tuple[str, ...], timeout_s: float) -> None:
        self._host = docker_host
        self._kinds = kinds
        self._timeout_s = timeout_s
        self._socket = BoundedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._response: http.client.HTTPResponse | None = None

    def open(self) -> None:
        """Connects and waits for the head of the answer. Raises EngineUnavailableError."""
        filters = json.dumps({"type": ["container"], "event": list(self._kinds)})
        query = urllib.parse.urlencode({"filters": filters})
        with answering(self._host):
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(socket_path(self._host))
            # Asked on this very connection, so that `close` ends this too.
            by_ping = kind_of(self._host) == PODMAN_KIND
            with self._get("/_ping" if by_ping else "/version") as answer:
                text = answer.read(MAX_EVENT_BYTES)
                by_head = {"ApiVersion": answer.headers.get(_VERSION_HEAD)}
            version = _negotiated(by_head if by_ping else msgspec.json.decode(text), self._host)
            self._response = self._get(f"/v{version}/events?{query}")
            self._socket.settimeout(None)

    def _get(self, target: str) -> http.client.HTTPResponse:
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: docker\r\n\r\n".encode("ascii"))
        response = http.client.HTTPResponse(self._socket, method="GET")
        response.begin()
        if response.status != http.HTTPStatus.OK:
            response.close()
            kind = EventsRefusedError if 400 <= response.status < 500 else EngineUnavailableError
            raise kind(
                f"{product(self._host)} at {self._host} gives no events: status {response.status}.",
                "Let a proxy in front of it pass GET /events."
                if kind is EventsRefusedError
                else look_remedy(self._host),
            )
        return response

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        """The events, until the stream ends; None for one that cannot be read.

        Raises EngineUnavailableError where the stream breaks.
        """
        if self._response is None:
            return
        while True:
            with answering(self._host):
                line = self._response.readline(MAX_EVENT_BYTES)
                if not line:
                    return
                if len(line) >= MAX_EVENT_BYTES and not line.endswith(b"\n"):
                    # It holds all labels of its container, of whatever length those are.
                    self._skip_line(self._response)
                elif not line.endswith(b"\n"):
                    raise ValueError("an event is cut")
                try:
                    event = msgspec.json.decode(line, type=dict[str, Any])
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    event = None
            yield event

    def _skip_line(self, response: http.client.HTTPResponse) -> None:
        for _ in range(MAX_ANSWER_BYTES // MAX_EVENT_BYTES):
            if response.readline(MAX_EVENT_BYTES)[-1:] in (b"", b"\n"):
                return
        raise ValueError("an event does not end")

    def close(self) -> None:
        """Ends a waiting read and frees the connection; a second call does nothing."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
