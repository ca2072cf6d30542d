"""Installed, upgraded, removed and purged: the whole file system before and after.

Every path of the tree is compared, by kind, mode, owner and contents; what dpkg and its triggers
write down for themselves is left out by name.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.packages.file_tree import PathState, differences, picture
from tests.packages.test_leaving_a_clone import install_clone
from tests.packages.test_life_cycle import SETTINGS, another_version, has_history, with_history

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packages.chroot import Chroot
    from tests.packages.conftest import Packages

DPKGS_OWN = frozenset(
    {
        *(f"var/lib/dpkg/{name}" for name in ("status", "status-old", "lock", "lock-frontend")),
        *("var/lib/dpkg/triggers/Lock", "var/lib/dpkg/triggers/Unincorp", "var/log/dpkg.log"),
    }
)
HISTORY = {"var/lib/so1", "var/lib/so1/installation", "var/lib/so1/metrics.db"}
SETTINGS_FILES = {"etc/so1", "etc/so1/agent.toml"}


@pytest.fixture(autouse=True)
def ordinary_dpkg(host: Chroot) -> None:
    """The lab's trees are small because dpkg leaves documents and man pages out there."""
    options = host.path("/etc/dpkg/dpkg.cfg.d/so1-lab")
    lines = options.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("path-exclude=")]
    assert len(kept) < len(lines)
    options.write_text("".join(kept))


def look(host: Chroot) -> dict[str, PathState]:
    return picture(host.merged, DPKGS_OWN)


def install(host: Chroot, package: Path) -> subprocess.CompletedProcess[str]:
    """The package lies in the tree for this long alone."""
    shutil.copy(package, host.path("/root/the.deb"))
    done = host.run("dpkg", "-i", "/root/the.deb")
    host.path("/root/the.deb").unlink()
    return done


def changed(before: dict[str, PathState], after: dict[str, PathState]) -> set[str]:
    return set(differences(before, after))


def contents_of(package: Path, to: Path) -> dict[str, PathState]:
    """What a package puts on a host."""
    subprocess.run(["dpkg-deb", "-x", package, to], check=True)
    return picture(to)


def older(package: Path, work: Path) -> Path:
    """The package as an older version could have been: files of its own, others in other words."""
    tree = work / "older"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    source = tree / "usr/lib/so1-agent/src/agent"
    (source / "errors.py").write_text((source / "errors.py").read_text() + "# of before\n")
    (source / "long_gone").mkdir()
    (source / "long_gone/__init__.py").write_text('"""A package that was given up."""\n')
    (source / "clock.py").chmod(0o755)
    for place in ("etc/so1/agent.toml", "usr/share/so1-agent/agent.toml"):
        if (tree / place).exists():
            (tree / place).write_text("# settings of before\n")
    made = work / "so1-agent_older.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, made],
        capture_output=True,
        check=True,
    )
    return another_version(made, "0.9", work)


def compiled_from(path: str) -> str:
    """The source of a file in __pycache__, "" of any other."""
    directory, _, name = path.rpartition("/")
    if not directory.endswith("/__pycache__"):
        return ""
    return f"{directory.removesuffix('/__pycache__')}/{name.split('.')[0]}.py"


def test_installed_upgraded_and_purged_it_leaves_the_tree_as_it_was(
    host: Chroot, packages: Packages, tmp_path: Path
) -> None:
    before = look(host)
    assert len(before) > 30_000
    install(host, older(packages.agent, tmp_path))
    with_history(host)
    host.path("/etc/so1/agent.toml").write_text(SETTINGS)
    # What docs/fleet.md and docs/notify.md have an administrator put there.
    for name in ("fleet.secret", "fleet.pgpass", "notify.key"):
        host.path(f"/etc/so1/{name}").write_text("a secret")
    # Without an init too, as who builds an image does.
    host.run("systemctl", "enable", "so1-agent")
    install(host, packages.agent)
    assert host.run("agent", "--version").returncode == 0
    host.run("dpkg", "--purge", "so1-agent")
    assert differences(before, look(host)) == {}


