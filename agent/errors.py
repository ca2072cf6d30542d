"""The one family of errors that people see.

Raised where the cause is known and printed in one place, `agent.__main__`: one sentence that names
the cause, one that says the remedy, and the exit status.
"""

from __future__ import annotations

import errno

_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class AgentError(Exception):
    """A failure to tell a person: `message` names the cause, `hint` the remedy."""

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


def remedy_for(error: OSError, usual: str) -> str:
    """The usual remedy against `error`, unless this process is short of descriptors or memory:
    then what it wanted to use is as it should be, and to remove it would help nobody."""
    return "" if error.errno in _SHORT else usual


class ConfigError(AgentError):
    """The configuration or the command line cannot be used as it is."""

    exit_status = 2


class PrivilegeError(AgentError):
    """The caller is missing a privilege."""

    exit_status = 3


class LockedError(AgentError):
    """Another agent runs on this host."""

    exit_status = 4


class ModulesError(AgentError):
    """The kernel modules cannot be built, loaded, read or removed."""

    exit_status = 5


class SourceError(AgentError):
    """A source gave something that cannot be used, or nothing."""

    exit_status = 6


class EngineUnavailableError(AgentError):
    """Docker does not answer."""

    exit_status = 7


class StoreError(AgentError):
    """The database cannot be opened or written."""

    exit_status = 8
