"""Docker 29's engine, which Debian has not: built from its Go module, once, kept beside the guests.

`python3 -m tests.docker.newest_engine` builds it if need be and prints its path. With that path in
SO1_DOCKERD every engine that tests start for themselves is this one; the shared one is what
DOCKER_HOST names. It needs Go, libnftables-dev, and Debian's containerd and runc to run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab import cache

MODULE = "github.com/moby/moby/v2/cmd/dockerd"
VERSION = "v2.0.0-beta.5"
"""Of the module; the engine is that of Docker 29."""
_TAGS = "exclude_graphdriver_btrfs"
_ENVIRONMENT = "SO1_DOCKERD"
NAME = "newest"
"""Of this engine, where tests choose among several."""


def program() -> str:
    """The engine that tests start for themselves: SO1_DOCKERD, or the installed one."""
    return os.environ.get(_ENVIRONMENT) or "dockerd"


def build() -> Path:
    """The newest engine. Raises SystemExit in one sentence where it cannot be built."""
    place = cache.directory() / f"dockerd-{VERSION}"
    found = place / "dockerd"
    if found.exists():
        return found
    if shutil.which("go") is None:
        raise SystemExit("Docker's newest engine cannot be built: go is not installed.")
    with tempfile.TemporaryDirectory(dir=cache.directory(), prefix="dockerd-") as name:
        directory = Path(name)
        environment = {
            **os.environ,
            "GOPATH": str(directory / "go"),
            "GOBIN": str(directory / "bin"),
            "GOCACHE": str(directory / "cache"),
            # Or the module cache could not be removed again.
            "GOFLAGS": "-modcacherw",
        }
        words = ["go", "install", "-tags", _TAGS, f"{MODULE}@{VERSION}"]
        done = subprocess.run(words, env=environment, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            raise SystemExit(
                f"Docker's newest engine cannot be built: {' '.join(words)} failed. "
                "Are libnftables-dev and gcc installed?"
            )
        place.mkdir(exist_ok=True)
        os.replace(directory / "bin/dockerd", found)
    return found


def obtain() -> Path:
    """The newest engine for a test, which is skipped where it cannot be built."""
    try:
        return build()
    except SystemExit as error:
        pytest.skip(str(error))


if __name__ == "__main__":
    print(build())
