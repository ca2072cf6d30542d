"""Whom the agent is doing something to, for whoever decides beside it.

A removal lasts up to its grace. Until it has ended it is in no history, and the engine has the
container among those that run: who counts it among those that stay lets one too many go.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from agent.errors import AgentError
from agent.model.container import ContainerKey
from agent.util.flock import flock_beside_looks, open_lock_file, try_flock

log = logging.getLogger(__name__)

FILE_NAME = "removals-under-way.json"
_MAX_BYTES = 4 << 20
_TRIES = 50
_PAUSE_S = 0.02


class UnderWay:
    """What one agent says, in a file beside its database that it holds the lock of for as long as
    there is anybody: what a killed one has left counts no more."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._fd = -1
        self._said: frozenset[ContainerKey] | None = None

    def say(self, containers: Collection[ContainerKey]) -> None:
        """These, and nobody else. Where it cannot be said the log has it, once for each change:
        what the agent does does not wait for that."""
        wanted = frozenset(containers)
        if wanted == self._said:
            return
        self._said = wanted
        try:
            if wanted:
                self._write(wanted)
            else:
                self._forget()
        except (OSError, AgentError) as error:
            log.warning("under-way=unsaid containers=%d %s", len(wanted), error)

    def _forget(self) -> None:
        """Takes the file away, one that a killed agent has left too, and not one that is held."""
        if self._fd < 0:
            try:
                fd = open_lock_file(self._path, os.O_RDWR)
            except FileNotFoundError:
                return
            if not flock_beside_looks(fd):
                os.close(fd)
                return
            self._fd = fd
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1

    def _write(self, containers: Collection[ContainerKey]) -> None:
        data = msgspec.json.encode(sorted(containers))
        if self._fd < 0:
            fd = open_lock_file(self._path, os.O_RDWR | os.O_CREAT)
            if not flock_beside_looks(fd):
                os.close(fd)
                raise AgentError(f"{self._path} is held by another.", "Stop the other agent.")
            self._fd = fd
        # What stood there before is longer, shorter or of a run before: whoever reads amid this
        # finds no list, and looks again.
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)


def under_way(directory: Path) -> frozenset[ContainerKey]:
    """Whom a running agent is doing something to.

    Raises AgentError where there is one and what it says cannot be read.
    """
    path = directory / FILE_NAME
    try:
        fd = open_lock_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return frozenset()
    try:
        for _ in range(_TRIES):
            if try_flock(fd, fcntl.LOCK_SH):
                return frozenset()
            try:
                said = msgspec.json.decode(os.pread(fd, _MAX_BYTES, 0), type=list[ContainerKey])
            except msgspec.MsgspecError:
                time.sleep(_PAUSE_S)
            else:
                return frozenset(said)
    finally:
        os.close(fd)
    raise AgentError(
        f"Whom the agent is acting on cannot be read in {path}.", "Try again in a moment."
    )
