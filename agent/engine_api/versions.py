"""Which version of Docker's API an engine and this agent both speak. Pure.

An engine names its newest version (`ApiVersion`) and its oldest (`MinAPIVersion`) in `/version`,
which it answers to everybody. Docker 29 raised the oldest to 1.44; podman has names of Docker's.
"""

from __future__ import annotations

import re
from typing import Any

import docker.constants

from agent.engine_api.address import product
from agent.errors import EngineUnavailableError

OLDEST = docker.constants.MINIMUM_DOCKER_API_VERSION
NEWEST = docker.constants.DEFAULT_DOCKER_API_VERSION
"""What the installed client library speaks, both included."""

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII)


def negotiated(answer: Any, docker_host: str) -> str:
    """The newest version that both sides know, by the engine's answer to `/version`.

    Raises EngineUnavailableError where there is none, in one sentence with both sides' numbers, and
    ValueError where the answer is none of Docker's.
    """
    about = answer if isinstance(answer, dict) else {}
    newest = _number(about.get("ApiVersion"))
    if newest is None:
        raise ValueError("no version in the answer to /version")
    # Engines before 1.25 have no such field, and an odd one is no reason to refuse the engine.
    oldest = _number(about.get("MinAPIVersion")) or (0, 0)
    ours = f"{OLDEST} to {NEWEST}"
    if newest < _known(OLDEST):
        raise EngineUnavailableError(
            f"{product(docker_host)} at {docker_host} is too old: it speaks API "
            f"{_text(newest)} at most, and this agent {ours}.",
            f"Update {product(docker_host)}.",
        )
    if oldest > _known(NEWEST):
        raise EngineUnavailableError(
            f"{product(docker_host)} at {docker_host} is too new: it speaks API "
            f"{_text(oldest)} at least, and this agent {ours}.",
            "Update the agent; until then DOCKER_MIN_API_VERSION="
            f"{NEWEST} in the engine's environment may let it in.",
        )
    return _text(min(newest, _known(NEWEST)))


def _number(value: Any) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(value) if isinstance(value, str) else None
    return (int(match[1]), int(match[2])) if match else None


def _known(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
