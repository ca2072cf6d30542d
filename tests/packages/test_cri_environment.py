"""A host that has the agent from its package names Kubernetes' containers, without a network.

What listens is a containerd of this machine, its pods made by CRI's own calls. What processes they
have is asked of `ctr` and the kernel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers import wait_until
from tests.docker.cgroups_left import no_cgroup_left
from tests.docker.private_containerd import PrivateContainerd, private_containerd
from tests.packages.chroot import Chroot, chroot_of
from tests.packages.conftest import GUESTS
from tests.packages.test_build import listing
from tests.packages.test_container import named, pids, start, wait_for_ticks
from tests.packages.test_life_cycle import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.docker.private_engine import PrivateEngine
    from tests.packages.conftest import Packages

REMEDY = "sudo apt-get install --reinstall so1-agent"
NAMES = (
    "from agent.clock import SystemClock; from agent.engine_api.cri import CriHelper; "
    "from agent.sources.engine.cri import CriEngine; from agent.config import load_config; "
    "import pathlib, sys; "
    "(one,) = load_config(pathlib.Path('/etc/so1/agent.toml')).engine; "
    "helper = CriHelper(one.socket, one.environment, SystemClock()); "
    "engine = CriEngine(helper, SystemClock(), 'k8s'); "
    "print(*sorted(c.name for c in engine.list().containers)); engine.close()"
)


@pytest.fixture(scope="module")
def containerd() -> Iterator[PrivateContainerd]:
    with no_cgroup_left("k8s.io"), private_containerd() as made:
        yield made


@pytest.fixture
def till(containerd: PrivateContainerd) -> Iterator[str]:
    """A container of a pod; its full id."""
    yield containerd.run(
        containerd.pod("shop"), "till", "sh", "-c", "sleep 1000 & sleep 1001; true"
    )
    containerd.clear()


def settings(containerd: PrivateContainerd) -> str:
    """As docs/engines.md has it, with this socket."""
    return f'[[engine]]\nname = "k8s"\nkind = "cri"\nsocket = "{containerd.socket}"\n'


@contextmanager
def host_with(guest: str, package: Path, containerd: PrivateContainerd) -> Iterator[Chroot]:
    """A guest's tree with the package and the socket of a containerd."""
    place = Path(tempfile.mkdtemp(prefix="so1-chroot.", dir="/var/tmp"))
    try:
        with chroot_of(guest, place) as host:
            install(host, package)
            host.path("/etc/so1/agent.toml").write_text(settings(containerd))
            socket = host.path(str(containerd.directory))
            socket.mkdir(parents=True)
            subprocess.run(["mount", "--bind", containerd.directory, socket], check=True)
            try:
                yield host
            finally:
                subprocess.run(["umount", socket], check=True)
    finally:
        shutil.rmtree(place)


def doctors_row(host: Chroot) -> dict[str, Any]:
    said = host.run("agent", "doctor", "--json", check=False).stdout
    (row,) = (one for one in json.loads(said)["checks"] if one["name"] == "engine k8s")
    return dict(row)


@pytest.mark.parametrize("guest", GUESTS)
def test_a_host_asks_its_runtime_by_what_is_in_the_package(
    guest: str,
    packages_of: Callable[[str], Packages],
    containerd: PrivateContainerd,
    till: str,
) -> None:
    assert till
    with host_with(guest, packages_of(GUESTS[guest]).agent, containerd) as host:
        row = doctors_row(host)
        assert (row["state"], row["remedy"]) == ("ok", "")
        assert row["finding"].startswith("containerd ")
        assert row["finding"].endswith(", CRI v1, observed only")
        said = host.run("/usr/lib/so1-agent/venv/bin/python", "-I", "-c", NAMES).stdout
        assert said.split() == ["default/shop/(sandbox)", "default/shop/till"]

        host.run("rm", "-r", "/usr/lib/so1-agent/cri")
        row = doctors_row(host)
        assert row["state"] == "degraded"
        assert "/usr/lib/so1-agent/cri/bin/python cannot be run" in row["finding"]
        assert row["remedy"].endswith(REMEDY)
        script = "/usr/lib/so1-agent/src/bash/cri_environment.sh"
        refused = host.run("bash", script, check=False)
        assert refused.returncode == 1
        (sentence,) = refused.stderr.splitlines()
        assert sentence.endswith(REMEDY)
        install(host, packages_of(GUESTS[guest]).agent)
        assert doctors_row(host)["state"] == "ok"


def test_its_files_are_dpkgs_and_go_with_it(
    packages_of: Callable[[str], Packages], containerd: PrivateContainerd
) -> None:
    package = packages_of("bookworm").agent
    inside = [one for one in listing(package) if one.startswith("usr/lib/so1-agent/cri/")]
    assert any("/grpc/_cython/cygrpc" in one for one in inside)
    assert not any("/pip/" in one or "/setuptools/" in one for one in inside)
    with host_with("debian12", package, containerd) as host:
        host.run("dpkg", "--remove", "so1-agent")
        assert not host.path("/usr/lib/so1-agent").exists()


def test_the_image_names_every_process_of_a_pod(
    engine: PrivateEngine, containerd: PrivateContainerd, till: str, tmp_path: Path
) -> None:
    place = Path(tempfile.mkdtemp(prefix="history-", dir=engine.directory))
    place.chmod(0o750)
    first = containerd.first_pids()[till]

    def children() -> list[str]:
        return Path(f"/proc/{first}/task/{first}/children").read_text().split()

    wait_until(lambda: len(children()) == 2, "the shell's children")
    expected = dict.fromkeys([first, *map(int, children())], "default/shop/till")
    try:
        run = f"{containerd.directory}:{containerd.directory}:ro"
        start(engine, place, "-v", run, more_settings=settings(containerd))
        wait_for_ticks(engine, place, 3)
        found = named(place)
        assert {pid: name for pid, name in found.items() if name.endswith("/till")} == expected
        assert sum(name == "default/shop/(sandbox)" for name in found.values()) == 1
        assert {found[pid] for pid in pids(engine, "so1_agent") & found.keys()} <= {"so1_agent"}
        shown = engine.docker("exec", "so1_agent", "/usr/bin/agent", "top", "--once")
        assert "k8s: default/shop/till" in shown
    finally:
        engine.clear()
        shutil.rmtree(place)
