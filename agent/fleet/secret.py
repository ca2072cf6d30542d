"""This host's secret: one line in a file that nobody but root may read."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from agent.fleet.errors import FleetError

_SECRET = re.compile(rb"[A-Za-z0-9_-]{20,128}\n?")


def read_secret(path: Path) -> str:
    """The secret at `path`. Raises FleetError where it is missing, or others could read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FleetError(
            f"This host's secret {path} is not there.",
            "Enroll the host at the centre (agent fleet enroll) and put what it prints there.",
        ) from None
    except OSError as error:
        raise FleetError(
            f"This host's secret {path} cannot be read: {error.strerror}.",
            "It must be a plain file of root's.",
        ) from error
    try:
        about = os.fstat(descriptor)
        content = os.read(descriptor, 256) if stat.S_ISREG(about.st_mode) else b""
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error.strerror}.", "See its disk.") from error
    finally:
        os.close(descriptor)
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o077:
        raise FleetError(
            f"Others than root may read or change {path}.",
            f"sudo chown root: {path} && sudo chmod 0600 {path}; then agent fleet rotate.",
        )
    if not _SECRET.fullmatch(content):
        raise FleetError(
            f"{path} does not hold a secret as `agent fleet enroll` prints it.",
            "Put it there again, or make a new one: agent fleet rotate.",
        )
    return content.strip().decode("ascii")
