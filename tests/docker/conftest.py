"""What test modules of the docker layer share: an engine of their own, and a directory in it."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docker.private_engine import PrivateEngine, private_engine

if TYPE_CHECKING:
    from collections.abc import Iterator


# They count the kernel's OOM kills, which are the whole host's.
_ALONE = frozenset({"test_before_oom", "test_lives", "test_oom"})


@contextmanager
def oom_lock() -> Iterator[None]:
    with Path("/run/so1-test-oom.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module", autouse=True)
def alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Files run side by side; of those named above one at a time."""
    with oom_lock() if request.path.stem in _ALONE else nullcontext():
        yield


@pytest.fixture(autouse=True)
def killing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that are marked so run beside none of those files."""
    with oom_lock() if request.node.get_closest_marker("oom_kill") else nullcontext():
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
