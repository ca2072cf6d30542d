"""Fixtures of the tests that need a real kernel: modules, an engine, images, the kernel's log.

They run in a guest of the lab (`python3 -m tests.lab pytest GUEST`). There, what is missing is an
error and never a skip; elsewhere the whole layer is skipped and says where it runs.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests import containers
from tests.lab.kernel_log import complaints
from tests.vm import modules_support

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
_IMAGES = Path("/opt/so1-lab/images")
_LINE_BYTES = 8192


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "allow_kernel_log(regex): kernel log lines that this test provokes on purpose"
    )


def lacking(what: str) -> NoReturn:
    """Fail in the lab, where everything has to be there; skip elsewhere, naming what is missing."""
    if containers.in_lab():
        pytest.fail(f"the lab's guest is missing {what}", pytrace=False)
    pytest.skip(f"needs {what}; run it by python3 -m tests.lab pytest GUEST")


@dataclass(frozen=True, slots=True)
class Modules:
    """The loaded modules' entries."""

    sysinfo: Path = Path("/proc/sysinfo_so1_202300539")
    continfo: Path = Path("/proc/continfo_so1_202300539")


@dataclass(frozen=True, slots=True)
class Images:
    """The two local images; their names contain what the policy looks for."""

    alpine: str = containers.ALPINE
    stress: str = containers.STRESS


@pytest.fixture(scope="session", autouse=True)
def guest() -> None:
    """Nothing in this layer runs on a developer's own kernel."""
    if not containers.in_lab():
        lacking("a guest of the lab")


def load_modules(*options: str) -> subprocess.CompletedProcess[str]:
    """Run bash/load_modules.sh; the caller looks at its status."""
    return subprocess.run(
        ["bash", str(PROJECT / "bash/load_modules.sh"), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def unload_modules() -> list[str]:
    """Unload those of the two that are loaded; their names."""
    found = [name for name in ("continfo", "sysinfo") if Path(f"/sys/module/{name}").exists()]
    for name in found:
        modules_support.rmmod(name)
    return found


_loaded_for_all = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Agents unload both modules as they end: whoever counts on `modules` gets them again."""
    if "modules" not in getattr(item, "fixturenames", ()):
        return
    if not item.config.stash.get(_loaded_for_all, False):
        return  # the fixture is about to
    paths = Modules()
    if not (paths.sysinfo.exists() and paths.continfo.exists()):
        done = load_modules()
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def modules(guest: None, pytestconfig: pytest.Config) -> Iterator[Modules]:
    """Both modules, loaded as the agent loads them and unloaded at the end."""
    done = load_modules()
    if done.returncode != 0:
        lacking(f"loadable modules: load_modules.sh ended with {done.returncode}: {done.stderr}")
    loaded = Modules()
    for path in (loaded.sysinfo, loaded.continfo):
        if not path.exists():
            lacking(f"{path} after load_modules.sh")
    pytestconfig.stash[_loaded_for_all] = True
    yield loaded
    pytestconfig.stash[_loaded_for_all] = False
    unload_modules()


@pytest.fixture(scope="session")
def docker_engine(guest: None) -> None:
    """A native engine that answers."""
    try:
        containers.wait_until(containers.engine_answers, "docker answers", timeout_s=120, pause_s=1)
    except AssertionError:
        lacking("a Docker engine")


@pytest.fixture(scope="session")
def images(docker_engine: None) -> Images:
    """The stand-ins for alpine and stress, from the tar files in the guest's image."""
    found = Images()
    for name, archive in ((found.alpine, "alpine.tar"), (found.stress, "stress.tar")):
        if not (_IMAGES / archive).exists():
            lacking(f"{_IMAGES / archive}")
        containers.import_image(name, _IMAGES / archive)
    return found


@pytest.fixture
def started(images: Images) -> Iterator[containers.Containers]:
    """Containers of this test, removed at its end."""
    mine = containers.Containers()
    yield mine
    mine.close()


@pytest.fixture(autouse=True)
def kernel_log(request: pytest.FixtureRequest, guest: None) -> Iterator[None]:
    """Fails the test during which the kernel warns, stalls or worse."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
        yield
        allowed = [
            pattern
            for marker in request.node.iter_markers("allow_kernel_log")
            for pattern in marker.args
        ]
        if found := complaints(_records(descriptor), allowed):
            pytest.fail("the kernel complained:\n" + "\n".join(found), pytrace=False)
    finally:
        os.close(descriptor)


def _records(descriptor: int) -> Iterator[str]:
    """The messages of the kernel's log since the descriptor's position, as they stand."""
    while True:
        try:
            record = os.read(descriptor, _LINE_BYTES)
        except BlockingIOError:
            return
        except BrokenPipeError:  # records were overwritten before we read them: go on
            continue
        yield record.decode(errors="replace").partition(";")[2].split("\n", 1)[0]
