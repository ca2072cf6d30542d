"""What was done to containers outside the agent's ticks, on its way to the history.

The agent is the history's one writer: `agent policy apply` leaves its passes in files beside the
database, and the next tick, of this run or the next, stores them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from agent.errors import AgentError, StoreError
from agent.model.removal import RemovalPass
from agent.util import files
from agent.util.flock import flock_beside_looks, open_lock_file, try_flock

log = logging.getLogger(__name__)

_PREFIX = "applied-"
_SUFFIX = ".json"
_MAX_BYTES = 16 << 20
_LOCK = "policy-apply.lock"


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """One at a time: a second one has to see what the first one did, and the agent leaves
    containers to it for as long. Raises AgentError where another is at work."""
    try:
        lock = open_lock_file(directory / _LOCK, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError as error:
        raise AgentError(
            f"There is no history in {directory}.", "Start the agent first: sudo agent start"
        ) from error
    try:
        if not flock_beside_looks(lock):
            raise AgentError(
                "Another `agent policy apply` is at work.", "Apply the plan once that has ended."
            )
        yield
    finally:
        os.close(lock)


def is_at_work(directory: Path) -> bool:
    """Whether somebody is between looking and leaving what was done. Where that cannot be told
    nobody is: what was done is found when it is left."""
    try:
        lock = open_lock_file(directory / _LOCK, os.O_RDWR)
    except (OSError, AgentError):
        return False
    try:
        return not try_flock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def leave(directory: Path, done: RemovalPass) -> Path:
    """Writes one pass, whole or not at all. Raises StoreError."""
    path = directory / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        files.put_new(path, msgspec.json.encode(done), 0o600)
    except OSError as error:
        raise StoreError(
            f"What was done cannot be left for the history in {directory}: {error.strerror}.",
            "Make room there; the log of this command has it.",
        ) from error
    return path


def take(directory: Path) -> tuple[RemovalPass, ...]:
    """All passes that wait there, oldest first. Each is given once; one that is none is dropped."""
    return _read(directory, keep=False)


def waiting(directory: Path) -> tuple[RemovalPass, ...]:
    """The same for whoever looks on; the agent is to take them still."""
    return _read(directory, keep=True)


def _read(directory: Path, *, keep: bool) -> tuple[RemovalPass, ...]:
    found: list[tuple[int, RemovalPass]] = []
    try:
        entries = [one for one in os.scandir(directory) if _is_ours(one.name)]
    except OSError:
        return ()
    for entry in entries:
        path = Path(entry.path)
        try:
            about = entry.stat(follow_symlinks=False)
            if about.st_uid in (0, os.geteuid()) and about.st_size <= _MAX_BYTES:
                text = path.read_bytes()
                found.append((about.st_mtime_ns, msgspec.json.decode(text, type=RemovalPass)))
            if not keep:
                path.unlink()
        except (OSError, msgspec.MsgspecError, RecursionError) as error:
            if keep:
                continue
            log.warning("applied=left-out file=%s %s", entry.name, error)
            with suppress(OSError):
                path.unlink()
    return tuple(one for _, one in sorted(found, key=lambda each: each[0]))


def _is_ours(name: str) -> bool:
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)
