"""Installed, upgraded, refused, removed and purged: what each changes in a Debian tree's files.

Without a network, an init and a kernel of its own: a guest shows the rest, in
tests/lab/test_packages.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.packages.conftest import PROJECT, Packages

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packages.chroot import Chroot

SETTINGS = "interval_s = 7\n"
INSTALLATION = "0123456789abcdef" * 2 + "\n"


def install(host: Chroot, *packages: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    for package in packages:
        shutil.copy(package, host.path("/root"))
    return host.run("dpkg", "-i", *(f"/root/{one.name}" for one in packages), check=check)


def another_version(package: Path, version: str, to: Path) -> Path:
    """The package, called otherwise."""
    tree = to / f"tree-{version}"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    for name in ("control", "preinst", "postinst", "prerm", "postrm"):
        file = tree / "DEBIAN" / name
        old = subprocess.run(
            ["dpkg-deb", "-f", package, "Version"], capture_output=True, text=True, check=True
        )
        file.write_text(file.read_text().replace(old.stdout.strip(), version))
    made = to / f"so1-agent_{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, made],
        capture_output=True,
        check=True,
    )
    return made


def with_history(host: Chroot) -> None:
    place = host.path("/var/lib/so1")
    place.mkdir(mode=0o750)
    (place / "installation").write_text(INSTALLATION)
    (place / "installation").chmod(0o600)
    (place / "metrics.db").write_text("a history")


def has_history(host: Chroot) -> bool:
    place = host.path("/var/lib/so1")
    return (place / "metrics.db").is_file() and (place / "installation").read_text() == INSTALLATION


def test_purged_it_leaves_a_host_as_it_was(host: Chroot, packages: Packages) -> None:
    before = host.changes()
    assert before == {}
    said = install(host, packages.agent)
    assert "sudo systemctl enable --now so1-agent" in said.stderr
    assert host.run("agent", "--version").stdout.startswith("agent ")
    # Python's files are compiled once, not at each start of a service that may not write there.
    compiled = [path for path in host.changes() if path.endswith(".pyc")]
    assert len(compiled) > 200
    with_history(host)
    host.run("dpkg", "--purge", "so1-agent")
    left = host.changes()
    # dpkg removes /etc/so1 and so on by itself; a parent that was there before is no change.
    assert left == {}


def test_the_interpreter_is_the_suites_and_each_environment_is_whole(
    host: Chroot, packages: Packages
) -> None:
    install(host, packages.agent)
    python = "/usr/lib/so1-agent/venv/bin/python"
    code = (
        "import agent, bcc, docker, msgspec, peewee, prometheus_client, psutil, rich, typer; "
        "import importlib.util, sys; from agent.config import Config; "
        "print(importlib.util.find_spec('psycopg'), sys.prefix, agent.__file__, "
        "Config().paths.install, Config().fleet.environment)"
    )
    assert host.run(python, "-I", "-c", code).stdout.split() == [
        *("None", "/usr/lib/so1-agent/venv", "/usr/lib/so1-agent/src/agent/__init__.py"),
        *("/usr/lib/so1-agent", "/usr/lib/so1-agent/fleet"),
    ]
    code = "import psycopg, sys, agent.fleet.centre; print(psycopg.pq.__impl__, sys.prefix)"
    said = host.run("/usr/lib/so1-agent/fleet/bin/python", "-I", "-c", code).stdout
    assert said.split() == ["binary", "/usr/lib/so1-agent/fleet"]
    code = (
        "import grpc, sys; from agent.cri import cri_pb2, helper; print(grpc.__name__, sys.prefix)"
    )
    said = host.run("/usr/lib/so1-agent/cri/bin/python", "-I", "-c", code).stdout
    assert said.split() == ["grpc", "/usr/lib/so1-agent/cri"]
    code = "import importlib.util; print(importlib.util.find_spec('grpc'))"
    assert host.run(python, "-I", "-c", code).stdout.split() == ["None"]
    doctor = host.run("agent", "doctor", check=False)
    assert "Traceback" not in doctor.stdout + doctor.stderr
    assert "installation" in doctor.stdout


def test_removed_it_keeps_history_and_settings_and_purged_it_takes_them(
    host: Chroot, packages: Packages
) -> None:
    install(host, packages.agent)
    host.path("/etc/so1/agent.toml").write_text(SETTINGS)
    with_history(host)
    host.run("dpkg", "--remove", "so1-agent")
    assert has_history(host)
    assert host.path("/etc/so1/agent.toml").read_text() == SETTINGS
    assert not host.path("/usr/lib/so1-agent").exists()
    assert not host.path("/usr/bin/agent").exists()
    kept = {path for path, what in host.changes().items() if what == "file"}
    assert kept == {"etc/so1/agent.toml", "var/lib/so1/installation", "var/lib/so1/metrics.db"}
    host.run("dpkg", "--purge", "so1-agent")
    assert host.changes() == {}


def test_an_upgrade_keeps_settings_and_history_and_asks_nothing(
    host: Chroot, packages: Packages, tmp_path: Path
) -> None:
    install(host, packages.agent)
    host.path("/etc/so1/agent.toml").write_text(SETTINGS)
    with_history(host)
    said = install(host, another_version(packages.agent, "9.0", tmp_path))
    assert "agent.toml" not in said.stdout + said.stderr
    assert host.run("dpkg-query", "-W", "-f", "${Version}", "so1-agent").stdout == "9.0"
    assert host.path("/etc/so1/agent.toml").read_text() == SETTINGS
    assert has_history(host)


def test_a_downgrade_is_refused_in_one_sentence_and_leaves_what_is_there(
    host: Chroot, packages: Packages, tmp_path: Path
) -> None:
    install(host, packages.agent)
    before = host.path("/usr/lib/so1-agent/src/agent/__init__.py").read_text()
    said = install(host, another_version(packages.agent, "0.9", tmp_path), check=False)
    assert said.returncode != 0
    (sentence,) = (
        line for line in said.stderr.splitlines() if line.startswith("so1-agent: version")
    )
    assert "0.9 is older" in sentence
    assert "sudo apt-get remove so1-agent" in sentence
    state = host.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "so1-agent").stdout
    assert state.startswith("install ok installed 1.")
    assert host.path("/usr/lib/so1-agent/src/agent/__init__.py").read_text() == before
    assert host.run("agent", "--version").returncode == 0


def test_a_clones_installation_is_taken_over_and_says_so(host: Chroot, packages: Packages) -> None:
    for place in ("/opt/so1/venv/lib/python3/site-packages", "/etc/so1", "/etc/systemd/system"):
        host.path(place).mkdir(parents=True, exist_ok=True)
    script = (
        'source "$1/bash/lib/install.sh"; install_tree "$1" /opt/so1 /usr/local/bin/agent "$2"; '
        'service_unit "$1" /usr/local/bin/agent >"$2/etc/systemd/system/so1-agent.service"'
    )
    subprocess.run(["bash", "-euc", script, "bash", PROJECT, host.merged], check=True)
    host.path("/etc/so1/agent.toml").write_text(SETTINGS)
    host.path("/etc/cron.d/so1-agent").write_text("# so1\n")
    with_history(host)
    said = install(host, packages.agent).stderr
    assert "takes over the installation in /opt/so1" in said
    assert "/usr/local/bin/agent" in said
    assert host.run("sh", "-c", "command -v agent").stdout == "/usr/bin/agent\n"
    assert not host.path("/etc/systemd/system/so1-agent.service").exists()
    assert not host.path("/etc/cron.d/so1-agent").exists()
    replaced = host.path("/var/lib/so1/replaced")
    assert {path.name for path in replaced.iterdir()} == {"agent", "so1-agent.service"}
    assert host.path("/etc/so1/agent.toml").read_text() == SETTINGS
    assert not host.path("/etc/so1/agent.toml.so1-kept").exists()
    assert has_history(host)
    # The next upgrade finds settings that an administrator wrote, and leaves them too.
    assert "agent.toml" not in install(host, packages.agent).stdout


def test_another_program_of_that_name_is_left_alone(host: Chroot, packages: Packages) -> None:
    other = host.path("/usr/local/bin/agent")
    other.write_text("#!/bin/sh\necho not ours\n")
    other.chmod(0o755)
    install(host, packages.agent)
    assert other.read_text().endswith("not ours\n")


def kernels_with_headers(host: Chroot) -> list[str]:
    """Debian 12's link to them is absolute: followed from here it would lead to this machine's."""
    found = host.path("/lib/modules").iterdir()
    return [path.name for path in found if (path / "build").is_symlink()]


def test_the_modules_are_built_for_the_kernel_and_go_with_the_package(
    host: Chroot, packages: Packages
) -> None:
    kernels = kernels_with_headers(host)
    install(host, packages.modules)
    status = host.run("dkms", "status", "so1").stdout
    assert status.count("installed") == len(kernels) >= 1
    for kernel in kernels:
        there = host.path(f"/lib/modules/{kernel}/updates/dkms").iterdir()
        assert {path.name.split(".")[0] for path in there} == {"sysinfo", "continfo"}
        # Signed with the key that DKMS made for this host.
        file = f"/lib/modules/{kernel}/updates/dkms/sysinfo.ko"
        name = next(f"{file}{end}" for end in ("", ".xz") if host.path(f"{file}{end}").exists())
        signer = host.run("modinfo", "-F", "signer", name).stdout
        assert signer == "DKMS module signing key\n"
    host.run("dpkg", "--purge", "so1-modules-dkms")
    assert host.run("dkms", "status", "so1").stdout == ""
    left = {path for path in host.changes() if "so1" in path or "sysinfo" in path}
    assert left == set()


def test_a_kernel_that_comes_later_gets_modules_by_the_hook_of_its_package(
    host: Chroot, packages: Packages
) -> None:
    (kernel,) = kernels_with_headers(host)
    install(host, packages.modules)
    # It has this kernel's headers under a name of its own.
    later = f"{kernel}-next"
    place = host.path(f"/lib/modules/{later}")
    place.mkdir()
    (place / "build").symlink_to(os.readlink(host.path(f"/lib/modules/{kernel}/build")))
    for name in ("modules.order", "modules.builtin"):
        shutil.copy(host.path(f"/lib/modules/{kernel}/{name}"), place)
    host.run("/etc/kernel/postinst.d/dkms", later)
    built = {path.name.split(".")[0] for path in (place / "updates/dkms").iterdir()}
    assert built == {"sysinfo", "continfo"}
    host.run("dpkg", "--purge", "so1-modules-dkms")
    assert not (place / "updates/dkms").exists() or not list((place / "updates/dkms").iterdir())


def test_the_loader_takes_what_dkms_has_built_of_the_same_sources(
    host: Chroot, packages: Packages
) -> None:
    install(host, packages.agent, packages.modules)
    (kernel,) = kernels_with_headers(host)
    script = (
        "cd /usr/lib/so1-agent/src/bash/lib; source modules_build.sh; source dkms_modules.sh; "
        "MODULES=(sysinfo continfo); say() { :; }; export LC_ALL=C; "
        "source_dir=/usr/lib/so1-agent/src/kernel/modules; "
        f'take_from_dkms /var/lib/so1/build/{kernel}/x {kernel} "$source_dir"; '
        f"ls /var/lib/so1/build/{kernel}/x"
    )
    assert set(host.run("bash", "-euc", script).stdout.split()) == {
        *("SHA256SUMS", "continfo.ko", "continfo.srcversion", "sysinfo.ko", "sysinfo.srcversion")
    }
    with host.path("/usr/src/so1-1.0.0/sysinfo.c").open("a") as file:
        file.write("/* changed */\n")
    assert host.run("bash", "-euc", script.replace("/x", "/y"), check=False).returncode != 0