def test_removed_it_leaves_history_and_settings_and_no_other_path(
    host: Chroot, packages: Packages
) -> None:
    before = look(host)
    install(host, packages.agent)
    with_history(host)
    kept = {path: state for path, state in look(host).items() if path in HISTORY | SETTINGS_FILES}
    host.run("dpkg", "--remove", "so1-agent")
    left = look(host)
    # dpkg keeps what it needs for a purge.
    own = {f"var/lib/dpkg/info/so1-agent.{name}" for name in ("list", "postrm")}
    assert changed(before, left) == HISTORY | SETTINGS_FILES | own
    assert {path: left[path] for path in kept} == kept
    assert has_history(host)


def test_after_an_upgrade_all_but_the_administrators_is_what_the_package_lists(
    host: Chroot, packages: Packages, tmp_path: Path
) -> None:
    before = look(host)
    install(host, older(packages.agent, tmp_path))
    with_history(host)
    host.path("/etc/so1/agent.toml").write_text(SETTINGS)
    administrators = HISTORY | SETTINGS_FILES
    was = {path: state for path, state in look(host).items() if path in administrators}
    assert set(was) == administrators
    install(host, packages.agent)
    after = look(host)
    assert {path: after[path] for path in administrators} == was
    listed = contents_of(packages.agent, tmp_path / "contents")
    # Debian's /lib is a link to /usr/lib.
    listed = {
        f"usr/{path}" if path.startswith("lib/") else path: state for path, state in listed.items()
    }
    others = {
        path: state
        for path, (_, state) in differences(before, after).items()
        if path not in administrators and not path.startswith("var/lib/dpkg/info/so1-agent.")
    }
    compiled = {path for path in others if path.endswith("/__pycache__") or compiled_from(path)}
    assert {path: state for path, state in others.items() if path not in compiled} == {
        path: state
        for path, state in listed.items()
        if before.get(path) != state and path != "lib" and path not in administrators
    }
    sources = {compiled_from(path) for path in compiled} - {""}
    assert len(sources) > 200
    assert sources <= set(listed)


def test_settings_that_nobody_wrote_in_are_the_new_packages(
    host: Chroot, packages: Packages, tmp_path: Path
) -> None:
    install(host, older(packages.agent, tmp_path))
    assert host.path("/etc/so1/agent.toml").read_text() == "# settings of before\n"
    install(host, packages.agent)
    settings = host.path("/etc/so1/agent.toml")
    assert settings.read_text().startswith("# Settings of the so1 agent.")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o644
    assert os.listdir(settings.parent) == ["agent.toml"]
    # One who took it away wants none.
    settings.unlink()
    install(host, another_version(packages.agent, "9.0", tmp_path))
    assert not settings.exists()


def test_a_clone_taken_over_and_purged_leaves_only_what_its_page_says(
    host: Chroot, packages: Packages, tmp_path: Path
) -> None:
    before = look(host)
    install_clone(host, packages.agent, tmp_path)
    with_history(host)
    assert "usr/local/share/man/man1/agent.1" in look(host)
    said = install(host, packages.agent).stderr
    host.run("dpkg", "--purge", "so1-agent")
    left = changed(before, look(host))
    assert {path for path in left if not path.startswith("opt/so1")} == set()
    # The command that the package says, and docs/install.md.
    assert "sudo rm -r /opt/so1" in said
    host.run("rm", "-r", "/opt/so1")
    assert differences(before, look(host)) == {}


def test_the_modules_purged_leave_only_dkmss_key_and_what_depmod_wrote(
    host: Chroot, packages: Packages
) -> None:
    before = look(host)
    install(host, packages.modules)
    assert len([path for path in look(host) if "/updates/dkms/continfo.ko" in path]) >= 1
    host.run("dpkg", "--purge", "so1-modules-dkms")
    left = changed(before, look(host))
    key = {"var/lib/dkms/mok.key", "var/lib/dkms/mok.pub"}
    lists = {path for path in left if re.fullmatch(r"usr/lib/modules/[^/]+/modules\.[\w.]+", path)}
    assert left - lists == key
