"""The adversarial table on a real kernel: the modules and the fallback source against a shell.

Run it on every mode of cgroups: `--cgroup v1`, `--cgroup hybrid`, and with
`--docker-opt native.cgroupdriver=cgroupfs` on v2.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.sources import modules as proc_modules
from agent.sources import psutil_source
from agent.sources.cgroup import reader as cgroups
from tests import containers
from tests.attribution_processes import beside, child_of
from tests.attribution_rows import SLEEP
from tests.attribution_support import Host, directories_of, directory_of, host_cgroup, pids_below
from tests.attribution_table import AttributionTable
from tests.containers import docker, first_pid, wait_until
from tests.vm.conftest import Images, Modules

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

IMAGES = Path("/opt/so1-lab/images")


@pytest.fixture(scope="module")
def image(images: Images) -> str:
    return images.alpine


@pytest.fixture(scope="module")
def boxes(images: Images) -> Iterator[containers.Containers]:
    """All containers of the table stay up to its end."""
    mine = containers.Containers()
    yield mine
    mine.close()


@pytest.fixture(scope="module")
def host(modules: Modules, images: Images) -> Iterator[Host]:
    clock, layout = SystemClock(), cgroups.detect()
    made = Host(
        {
            "modules": lambda: proc_modules.read(modules.sysinfo, modules.continfo, clock),
            "psutil": lambda: psutil_source.read(clock, layout),
        },
        layout=layout,
    )
    print(f"\n{layout}, driver {docker('info', '--format', '{{.CgroupDriver}}')}")
    yield made
    print(f"\n{made.looks} looks, {made.rows} rows, Docker asked again {made.asked_again} times")
    made.close()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    with host_cgroup() as directory:
        yield directory


class TestAttribution(AttributionTable):
    """The rows that any host can show, and those that need systemd or podman."""

    def test_host_services_with_namespaces_of_their_own(self, host: Host) -> None:
        with _unit("-p", "ProtectHostname=yes") as pid:
            assert Path(f"/proc/{pid}/ns/uts").readlink() != Path("/proc/1/ns/uts").readlink()
            host.check(absent=[pid])
        with beside("unshare", "--pid", "--fork", "--mount-proc", *SLEEP) as parent:
            host.check(absent=[parent, child_of(parent)])

    def test_a_daemon_reload_moves_nothing(
        self, host: Host, boxes: containers.Containers, image: str, elsewhere: Path
    ) -> None:
        self.run(boxes, image)
        reader = host.readers["modules"]
        before = host.told(reader)
        subprocess.run(["systemctl", "daemon-reload"], check=True, timeout=120)
        assert host.told(reader) == before
        host.check()

    def test_podman_beside_docker(self, host: Host, image: str) -> None:
        with _podman() as box:
            (directory,) = (
                path for path in directories_of(box) if path.name == f"libpod-{box}.scope"
            )
            pids = pids_below(directory)
            assert pids
            # Podman moves the container's processes one deeper (libpod-….scope/container).
            host.check(others={box: directory}, basis=dict.fromkeys(pids, "cgroup"))
            for reader in host.readers.values():
                rows = [row for row in host.attribution(reader).rows if row.container_id == box]
                assert {row.container_name for row in rows} == {f"libpod-{box[:12]}"}
                monitors = _pids_of_command("conmon")
                assert monitors
                assert not monitors & {row.process.pid for row in rows}

    def test_a_vanished_nested_cgroup_keeps_its_zombies(
        self, host: Host, boxes: containers.Containers, image: str
    ) -> None:
        """Zombies do not hold a cgroup: it can be removed under them, and they keep its id."""
        script = "/bin/sleep 9998 & exec /bin/sleep 9999"
        box = self.run(boxes, image, command=("sh", "-c", script))
        nested = directory_of(box) / "nested"
        nested.mkdir()
        child = child_of(first_pid(box))
        (nested / "cgroup.procs").write_text(str(child), encoding="ascii")
        host.check(basis={child: "cgroup"})
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: "Z" in _state(child), "the child is a zombie")
        nested.rmdir()
        told = host.told(host.readers["modules"])
        assert (told[child].container, told[child].basis) == (box, "cgroup")


@contextmanager
def _unit(*properties: str) -> Iterator[int]:
    """A transient service; its main process."""
    name = "so1-test-unit"
    subprocess.run(
        ["systemd-run", f"--unit={name}", *properties, *SLEEP], check=True, capture_output=True
    )
    try:
        shown = subprocess.run(
            ["systemctl", "show", "-p", "MainPID", "--value", name],
            check=True,
            capture_output=True,
            text=True,
        )
        pid = int(shown.stdout)
        wait_until(lambda: _comm(pid) == "sleep", "the unit runs")
        yield pid
    finally:
        subprocess.run(["systemctl", "stop", name], check=False, capture_output=True)


@contextmanager
def _podman() -> Iterator[str]:
    """A container of podman's; its full id."""
    name = "so1-test-podman:local"

    def podman(*words: str) -> str:
        done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"podman {words[0]}: {done.stderr[-400:]}"
        return done.stdout.strip()

    podman("import", "-c", "ENV PATH=/bin:/usr/bin", str(IMAGES / "alpine.tar"), name)
    box = podman("run", "-d", "--network=none", "--log-driver=none", name, *SLEEP)
    try:
        assert json.loads(podman("inspect", box))[0]["State"]["Status"] == "running"
        yield box
    finally:
        podman("rm", "-f", "-t", "0", box)


def _pids_of_command(name: str) -> set[int]:
    return {int(pid.name) for pid in Path("/proc").glob("[0-9]*") if _comm(int(pid.name)) == name}


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""
