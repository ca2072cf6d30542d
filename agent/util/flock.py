"""Lock files: opened so that nobody else can steer it, locked without waiting.

A lock ends with its holder, however that ends, so there is no stale lock to clear.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from agent.errors import AgentError, PrivilegeError, remedy_for


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
