"""Ends a Python process exactly at one of its steps; found by `PYTHONPATH`, so nothing else knows.

A step is a call by which the process changes something outside itself: a file, a lock, a program, a
request to Docker, a statement of SQLite. `SO1_TEST_STEP` names the one to end at (see `Step` of
`tests/kill_cases.py`), `SO1_TEST_STEPS` a file in which all of them are listed as they come.
"""

from __future__ import annotations

import fcntl
import functools
import http.client
import json
import os
import re
import socket
import sqlite3
import sqlite3.dbapi2
import subprocess
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_SQL_CHARACTERS = 80


class _Shim:
    """Counts steps, lists them, and sends the signal at the one asked for."""

    def __init__(self, wanted: dict[str, Any], listing: str) -> None:
        self._wanted = wanted
        self._listing = listing
        self._since = wanted.get("since", "")
        self._seen = 0
        self._number = 0
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._done = False
        self._last_sql = ""

    def before(self, kind: str, text: str) -> None:
        self._at("before", kind, text)

    def after(self, kind: str, text: str) -> None:
        self._at("after", kind, text)

    def statement(self, sql: str) -> None:
        """Many rows of one statement are one step."""
        text = " ".join(sql.split())[:_SQL_CHARACTERS]
        shape = re.sub(r"[0-9]+", "0", text.partition("VALUES")[0])
        if shape != self._last_sql:
            self._last_sql = shape
            self.before("sql", text)

    def _at(self, when: str, kind: str, text: str) -> None:
        if os.getpid() != self._pid:  # between fork and exec
            return
        with self._lock:
            line = f"{kind} {text}"
            if self._listing:
                with open(self._listing, "a", encoding="utf-8") as file:
                    file.write(f"{when} {line}\n")
            if self._is_wanted(when, line) and not self._done:
                self._done = True
                os.kill(self._pid, self._wanted["signal"])

    def _is_wanted(self, when: str, line: str) -> bool:
        if self._since:
            if re.search(self._since, line):
                self._since = ""
            return False
        if when != self._wanted.get("when") or not re.search(self._wanted["step"], line):
            return False
        self._seen += 1
        return bool(self._seen == self._wanted["nth"])


def _wrap(owner: Any, name: str, shim: _Shim, describe: Callable[..., str]) -> None:
    """Puts the shim before and after `owner.name`; "" from `describe` is a call of no interest."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        text = describe(*args, **kwargs)
        if not text:
            return original(*args, **kwargs)
        shim.before(name, text)
        answer = original(*args, **kwargs)
        shim.after(name, text)
        return answer

    setattr(owner, name, wrapped)


def _opened(path: Any, flags: int, *_: Any, **__: Any) -> str:
    return os.fsdecode(path) if flags & os.O_CREAT and not isinstance(path, int) else ""


def _path(path: Any, *_: Any, **__: Any) -> str:
    return os.fsdecode(path)


def _paths(source: Any, target: Any, *_: Any, **__: Any) -> str:
    return f"{os.fsdecode(source)} to {os.fsdecode(target)}"


def _address(address: tuple[str, int], *_: Any, **__: Any) -> str:
    return f"{address[0]} {address[1]}"


def _locked(file: Any, operation: int) -> str:
    descriptor = file if isinstance(file, int) else file.fileno()
    return os.readlink(f"/proc/self/fd/{descriptor}") if operation & fcntl.LOCK_EX else ""


def _install(shim: _Shim) -> None:
    _wrap(os, "open", shim, _opened)
    for name in ("mkdir", "unlink", "remove", "rmdir"):
        _wrap(os, name, shim, _path)
    for name in ("rename", "replace", "link"):
        _wrap(os, name, shim, _paths)
    _wrap(fcntl, "flock", shim, _locked)
    _wrap(socket, "create_connection", shim, _address)
    _install_spawn(shim)
    _install_http(shim)
    connect = sqlite3.connect

    @functools.wraps(connect)
    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.set_trace_callback(shim.statement)
        return connection

    for module in (sqlite3, sqlite3.dbapi2):
        setattr(module, "connect", traced)  # noqa: B010


def _install_spawn(shim: _Shim) -> None:
    original = subprocess.Popen.__init__

    @functools.wraps(original)
    def spawn(self: Any, args: Any, *more: Any, **kwargs: Any) -> None:
        text = args if isinstance(args, str) else " ".join(map(os.fsdecode, args))
        shim.before("spawn", text)
        original(self, args, *more, **kwargs)
        shim.after("spawn", text)

    setattr(subprocess.Popen, "__init__", spawn)  # noqa: B010 - mypy refuses the assignment


def _install_http(shim: _Shim) -> None:
    """A request is sent between its before and its after, which is the answer's arrival."""
    put, get = http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse

    @functools.wraps(put)
    def putrequest(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        self.so1_step = f"{method} {re.sub('^/v[0-9.]+', '', url)}"
        shim.before("http", self.so1_step)
        put(self, method, url, *args, **kwargs)

    @functools.wraps(get)
    def getresponse(self: Any) -> http.client.HTTPResponse:
        answer = get(self)
        shim.after("http", self.so1_step)
        return answer

    setattr(http.client.HTTPConnection, "putrequest", putrequest)  # noqa: B010
    setattr(http.client.HTTPConnection, "getresponse", getresponse)  # noqa: B010


if "SO1_TEST_STEP" in os.environ or "SO1_TEST_STEPS" in os.environ:
    _install(
        _Shim(
            json.loads(os.environ.get("SO1_TEST_STEP", "{}")),
            os.environ.get("SO1_TEST_STEPS", ""),
        )
    )
