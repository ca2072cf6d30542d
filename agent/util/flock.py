"""Lock files: opened so that nobody else can steer it, locked without waiting.

A lock ends with its holder, however that ends, so there is no stale lock to clear.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path

from agent.errors import AgentError, PrivilegeError, remedy_for

_TRIES = 10
_PAUSE_S = 0.02


def open_lock_file(path: Path, flags: int) -> int:
    """Opens a lock file, never through a symbolic link, never inherited by a program we start.

    Mode 0600: who can open the file can hold a lock on it, and so keep the agent from starting.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise PrivilegeError(
            f"{path} cannot be opened: {error.strerror}.", "Run it as root: `sudo agent …`."
        ) from error
    except OSError as error:
        raise AgentError(
            f"{path} cannot be opened: {error.strerror}.", remedy_for(error, "Remove it.")
        ) from error
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
        os.close(fd)
        raise AgentError(f"{path} is not a lock file of ours.", f"Remove it: `rm {path}`.")
    return fd


def try_flock(fd: int, kind: int) -> bool:
    """Whether `fd` now has the lock (LOCK_EX or LOCK_SH); False where another holds it."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def flock_beside_looks(fd: int) -> bool:
    """Whether `fd` now has the lock for itself, after some tries: who only looks whether anybody
    has it takes a moment of it too."""
    for _ in range(_TRIES):
        if try_flock(fd, fcntl.LOCK_EX):
            return True
        time.sleep(_PAUSE_S)
    return try_flock(fd, fcntl.LOCK_EX)
