"""The one door to other programs.

Every program runs without a shell, with a clean environment, a fixed language, no standard input,
a time limit, and in a session of its own, so that a Ctrl-C in the terminal reaches the agent alone.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TypeAlias

from agent.errors import AgentError

log = logging.getLogger(__name__)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for: by the agent, by what it starts, and by its line of cron."""
DISCARDED = subprocess.DEVNULL
"""Output that nobody reads."""

_KILLED_S = 5.0
"""How long the end of a killed program is waited for: one inside the kernel may not end at all."""
_KEPT_BYTES = 64 << 10
"""Of a background program's output, the end."""

Program: TypeAlias = "subprocess.Popen[bytes]"
"""A program that was begun: its `pid`, `poll` and `wait`; `kill_session` ends and reaps it."""


class CommandError(AgentError):
    """A program could not be run, failed, or took too long."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line that it said, on stderr rather than on stdout."""
        for text in (self.stderr, self.stdout):
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return ""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a program that the agent starts sees of the environment."""
    return {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": "/root", **(extra or {})}


def find(program: str) -> str | None:
    """Where a program that the agent would start lies, None where there is none of that name."""
    return shutil.which(program, path=PATH)


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Runs `argv` to its end and gives its status and what it printed.

    Raises CommandError where the program is absent, overruns `timeout_s` (it is killed with all of
    its session), or, with `check`, ends with a status other than 0.
    """
    name = argv[0]
    process = begin(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, pass_fds=pass_fds
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException as error:
        kill_session(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise _overrun(name, timeout_s) from error
        raise
    finished = Finished(
        tuple(argv),
        process.returncode,
        out.decode("utf-8", "replace"),
        err.decode("utf-8", "replace"),
    )
    if check and finished.status != 0:
        log.warning("command=%s status=%d said=%r", name, finished.status, finished.last_line[:300])
        raise CommandError(
            f"{name} failed with status {finished.status}: {finished.last_line[:300]}",
            f"Run `{name}` by hand.",
        )
    return finished


def begin(
    argv: Sequence[str],
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Program:
    """Starts a program, whose owner has to reap it. Raises CommandError where that cannot be."""
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(env),
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            cwd="/",
        )
    except OSError as error:
        remedy = f"Install {argv[0]}." if isinstance(error, FileNotFoundError) else ""
        raise CommandError(f"{argv[0]} cannot be run: {error.strerror}.", remedy) from error


class Running:
    """A program that runs in the background while its owner does something else, and looks at it.

    Nothing here waits for it: `poll` says whether it has ended, `fileno` is readable once it has.
    """

    def __init__(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None
    ) -> None:
        """Starts it. Raises CommandError where that cannot be."""
        self._argv = tuple(argv)
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._said = b""
        self._finished: Finished | None = None
        self._process = begin(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            kill_session(self._process)
            raise CommandError(f"{argv[0]} cannot be watched: {error.strerror}.") from error
        os.set_blocking(self._output, False)

    @property
    def _output(self) -> int:
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout.fileno()

    def fileno(self) -> int:
        """A descriptor that is readable once the program has ended; valid until it was told."""
        return self._pidfd

    def poll(self) -> Finished | None:
        """How it ended, with all that it printed as `stderr`; None while it runs.

        Raises CommandError, once it is killed, for one that overruns its time.
        """
        if self._finished is not None:
            return self._finished
        # Its output is read while it runs too, or a full pipe would hold it up.
        status = self._process.poll()
        self._read()
        if status is not None:
            self._finished = Finished(self._argv, status, "", self._said.decode("utf-8", "replace"))
            self._let_go()
        elif time.monotonic() > self._deadline_s:
            self.close()
            raise _overrun(self._argv[0], self._timeout_s)
        return self._finished

    def close(self) -> None:
        """Ends it with everything in its session, if it still runs. A second call does nothing."""
        if self._pidfd >= 0:
            kill_session(self._process)
            self._let_go()

    def _let_go(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdout.close()
        os.close(self._pidfd)
        self._pidfd = -1

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while piece := os.read(self._output, _KEPT_BYTES):
                self._said = (self._said + piece)[-_KEPT_BYTES:]


def _overrun(name: str, timeout_s: float) -> CommandError:
    log.warning("command=%s outcome=timeout seconds=%g", name, timeout_s)
    return CommandError(
        f"{name} took longer than {timeout_s:g} s and was ended.", f"Run `{name}` by hand."
    )


def status_within(process: Program, timeout_s: float) -> int | None:
    """How a program ended, negative for a signal; None where it still runs after that time."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    return process.returncode


def kill_session(process: Program) -> None:
    """Kills a program that was begun here, with everything in its session, and reaps it.

    One that was reaped before gets no signal: its number may be another's by now. One that hangs
    inside the kernel is left there after some seconds, and reported.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    try:
        process.communicate(timeout=_KILLED_S)
    except subprocess.TimeoutExpired:
        log.warning("command=%s pid=%d outcome=unkillable", process.args, process.pid)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
