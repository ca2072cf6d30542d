"""The helper process that asks a runtime by CRI, from the agent's side.

It is started with the first question and again after each failure of its own, with growing pauses.
Whatever it does (ends, hangs, writes nonsense or without end) is `EngineUnavailableError` in one
sentence, and so is what the runtime does. Nothing here imports grpc.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from agent.clock import Clock
from agent.engine_api.address import CRI_KIND, Address, look_remedy, start_remedy
from agent.engine_api.client import socket_path
from agent.errors import EngineUnavailableError
from agent.place import INSTALL, PACKAGE, PREFIX, SCRIPTS
from agent.util.backoff import Backoff
from agent.util.subprocess import (
    DISCARDED,
    CommandError,
    Program,
    begin,
    kill_session,
    status_within,
)
from agent.util.terminal import printable

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 32 << 20
"""One answer: the list of some ten thousand containers with their labels."""
_RUNTIMES_SHARE = 0.8
"""Of the time for an answer: the helper says itself that the runtime does not answer."""
_BACKOFF = Backoff(first_ns=10**9, longest_ns=60 * 10**9)
_MODULE = "agent.cri.helper"
_PIECE = 1 << 16
_LONGEST_LINE = 1 << 20
_AGAIN = "It is started again by itself."
_MAKE = INSTALL if PREFIX == PACKAGE else f"sudo {SCRIPTS}/cri_environment.sh"
"""The package brings it."""
_AGAIN_OR_MAKE = f"{_AGAIN} If it goes on, make its environment again: {_MAKE}"

Start = Callable[[Sequence[str], int], Program]
"""Starts the words with the descriptor passed on. Raises CommandError."""


class _BrokenError(Exception):
    """The helper cannot be used any more; the sentence says why."""

    def __init__(self, message: str, hint: str = _AGAIN) -> None:
        super().__init__(message)
        self.hint = hint


class CriHelper:
    """One engine's helper. One thread asks; `close` may be called from another."""

    def __init__(
        self, socket_address: str, environment: str, clock: Clock, start: Start | None = None
    ) -> None:
        """`environment` is the Python environment that has gRPC, `start` a test's own program."""
        self._address = Address(socket_address, CRI_KIND)
        self._environment = environment
        self._clock = clock
        self._start = start or _begin
        self._program: Program | None = None
        self._socket: socket.socket | None = None
        self._failures = 0
        self._failed_ns = 0
        self._failure = ("", "")
        """Sentence and remedy of the last one. Not the error: it would keep the frames of all who
        raised it."""

    def ask(self, what: str, timeout_s: float) -> list[Mapping[str, Any]]:
        """The lines of the answer to `list` or `version`. Raises EngineUnavailableError.

        While the helper is not to be started again yet, that is its last failure.
        """
        if self._clock.boot_ns() - self._failed_ns < _BACKOFF.pause_ns(self._failures):
            raise EngineUnavailableError(*self._failure)
        try:
            lines = self._exchange(what, timeout_s)
        except _BrokenError as error:
            raise self._note_failure(
                f"The helper of {self._address} {error}.", error.hint
            ) from error
        except CommandError as error:
            raise self._note_failure(
                f"The helper of {self._address} cannot be started: {error}",
                f"Make its environment: {_MAKE}",
            ) from error
        problem = lines[-1]
        if problem.get("kind") == "environment":
            raise self._note_failure(
                f"The environment {self._environment} of CRI's helper is not whole: "
                f"{printable(str(problem.get('error')))[:300]}.",
                f"Make it: {_MAKE}",
            )
        self._failures = 0
        if "error" in problem:
            raise self._runtimes(str(problem["error"]), str(problem.get("kind", "")))
        return lines[:-1]

    def close(self) -> None:
        """Ends the helper; the next question starts it again."""
        program, self._program = self._program, None
        channel, self._socket = self._socket, None
        if channel is not None:
            with suppress(OSError):  # wakes whoever waits for an answer
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()
        if program is not None:
            kill_session(program)

    def _note_failure(self, message: str, hint: str) -> EngineUnavailableError:
        self.close()
        self._failures += 1
        self._failed_ns = self._clock.boot_ns()
        self._failure = (message, hint)
        log.log(
            logging.WARNING if self._failures == 1 else logging.DEBUG,
            "helper=failed failures=%d %s",
            self._failures,
            message,
        )
        return EngineUnavailableError(message, hint)

    def _exchange(self, what: str, timeout_s: float) -> list[Mapping[str, Any]]:
        """One question and its whole answer. Raises _BrokenError, CommandError."""
        ends = time.monotonic() + timeout_s
        question = {"ask": what, "seconds": timeout_s * _RUNTIMES_SHARE}
        try:
            channel = self._socket or self._connect()
            channel.settimeout(timeout_s)
            channel.sendall(json.dumps(question).encode() + b"\n")
            return _answer(channel, ends)
        except TimeoutError:
            raise _BrokenError(f"has not answered within {timeout_s:g} s and was ended") from None
        except OSError as error:
            raise self._how_it_ended(error) from None

    def _connect(self) -> socket.socket:
        path = socket_path(self._address)
        ours, its = socket.socketpair()
        with its:
            words = [
                *(f"{self._environment}/bin/python", "-I", "-m", _MODULE),
                *(path, str(its.fileno())),
            ]
            try:
                self._program = self._start(words, its.fileno())
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        return ours

    def _how_it_ended(self, error: OSError) -> _BrokenError:
        # It has closed its end of the socket, which a program does a moment before it has ended.
        status = status_within(self._program, 1.0) if self._program is not None else None
        if status is None:
            return _BrokenError(f"is out of reach ({error.strerror or error})")
        if status < 0:
            return _BrokenError(f"ended by signal {-status}")
        # Its Python may be another since an upgrade of the host, and finds nothing.
        return _BrokenError(f"ended with status {status}", _AGAIN_OR_MAKE)

    def _runtimes(self, error: str, kind: str) -> EngineUnavailableError:
        """What the helper reports of the runtime."""
        error = printable(error)[:300]
        where = f"The CRI runtime at {self._address}"
        if kind == "deadline_exceeded":
            return EngineUnavailableError(
                f"{where} does not answer in time.", look_remedy(self._address)
            )
        if kind == "unimplemented":
            return EngineUnavailableError(
                f"{where} does not speak CRI v1: {error}.",
                "containerd does from 1.6 on, with its CRI plugin "
                "(disabled_plugins in /etc/containerd/config.toml).",
            )
        if kind == "resource_exhausted":
            return EngineUnavailableError(
                f"{where} lists more than one answer may hold: {error}.",
                "Look at `sudo crictl ps -a`.",
            )
        remedy = start_remedy if kind in ("socket", "unavailable") else look_remedy
        return EngineUnavailableError(f"{where} does not answer: {error}.", remedy(self._address))


