"""What test modules of the docker layer share: an engine of their own, and a directory in it."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docker.private_engine import PrivateEngine, private_engine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def one_that_kills(request: pytest.FixtureRequest) -> Iterator[None]:
    """Files run side by side; of the tests that are marked `oom_kill` one at a time."""
    if not request.node.get_closest_marker("oom_kill"):
        yield
        return
    with Path("/run/so1-test-oom.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def module_engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        yield engine


@pytest.fixture
def engine(module_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The module's engine; without containers, and answering, for the next test."""
    yield module_engine
    module_engine.resume_daemon()
    module_engine.clear()


@pytest.fixture
def place(engine: PrivateEngine) -> Iterator[Path]:
    """An agent's own directory, the same on the host and in a container that mounts it."""
    made = Path(tempfile.mkdtemp(prefix="agent-", dir=engine.directory))
    made.chmod(0o750)
    yield made
    engine.clear()
    subprocess.run(["rm", "-rf", str(made)], check=True)
