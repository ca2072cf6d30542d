"""The package on a system that systemd has booted: services, not only files.

systemd-nspawn boots a Debian tree in namespaces in seconds; kernel modules take a guest
(tests/lab/test_packages.py). Containers are an engine's of its own, outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packages.chroot import Chroot, chroot_of
from tests.packages.conftest import PROJECT, Packages
from tests.packages.test_life_cycle import another_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.docker.private_engine import PrivateEngine

_MASKED = ("docker.service", "docker.socket", "containerd.service", "podman.service")
_UNIT = """\
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/root/booted.sh >/root/results/facts 2>&1; echo exit=$? >>/root/results/facts'
ExecStartPost=/usr/bin/systemctl --no-block poweroff
TimeoutStartSec=infinity
"""


def prepare(host: Chroot, package: Path, work: Path) -> None:
    """The clone's installation, both versions of the package, and a unit that tries them."""
    units = host.path("/etc/systemd/system")
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (units / "tried.service").write_text(_UNIT)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "tried.service").symlink_to("../tried.service")
    for name in ("results", "packages/1", "packages/2"):
        host.path(f"/root/{name}").mkdir(parents=True)
    shutil.copy(package, host.path("/root/packages/1"))
    shutil.copy(another_version(package, "9.0", work), host.path("/root/packages/2"))
    shutil.copy(PROJECT / "tests/packages/booted.sh", host.path("/root"))
    host.path("/root/booted.sh").chmod(0o755)
    shutil.copy(PROJECT / "tests/lab/guest/packages_common.sh", host.path("/root"))
    # The Python environment as start.sh would have made it.
    subprocess.run(["dpkg-deb", "-x", package, work / "tree"], check=True)
    host.path("/opt/so1").mkdir(parents=True)
    shutil.copytree(work / "tree/usr/lib/so1-agent/venv", host.path("/opt/so1/venv"), symlinks=True)
    script = 'source "$1/bash/lib/install.sh"; install_tree "$1" /opt/so1 /usr/local/bin/agent "$2"'
    subprocess.run(["bash", "-euc", script, "bash", PROJECT, host.merged], check=True)


@pytest.fixture(scope="module", params=["debian12", "debian13"])
def facts(
    request: pytest.FixtureRequest,
    engine: PrivateEngine,
    packages_of: Callable[[str], Packages],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("systemd-nspawn is not installed (systemd-container)")
    suite = {"debian12": "bookworm", "debian13": "trixie"}[request.param]
    work = tmp_path_factory.mktemp("booted")
    place = Path(tempfile.mkdtemp(prefix="so1-booted.", dir="/var/tmp"))
    try:
        with chroot_of(request.param, place) as host:
            prepare(host, packages_of(suite).agent, work)
            done = subprocess.run(
                [
                    *(
                        "systemd-nspawn",
                        f"--machine=so1-booted-{os.getpid()}",
                        "--directory",
                        host.merged,
                        "--boot",
                        "--register=no",
                    ),
                    *("--keep-unit", "--private-network", "--capability=all", "--console=pipe"),
                    f"--bind={engine.directory}/docker.sock:/run/outside/docker.sock",
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
                env={**os.environ, "SYSTEMD_NSPAWN_LOCK": "0"},
            )
            results = host.path("/root/results")
            said = results / "facts"
            assert said.exists(), done.stdout[-3000:] + done.stderr[-2000:]
            text = said.read_text(errors="replace")
            for log in sorted(results.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
    finally:
        engine.clear()
        shutil.rmtree(place)
    assert "exit=0" in text.splitlines(), text
    return dict(line[5:].split("=", 1) for line in text.splitlines() if line[:5] == "fact:")


def test_a_running_clone_is_taken_over_and_its_containers_run_on(facts: dict[str, str]) -> None:
    assert "path=/usr/local/bin/agent" in facts["clone_exec"]
    assert (facts["install_status"], facts["took_over"]) == ("0", "1")
    assert facts["keeper_before"].startswith("true ")
    assert facts["keeper_now"] == facts["keeper_before"]
    assert (facts["installation_same"], facts["settings_same"]) == ("yes", "yes")
    assert facts["first_row"] == "1"
    assert facts["command"] == "/usr/bin/agent"
    assert "path=/usr/bin/agent" in facts["package_exec"]
    assert (facts["enabled"], facts["old_unit"]) == ("enabled", "")


def test_an_upgrade_starts_it_again_beside_running_containers(facts: dict[str, str]) -> None:
    assert facts["upgrade_status"] == "0"
    assert facts["keeper_upgraded"] == facts["keeper_before"]
    assert (facts["another_process"], facts["settings_upgraded"]) == ("yes", "yes")


def test_a_refused_downgrade_costs_neither_the_agent_nor_a_container(facts: dict[str, str]) -> None:
    assert facts["downgrade_status"] != "0"
    assert facts["downgrade_says"] == "1"
    assert facts["keeper_downgraded"] == facts["keeper_before"]


def test_removed_it_keeps_its_history_and_purged_it_leaves_nothing(facts: dict[str, str]) -> None:
    assert facts["removed_keeper"] == ""
    assert (facts["removed_history"], facts["removed_rows"]) == ("yes", "1")
    assert facts["removed_active"] != "active"
    assert (facts["purge_status"], facts["left"]) == ("0", "")
