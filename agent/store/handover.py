"""What was done to containers outside the agent's ticks, on its way to the history.

The agent is the history's one writer: `agent policy apply` leaves its passes in files beside the
database, and the next tick, of this run or the next, stores them.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.errors import StoreError
from agent.model.removal import RemovalPass
from agent.util import files

log = logging.getLogger(__name__)

_PREFIX = "applied-"
_SUFFIX = ".json"
_MAX_BYTES = 16 << 20


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