def _begin(words: Sequence[str], descriptor: int) -> Program:
    return begin(words, stdout=DISCARDED, stderr=DISCARDED, pass_fds=(descriptor,))


def _answer(channel: socket.socket, ends: float) -> list[Mapping[str, Any]]:
    """Lines up to `end` or `error`. Raises TimeoutError, OSError, _BrokenError."""
    lines: list[Mapping[str, Any]] = []
    rest = b""
    size = 0
    while True:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        channel.settimeout(left_s)
        piece = channel.recv(_PIECE)
        if not piece:
            raise OSError("it has closed its end")
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise _BrokenError(f"answers with more than {MAX_ANSWER_BYTES >> 20} MiB and was ended")
        if len(rest) > _LONGEST_LINE:
            raise _BrokenError("writes a line without end and was ended")
        *whole, rest = (rest + piece).split(b"\n")
        for number, text in enumerate(whole):
            line = _line(text)
            lines.append(line)
            if "end" in line or "error" in line:
                if number + 1 < len(whole) or rest:
                    raise _BrokenError("goes on after the end of its answer and was ended")
                return lines


def _line(text: bytes) -> Mapping[str, Any]:
    try:
        line: Any = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = printable(str(error))[:200]
        raise _BrokenError(f"writes what is not JSON ({why}) and was ended") from None
    if not isinstance(line, dict):
        raise _BrokenError("writes lines that are no objects and was ended")
    return line
