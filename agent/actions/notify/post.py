"""One HTTP POST with one deadline over all of it, whatever the other side does.

`http.client` has a limit for each read, not for all of them: a receiver that drips a byte a second
would hold it for hours. Here the name's resolution alone is the system's to end; connecting, TLS,
sending and the answer share one deadline. No redirect is followed, no proxy is used, TLS is
verified, and of the answer no more is read than a sentence to show.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from agent import __version__
from agent.errors import AgentError
from agent.util import files
from agent.util.terminal import printable

_HEAD_BYTES = 16 << 10
_BODY_BYTES = 2 << 10
_SHOWN = 200
_SANDBOX = "The service may reach this host alone: `sudo systemctl edit so1-agent`, IPAddressAllow="
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")


class DeliveryError(AgentError):
    """A receiver has not taken a message. Its text has no secret and no path of the URL in it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to POST to, taken apart. `ca_file` None: the system's certificates."""

    host: str
    port: int
    path: str = field(repr=False)
    tls: bool
    ca_file: Path | None = None

    @classmethod
    def of(cls, url: str, ca_file: str = "", suffix: str = "") -> Target:
        """That of a URL which the settings have checked; `suffix` goes behind its path."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        path = (parts.path.rstrip("/") if suffix else parts.path or "/") + suffix
        if parts.query and not suffix:
            path += f"?{parts.query}"
        port = (443 if tls else 80) if parts.port is None else parts.port
        return cls(parts.hostname or "", port, path, tls, Path(ca_file) if ca_file else None)

    @property
    def shown(self) -> str:
        """What people are shown: a path may be a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def post(target: Target, headers: Mapping[str, str], body: bytes, timeout_s: float) -> None:
    """Sends it once. Raises DeliveryError unless the answer's status is 2xx."""
    deadline = time.monotonic() + timeout_s
    try:
        with _connected(target, deadline) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(_request(target, headers, body))
            status, said = _answer(connection, deadline)
    except TimeoutError:
        raise DeliveryError(f"{target.shown} did not answer within {timeout_s:g} s.") from None
    except ssl.SSLCertVerificationError as error:
        raise DeliveryError(
            f"The certificate of {target.shown} is not trusted: {error.verify_message}.",
            "Name its authority's with ca_file.",
        ) from None
    except (OSError, ValueError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        hint = _SANDBOX if isinstance(error, PermissionError) else ""
        raise DeliveryError(
            f"{target.shown} was not reached: {printable(str(why))}.", hint
        ) from None
    if 300 <= status < 400:
        raise DeliveryError(
            f"{target.shown} redirects (status {status}), which is not followed.",
            "Name the URL that it redirects to.",
        )
    if not 200 <= status < 300:
        raise DeliveryError(f"{target.shown} answered with status {status}{_quoted(said)}.")


def _connected(target: Target, deadline: float) -> socket.socket:
    """A connection, with TLS where that is wanted. Raises OSError, TimeoutError."""
    plain = socket.create_connection((target.host, target.port), timeout=_left(deadline))
    if not target.tls:
        return plain
    try:
        context = _trusting(target.ca_file)
        plain.settimeout(_left(deadline))
        # The handshake as a whole has the socket's time-out, not each of its reads.
        return context.wrap_socket(plain, server_hostname=target.host)
    except BaseException:
        plain.close()
        raise


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """What a connection is verified by. Raises DeliveryError for a file that it cannot be."""
    if ca_file is None:
        return ssl.create_default_context()
    try:
        descriptor = files.open_regular(ca_file)
        try:
            return ssl.create_default_context(cafile=f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "reason", None) or error.strerror or error
        raise DeliveryError(
            f"ca_file {ca_file} cannot be used: {printable(str(why))}.",
            "It has to hold certificates in PEM.",
        ) from None


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.shown}",
        f"User-Agent: so1-agent/{__version__}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Accept: application/json",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _answer(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """Status and the beginning of the body. Raises ValueError for what is no answer."""
    read = b""
    while True:
        _, found, body = read.partition(b"\r\n\r\n")
        match = _STATUS.match(read)
        if found and match and match[1] == b"100":  # Continue: the answer itself comes after
            read = body
            continue
        # A delivered one is known by its status line; nobody reads what else it says.
        if match and (match[1].startswith(b"2") or (found and len(body) >= _BODY_BYTES)):
            return int(match[1]), body[:_BODY_BYTES]
        if len(read) > _HEAD_BYTES:
            raise ValueError("what it answers is no HTTP")
        connection.settimeout(_left(deadline))
        try:
            piece = connection.recv(4096)
        except TimeoutError:
            if match:  # it refused, and only its reasons are missing
                return int(match[1]), body[:_BODY_BYTES]
            raise
        if not piece:
            if match:
                return int(match[1]), body[:_BODY_BYTES]
            raise ValueError("it closed the connection without an answer")
        read += piece


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _quoted(said: bytes) -> str:
    text = printable(said.decode("utf-8", "replace").strip())[:_SHOWN]
    return f": {text}" if text else ""
