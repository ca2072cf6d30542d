"""The Python environment of `agent fleet …`, which has the driver, and how a command gets in."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from agent.config import Config
from agent.errors import AgentError, PrivilegeError
from agent.place import SCRIPTS

_MOVED = "SO1_FLEET_ENVIRONMENT"


def require_root(command: str) -> None:
    # Not agent.sources.host_metrics's: that imports psutil, which the fleet's environment has not.
    if os.geteuid() != 0:
        raise PrivilegeError(f"`{command}` needs root.", f"Run `sudo {command}`.")


def enter_environment(settings: Config) -> None:
    """Goes on in the environment that has the driver, where this one has not.

    Raises AgentError where there is none.
    """
    if importlib.util.find_spec("psycopg") is not None:
        return
    environment = Path(settings.fleet.environment)
    python = environment / "bin/python"
    if os.environ.get(_MOVED) or not python.exists():
        raise AgentError(
            f"The fleet's Python environment {environment} is not there, or not whole.",
            f"Make it: sudo {SCRIPTS}/fleet_environment.sh",
        )
    os.environ[_MOVED] = "1"
    sys.stdout.flush()
    os.execv(python, [str(python), "-I", "-m", "agent", *sys.argv[1:]])  # noqa: S606
