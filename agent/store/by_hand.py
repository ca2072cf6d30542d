"""What somebody wants of the policy, in a file beside the database: `agent policy disarm | arm`.

A file and no signal: it holds before the next action, whether an agent runs or not, and through a
kill. What cannot be trusted or read counts as disarmed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from agent.errors import StoreError
from agent.model.proof import ByHand
from agent.util import files

FILE_NAME = "policy-arming.json"
_MOST_BYTES = 4096


def write(directory: Path, wanted: ByHand) -> None:
    """Takes effect with the agent's next look. Raises StoreError."""
    path = directory / FILE_NAME
    try:
        files.replace(path, msgspec.json.encode(wanted) + b"\n", 0o600, durable=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}.",
            "See the directory and the room on its disk (df).",
        ) from error


def read(directory: Path) -> ByHand | None:
    """What is wanted, None where nobody ever said. Raises nothing."""
    path = directory / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return ByHand(armed=False, at_ms=0, why=f"{path} cannot be read: {error.strerror}")
    changed_ms = 0
    try:
        about = os.fstat(descriptor)
        changed_ms = about.st_mtime_ns // 10**6
        if (
            not stat.S_ISREG(about.st_mode)
            or about.st_uid not in (0, os.geteuid())
            or about.st_mode & 0o022
        ):
            return ByHand(False, changed_ms, f"others than root may write {path}")
        return msgspec.json.decode(os.read(descriptor, _MOST_BYTES), type=ByHand)
    except (OSError, msgspec.MsgspecError):
        return ByHand(False, changed_ms, f"{path} is not readable: run `sudo agent policy arm`")
    finally:
        os.close(descriptor)
