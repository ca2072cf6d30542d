"""The interpreter, its packages and who can write them; changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

from agent.actions import cron, kernel_modules
from agent.doctor.facts import (
    PythonFacts,
)
from agent.errors import AgentError

PACKAGES = {
    "docker": (7, 1),
    "msgspec": (0, 19),
    "peewee": (4, 4),
    "prometheus_client": (0, 20),
    "psutil": (5, 9),
    "rich": (13, 7),
    "typer": (0, 27),
}


def python_facts() -> PythonFacts:
    untrusted = ""
    try:
        for place in (Path(__file__).resolve(), kernel_modules.script(), Path(sys.prefix)):
            cron.check_trusted(place)
    except AgentError as error:
        untrusted = error.message
    return PythonFacts(
        version=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        interpreter=sys.executable,
        distribution=Path(sys.base_prefix) == Path("/usr"),
        missing=tuple(name for name, oldest in PACKAGES.items() if not has(name, oldest)),
        untrusted=untrusted,
    )


def has(package: str, oldest: tuple[int, int]) -> bool:
    if importlib.util.find_spec(package) is None:
        return False
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return True
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return numbers >= oldest
