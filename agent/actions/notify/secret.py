"""The key that a webhook's messages are signed with: a file that nobody but root may read.

No error here has anything of the file's content in it.
"""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from agent.errors import AgentError

_LEAST, _MOST = 16, 4096


class Secret:
    """A key that shows itself nowhere: not in a log, a traceback or a table."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"


def read_key(path: Path) -> Secret:
    """The key at `path`, without the newline at its end. Raises AgentError where others than root
    could read or change it, and where it is too short to sign with."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise AgentError(
            f"The webhook's key {path} cannot be read: {error.strerror}.",
            f"Make one: (umask 077; openssl rand -hex 32 | sudo tee {path} >/dev/null).",
        ) from error
    try:
        about = os.fstat(descriptor)
        content = os.read(descriptor, _MOST + 1) if stat.S_ISREG(about.st_mode) else b""
    except OSError as error:
        raise AgentError(f"{path} cannot be read: {error.strerror}.", "See its disk.") from error
    finally:
        os.close(descriptor)
    if about.st_uid not in (0, os.geteuid()) or stat.S_IMODE(about.st_mode) not in (0o600, 0o400):
        raise AgentError(
            f"The webhook's key {path} is not root's alone.",
            f"sudo chown root: {path} && sudo chmod 0600 {path}; then make a new key.",
        )
    # An editor's mark of the byte order is no part of it, and nobody sees it.
    key = content.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
    if not _LEAST <= len(key) <= _MOST:
        raise AgentError(
            f"The webhook's key {path} is not {_LEAST} to {_MOST} bytes long.",
            f"Make one: openssl rand -hex 32 | sudo tee {path} >/dev/null.",
        )
    return Secret(key)
