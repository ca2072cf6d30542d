"""The lab's one door to other programs: clean environment, stdin closed, always a time-out.

A failure is a LabError that names the command and shows the end of what it said, so that nobody
has to run it again to learn why.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# What the machine says about its registries, proxies and certificates is passed on at run time
# and written nowhere.
_PASSED_ON = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_TAIL_LINES = 25


def say(text: str) -> None:
    """One line of progress for people, on stderr: stdout belongs to the guest's command."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def network_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which this machine reaches its registries."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_PASSED_ON) or name.lower() in _PROXIES
    }


def clean_environment() -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
    }


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    name: str | None = None,
) -> str:
    """Run `command` to its end; return what it wrote (stdout and stderr together).

    `log` receives the output as well; `name` is what errors call it. LabError when it cannot be
    started, fails, or outlasts `timeout_s`; the child is reaped in any case.
    """
    words = [os.fspath(word) for word in command]
    shown = name or shlex.join(words)
    environment = clean_environment() | dict(env or {})
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed", f"install it ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"{shown} was still running after {timeout_s:.0f} s",
            tail((error.output or b"").decode(errors="replace")),
        ) from error
    output = done.stdout.decode(errors="replace")
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(words)}\n{output}")
    if done.returncode != 0:
        raise LabError(f"{shown} ended with {done.returncode}", tail(output))
    return output


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


def need(program: str, package: str) -> str:
    """The path of `program`; LabError names the Debian package that has it."""
    found = shutil.which(program, path=clean_environment()["PATH"])
    if found is None:
        raise LabError(f"{program} is missing", f"apt-get install {package}")
    return found


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say how long the block took."""
    begun = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - begun:.0f} s")
