"""The modules under DKMS: built, installed, loaded by name, and built again for a new kernel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.vm import modules_support as host

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.full

SOURCES = Path(__file__).resolve().parents[2] / "kernel" / "modules"
RELEASE = os.uname().release
NEXT = f"{RELEASE}-next"


def run(*command: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=1500
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def setting(name: str) -> str:
    match = re.search(rf'^{name}="(.*)"$', (SOURCES / "dkms.conf").read_text(), re.MULTILINE)
    assert match
    return match[1]


@pytest.fixture
def package() -> Iterator[str]:
    """The sources where DKMS wants them; no module of ours loaded or installed elsewhere."""
    for name in reversed(host.MODULES):
        subprocess.run(["rmmod", name], capture_output=True, check=False)
    name = f"{setting('PACKAGE_NAME')}/{setting('PACKAGE_VERSION')}"
    target = Path("/usr/src") / name.replace("/", "-")
    shutil.copytree(SOURCES, target)
    yield name
    for module in reversed(host.MODULES):
        subprocess.run(["rmmod", module], capture_output=True, check=False)
    subprocess.run(["dkms", "remove", name, "--all"], capture_output=True, check=False)
    shutil.rmtree(target)
    shutil.rmtree(f"/lib/modules/{NEXT}", ignore_errors=True)


def installed(release: str) -> set[str]:
    directory = Path(f"/lib/modules/{release}/updates/dkms")
    return {path.name.split(".")[0] for path in directory.glob("*.ko*")}


def test_dkms_builds_installs_and_follows_a_new_kernel(package: str) -> None:
    run("dkms", "add", package)
    run("dkms", "build", package)
    run("dkms", "install", package)
    assert "installed" in run("dkms", "status", package)
    assert installed(RELEASE) == set(host.MODULES)
    run("depmod")
    for name in host.MODULES:
        run("modprobe", name)
    assert len(host.processes()) > 20
    assert host.candidates() is not None

    # The hook that a new kernel's package runs. It has this kernel's headers under its own name.
    new = Path(f"/lib/modules/{NEXT}")
    new.mkdir()
    (new / "build").symlink_to(Path(f"/lib/modules/{RELEASE}/build").resolve())
    for index in ("modules.order", "modules.builtin"):
        shutil.copy(f"/lib/modules/{RELEASE}/{index}", new)
    run("/etc/kernel/postinst.d/dkms", NEXT)
    assert installed(NEXT) == set(host.MODULES)
    assert installed(RELEASE) == set(host.MODULES)
