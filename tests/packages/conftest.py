"""The packages of this checkout, built once a session and suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docker.private_engine import PrivateEngine, private_engine
from tests.packages.base_image import base_tar
from tests.packages.chroot import Chroot, chroot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = "so1-agent:test"
GUESTS = {"debian12": "bookworm", "debian13": "trixie"}
"""Hosts to install on, and the suite of each."""
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Packages:
    """Both packages of one suite."""

    agent: Path
    modules: Path


def build(output: Path, *options: str, checkout: Path = PROJECT, **environment: str) -> Packages:
    done = subprocess.run(
        ["bash", checkout / "packaging/build.sh", "-o", output, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    agent, modules = (Path(line) for line in done.stdout.splitlines())
    return Packages(agent, modules)


@pytest.fixture(scope="session")
def packages_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Packages]:
    """The packages for a suite."""
    for program in ("dpkg-deb", "debootstrap", "git"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("root is needed to install packages in a tree")
    made: dict[str, Packages] = {}

    def obtain(suite: str) -> Packages:
        if suite not in made:
            made[suite] = build(tmp_path_factory.mktemp(suite), "-s", suite)
        return made[suite]

    return obtain


@pytest.fixture(params=GUESTS, scope="module")
def guest(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def packages(packages_of: Callable[[str], Packages], guest: str) -> Packages:
    return packages_of(GUESTS[guest])


@pytest.fixture
def host(guest: str) -> Iterator[Chroot]:
    place = Path(tempfile.mkdtemp(prefix="so1-chroot.", dir="/var/tmp"))
    try:
        with chroot_of(guest, place) as one:
            yield one
    finally:
        shutil.rmtree(place)


def node_directories(engine: PrivateEngine) -> Path:
    """A node's /var/lib/so1 and /etc/so1, as `history` and `settings` in a fresh directory."""
    made = Path(tempfile.mkdtemp(prefix="node-", dir=engine.directory))
    for name in ("history", "settings"):
        (made / name).mkdir(mode=0o750)
    return made


@pytest.fixture(scope="session")
def engine(packages_of: Callable[[str], Packages]) -> Iterator[PrivateEngine]:
    """An engine of its own with the agent's image, built as docs/install.md has it."""
    package = packages_of("bookworm").agent
    with private_engine() as one, tempfile.TemporaryDirectory() as context:
        one.docker("import", str(base_tar("bookworm")), "so1-base:bookworm", timeout_s=600)
        shutil.copy(package, context)
        dockerfile = PROJECT / "packaging/container/Dockerfile"
        one.docker(
            *("build", "--network=none", "--build-arg", "BASE=so1-base:bookworm"),
            *("-t", IMAGE, "-f", str(dockerfile), context),
            timeout_s=1200,
        )
        yield one
