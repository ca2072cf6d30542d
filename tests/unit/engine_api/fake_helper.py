"""CRI's helper as a thread on the other end of its socket: it does what a test tells it to."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from agent.util.subprocess import CommandError

Act = Callable[[socket.socket, dict[str, Any]], None]
"""What is done at one question."""
_NOBODY = 2**30
"""No process has this id."""


def lines(*parts: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in parts)


class FakeHelpers:
    """Starts them; `acts` is what the next ones do, the last one for all after it."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.started: list[Sequence[str]] = []
        self.living: list[FakeProgram] = []

    def __call__(self, words: Sequence[str], descriptor: int) -> Any:
        self.started.append(words)
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        program = FakeProgram(socket.socket(fileno=os.dup(descriptor)), act)
        self.living.append(program)
        return program


class FakeProgram:
    """Of a Popen what the agent uses."""

    args = "helper"
    stdout = stderr = None
    pid = _NOBODY

    def __init__(self, channel: socket.socket, act: Act) -> None:
        self._channel = channel
        self._act = act
        self.returncode: int | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._channel, self._channel.makefile("rb") as questions:
            try:
                for question in questions:
                    self._act(self._channel, json.loads(question))
            except SystemExit as status:
                self.returncode = int(str(status.code))
            except OSError:
                self.returncode = 0

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        return self.returncode or 0

    def communicate(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)


def answers(*parts: Any) -> Act:
    """These lines and the end."""
    return lambda channel, _: channel.sendall(lines(*parts, {"end": True}))


def sends(data: bytes) -> Act:
    return lambda channel, _: channel.sendall(data)


def hangs(channel: socket.socket, question: dict[str, Any]) -> None:
    """Until the agent has closed its end."""
    del question
    channel.recv(1)


def ends(status: int) -> Act:
    def act(channel: socket.socket, question: dict[str, Any]) -> None:
        raise SystemExit(status)

    return act


def cannot_start(words: Sequence[str], descriptor: int) -> Any:
    raise CommandError(f"{words[0]} cannot be run: No such file or directory.")
