"""Fixtures of the faults: an engine that may be killed, containers that may not be lost, a place.

In a guest the agent runs on the kernel modules. With SO1_FAULTS_NATIVE=1 and root, what needs
neither modules nor the clock runs on this machine too, in seconds, on psutil and a private engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import containers
from tests.docker.private_engine import PrivateEngine, private_engine
from tests.vm.conftest import lacking
from tests.vm.faults import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session", autouse=True)
def guest() -> None:
    if not containers.in_lab() and not os.environ.get("SO1_FAULTS_NATIVE"):
        lacking("a guest of the lab (or SO1_FAULTS_NATIVE=1 and root)")


@pytest.fixture
def only_guest() -> None:
    """For faults that would hurt a machine that is used for anything else."""
    if not containers.in_lab():
        lacking("a guest of the lab")


# A package's scope: what comes after the faults must find the host's own engine again.
@pytest.fixture(scope="package")
def engine(guest: None) -> Iterator[PrivateEngine]:
    """An engine of our own; the docker command line talks to it."""
    before = os.environ.get("DOCKER_HOST")
    with private_engine() as made:
        os.environ["DOCKER_HOST"] = made.host
        try:
            yield made
        finally:
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before


@pytest.fixture
def mine(engine: PrivateEngine) -> Iterator[containers.Containers]:
    """Containers of this test, removed at its end."""
    made = containers.Containers()
    yield made
    made.close()


@pytest.fixture(scope="package")
def standing(engine: PrivateEngine) -> Iterator[list[support.Town]]:
    """The town of the test before, which the next one moves into if it is whole."""
    towns: list[support.Town] = []
    yield towns
    for one in towns:
        one.mine.close()


@pytest.fixture
def town(standing: list[support.Town]) -> support.Town:
    """Containers that must be there, and run, when the test ends."""
    if standing and not standing[-1].is_whole():
        standing.pop().mine.close()
    if not standing:
        standing.append(support.build_town(containers.Containers()))
    return standing[-1]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that only root can write; pytest's own is below /tmp."""
    parent = Path("/var/lib/so1-test")
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="fault-", dir=parent))
    yield directory
    subprocess.run(["chattr", "-R", "-i", str(directory)], capture_output=True, check=False)
    shutil.rmtree(directory)


@pytest.fixture
def database(place: Path) -> Path:
    return place / "db" / "metrics.db"


@pytest.fixture
def config(place: Path, engine: PrivateEngine) -> Path:
    return support.settings(place, engine.host)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    return support.recorder(request)
