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
import re
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.errors import AgentError, LockedError, PrivilegeError, remedy_for
from agent.util.flock import open_lock_file, try_flock

log = logging.getLogger(__name__)

AGENT_LOCK = "agent.lock"
GENERATOR_LOCK = "generator.lock"
AGENT, CLEANUP = "agent", "clean-up"
_RETRY_S = 0.05
_RECORD_BYTES = 4096
_HOLDER_WAIT_S = 2.0
"""A holder writes who it is within moments of taking the lock."""
_FLAGS = re.compile(r"^flags:\s+([0-7]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, by its own account."""

    pid: int
    """0 where the file does not say."""
    started_wall_ns: int = 0
    """Wall clock when it took the lock, 0 where the file does not say."""
    role: str = AGENT
    """What it does: AGENT or CLEANUP."""
    keeps: bool = False
    """Whether it knows of `agent stop --keep`."""


class _LockFile:
    """One exclusive flock. The file is never removed: a lock on a removed file excludes nobody."""

    def __init__(self, run_dir: Path, name: str, role: str) -> None:
        self.path = run_dir / name
        self._role = role
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
            record = {
                "pid": os.getpid(),
                "started_wall_ns": time.time_ns(),
                "role": self._role,
                "keeps": True,
            }
            os.ftruncate(fd, 0)
            os.pwrite(fd, (json.dumps(record) + "\n").encode("ascii"), 0)
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

    def __init__(self, run_dir: Path, role: str = AGENT) -> None:
        super().__init__(run_dir, AGENT_LOCK, role)

    def acquire(self, wait_s: float = 1.0) -> Self:
        """Takes the lock, trying for `wait_s`: a generator's probe holds a shared one for moments.

        Raises LockedError where another agent runs, AgentError for a directory not root's.
        """
        if not self._try(wait_s):
            other = read_holder(self.path)
            who = f" (process {other.pid})" if _has_open(other.pid, self.path) else ""
            if other.role == CLEANUP:
                raise LockedError(
                    f"An `agent cleanup` is at work{who}.", "Wait until it has ended."
                )
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
        super().__init__(run_dir, GENERATOR_LOCK, AGENT)

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
        pid = read_holder(self.path).pid
        try:
            signal_holder(self.path, pid, signal.SIGTERM)
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
        return None if try_flock(fd, fcntl.LOCK_SH) else read_holder(path)
    finally:
        os.close(fd)


def holder_pid(run_dir: Path) -> int:
    """The running agent's pid, 0 where none runs or it has not said yet. Raises as `holder`.

    Where the file names a process that does not have it open, which it does between the lock and
    the holder's first word, it is an earlier holder's pid: 0 as well.
    """
    found = holder(run_dir)
    return found.pid if found and _has_open(found.pid, run_dir / AGENT_LOCK) else 0


def signal_agent(run_dir: Path, number: int, wait_s: float = _HOLDER_WAIT_S) -> int:
    """Sends a signal to the running agent and gives its pid, 0 where none runs.

    A holder that has not written yet who it is gets `wait_s` for it.

    No other process ever gets it. Raises LockedError where a clean-up holds the lock, AgentError
    where the file does not name the holder, PrivilegeError for who is not root.
    """
    path = run_dir / AGENT_LOCK
    deadline = time.monotonic() + wait_s
    while found := holder(run_dir):
        if found.role == CLEANUP and _has_open(found.pid, path):
            raise LockedError(
                f"No agent runs, but an `agent cleanup` is at work (process {found.pid}).",
                "Wait until it has ended.",
            )
        if signal_holder(path, found.pid, number):
            return found.pid
        _wait_for_its_name(path, deadline)
    return 0


def named_holder(run_dir: Path, wait_s: float = _HOLDER_WAIT_S) -> Holder | None:
    """As `holder`, once what the file says is of who holds the lock now: not of the run before.

    Raises AgentError where it does not name the holder within `wait_s`, and as `holder`.
    """
    path = run_dir / AGENT_LOCK
    deadline = time.monotonic() + wait_s
    while found := holder(run_dir):
        if _has_open(found.pid, path):
            return found
        _wait_for_its_name(path, deadline)
    return None


def _wait_for_its_name(path: Path, deadline: float) -> None:
    """A moment, in which a holder may write who it is. Raises AgentError past the deadline."""
    if time.monotonic() > deadline:
        raise AgentError(
            "A process holds the agent's lock, and its file does not say which.",
            f"`sudo fuser -v {path}` names it.",
        )
    time.sleep(_RETRY_S)


def signal_holder(path: Path, pid: int, number: int) -> bool:
    """Sends a signal to process `pid` if it has the lock file at `path` open for writing.

    Whether it was sent. Through a pidfd that is made before the look: what is looked at and what
    gets the signal are one process, whoever has its number afterwards. Raises OSError.
    """
    if pid <= 1:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError):
        return False
    try:
        if not _has_open(pid, path):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


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
        raise AgentError(
            f"{directory} cannot be used: {error.strerror}.", remedy_for(error, "Remove it.")
        ) from error
    if (
        not stat.S_ISDIR(about.st_mode)
        or about.st_uid != os.geteuid()
        or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        raise AgentError(
            f"{directory} is not a directory that only its owner can write.",
            f"Remove it, or `chown root:root {directory} && chmod 0755 {directory}`.",
        )


def read_holder(path: Path) -> Holder:
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
        role = CLEANUP if record.get("role") == CLEANUP else AGENT
        keeps = record.get("keeps") is True
        return Holder(int(record["pid"]), int(record["started_wall_ns"]), role, keeps)
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return Holder(0)


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has this very file open for writing, as who holds the lock has.

    The pid may be somebody else's by now; who only looks whether the lock is held opens it to read.
    """
    try:
        wanted = path.stat()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = entry.stat()
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    about = (entry.parent.parent / "fdinfo" / entry.name).read_text("ascii")
                    flags = _FLAGS.search(about)
                    if flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                        return True
            except OSError:  # closed meanwhile
                continue
    except OSError:  # the process is gone
        return False
    return False
