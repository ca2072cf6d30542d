"""Keeps unit tests from starting processes, by accident or behind a handler's back.

An interpreter-wide audit hook sees every way to do it (subprocess, os.system, fork, exec, spawn),
however it was imported. A test that needs a process says so with the marker `allow_subprocess`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVENTS = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "pty.spawn",
    }
)


class ProcessStartedError(BaseException):
    """Not an Exception, so that no ordinary handler swallows it."""


class _Watch:
    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.on and event in _EVENTS:
            self.seen.append(f"{event}{arguments!r}")
            raise ProcessStartedError(self.seen[-1])


_watch = _Watch()
sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def no_processes(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Fails a test that starts a process, even where the error was caught or a thread did it.

    Its value is the list of what was started so far.
    """
    if request.node.get_closest_marker("allow_subprocess"):
        yield []
        return
    _watch.seen.clear()
    _watch.on = True
    try:
        yield _watch.seen
    finally:
        _watch.on = False
    if _watch.seen:
        pytest.fail(f"a unit test started a process: {_watch.seen[0][:300]}")
