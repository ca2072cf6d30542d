"""The one door to other programs.

Every program runs without a shell, with a clean environment, a fixed language, no standard input,
a time limit, and in a session of its own, so that a Ctrl-C in the terminal reaches the agent alone.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent.errors import AgentError

log = logging.getLogger(__name__)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
    return {"PATH": _PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": "/root", **(extra or {})}


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
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            cwd="/",
        )
    except OSError as error:
        raise CommandError(
            f"{name} cannot be run: {error.strerror}.", f"Install {name}."
        ) from error
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException as error:
        kill_session(process)
        if isinstance(error, subprocess.TimeoutExpired):
            log.warning("command=%s outcome=timeout seconds=%g", name, timeout_s)
            raise CommandError(
                f"{name} took longer than {timeout_s:g} s and was ended.", f"Run `{name}` by hand."
            ) from error
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


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kills a program that `run` or `start` began, with everything in its session, and reaps it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
