"""Who runs: the lock of the one agent on a host, and that of the one generator.

Both are flock files in a directory that only root can write. A lock ends with its holder, however
that ends, so there is no stale lock to clear; what the file says of its holder is for messages and
counts only while the lock is held.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.errors import AgentError, LockedError, PrivilegeError
from agent.util.flock import open_lock_file, try_flock

log = logging.getLogger(__name__)

AGENT_LOCK = "agent.lock"
GENERATOR_LOCK = "generator.lock"
_RETRY_S = 0.05
_RECORD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, by its own account."""

    pid: int
    """0 where the file does not say."""
    started_wall_ns: int = 0
    """Wall clock when it took the lock, 0 where the file does not say."""


class _LockFile:
    """One exclusive flock. The file is never removed: a lock on a removed file excludes nobody."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self.path = run_dir / name
        self._fd = -1

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def _try(self, wait_s: float, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Takes the lock within `wait_s` seconds. Raises AgentError for a file it cannot use."""
        if self.held:
            return True
        _prepare_directory(self.path.parent)
        deadline = time.monotonic() + wait_s
        fd = open_lock_file(self.path, os.O_RDWR | os.O_CREAT)
        try:
            while not try_flock(fd, fcntl.LOCK_EX):
                if time.monotonic() >= deadline or give_up():
                    os.close(fd)
                    return False
                time.sleep(_RETRY_S)
            record = json.dumps({"pid": os.getpid(), "started_wall_ns": time.time_ns()}) + "\n"
            os.ftruncate(fd, 0)
            os.pwrite(fd, record.encode("ascii"), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def release(self) -> None:
        """Gives the lock back; nothing where it is not held."""
        if self.held:
            fd, self._fd = self._fd, -1
            os.close(fd)


class AgentLock(_LockFile):
    """One agent a host, for as long as this process lives or until `release`.

    At stop it is released *before* the generator's lock: a generator that waited for that one then
    finds no agent and makes nothing.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir, AGENT_LOCK)

    def acquire(self, wait_s: float = 1.0) -> Self:
        """Takes the lock, trying for `wait_s`: a generator's probe holds a shared one for moments.

        Raises LockedError where another agent runs, AgentError for a directory not root's.
        """
        if not self._try(wait_s):
            other = _holder(self.path)
            who = f" (process {other.pid})" if other.pid else ""
            raise LockedError(
                f"Another agent already runs on this host{who}.",
                "Stop it with `sudo agent stop`, or look at it with `sudo agent status`.",
            )
        return self

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class GeneratorLock(_LockFile):
    """Keeps the generator of load from running; taken at stop and kept to the end."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir, GENERATOR_LOCK)

    def acquire(self, wait_s: float = 90.0, *, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Takes the lock and says whether it got it within `wait_s`, before `give_up()` was true.

        A generator that runs is asked to end (SIGTERM): it finishes the container it is making.
        The default outlasts the limit that it sets to a single call of Docker.
        """
        if self._try(0.0):
            return True
        self._ask_holder_to_end()
        return self._try(wait_s, give_up)

    def _ask_holder_to_end(self) -> None:
        pid = _holder(self.path).pid
        if pid <= 1 or not _has_open(pid, self.path):
            return
        try:
            os.kill(pid, signal.SIGTERM)
        except OSError as error:
            log.warning("generator=%d signal=TERM error=%s", pid, error.strerror)


def agent_is_running(run_dir: Path) -> bool:
    """Whether an agent holds its lock. Raises PrivilegeError for a caller that is not root."""
    return holder(run_dir) is not None


def holder(run_dir: Path) -> Holder | None:
    """The running agent, None where there is none. Raises PrivilegeError for who is not root.

    The probe takes a shared lock for a moment, which the starting agent waits out.
    """
    path = run_dir / AGENT_LOCK
    try:
        fd = open_lock_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if try_flock(fd, fcntl.LOCK_SH) else _holder(path)
    finally:
        os.close(fd)


def holder_pid(run_dir: Path) -> int:
    """The running agent's pid, 0 where none runs or it has not said yet. Raises as `holder`."""
    found = holder(run_dir)
    return found.pid if found else 0


def _prepare_directory(directory: Path) -> None:
    """Makes the run directory, or checks that nobody else could have put a file into it."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        about = directory.lstat()
    except PermissionError as error:
        raise PrivilegeError(
            f"{directory} cannot be made: {error.strerror}.", "Run it as root: `sudo agent …`."
        ) from error
    except OSError as error:
        raise AgentError(f"{directory} cannot be used: {error.strerror}.", "Remove it.") from error
    if (
        not stat.S_ISDIR(about.st_mode)
        or about.st_uid != os.geteuid()
        or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        raise AgentError(
            f"{directory} is not a directory that only its owner can write.",
            f"Remove it, or `chown root:root {directory} && chmod 0755 {directory}`.",
        )


def _holder(path: Path) -> Holder:
    """What the file says; a holder that has just taken the lock may not have written yet."""
    try:
        fd = open_lock_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return Holder(0)
    try:
        text = os.pread(fd, _RECORD_BYTES, 0)
    finally:
        os.close(fd)
    try:
        record = json.loads(text)
        return Holder(int(record["pid"]), int(record["started_wall_ns"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Holder(0)


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has this very file open: the pid may be somebody else's by now."""
    try:
        wanted = path.stat()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = entry.stat()
            except OSError:  # closed meanwhile
                continue
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:  # the process is gone
        return False
    return False
