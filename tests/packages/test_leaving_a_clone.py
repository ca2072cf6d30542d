"""What docs/install.md says of leaving a clone, done: the file system before and after.

A guest's tree without a network; the Python environment is the package's, which start.sh would have
made with one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.packages.chroot import chroot_of
from tests.packages.conftest import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.packages.chroot import Chroot
    from tests.packages.conftest import Packages

DOCUMENT = PROJECT / "docs/install.md"
STAYS = ("etc/so1/", "var/lib/so1/", "var/log/so1/")


def row_of_the_clone() -> tuple[str, str]:
    """How to leave it, and what stays."""
    (row,) = re.findall(r"^\| a clone \| (`sudo .*) \| (.*) \|$", DOCUMENT.read_text(), re.M)
    return str(row[0]), str(row[1])


def commands() -> list[str]:
    found = re.findall(r"`sudo ([^`]*)`", row_of_the_clone()[0])
    assert found[0].endswith("service.sh remove")
    assert len(found) == 5
    return found


def install_clone(host: Chroot, package: Path, work: Path) -> None:
    """As `start.sh --install-only` does, by its functions."""
    subprocess.run(["dpkg-deb", "-x", package, work / "tree"], check=True)
    host.path("/opt/so1").mkdir(parents=True)
    shutil.copytree(work / "tree/usr/lib/so1-agent/venv", host.path("/opt/so1/venv"), symlinks=True)
    script = 'source "$1/bash/lib/install.sh"; install_tree "$1" /opt/so1 /usr/local/bin/agent "$2"'
    subprocess.run(["bash", "-euc", script, "bash", PROJECT, host.merged], check=True)
    documents = (
        "source /opt/so1/src/bash/lib/install.sh; "
        "install_documents /opt/so1/venv/bin/python /opt/so1/src /usr/local/share"
    )
    host.run("bash", "-euc", documents)


def test_the_documented_way_out_leaves_what_it_names_and_no_other_file(
    packages_of: Callable[[str], Packages], tmp_path: Path
) -> None:
    place = Path(tempfile.mkdtemp(prefix="so1-chroot.", dir="/var/tmp"))
    try:
        with chroot_of("debian12", place) as host:
            install_clone(host, packages_of("bookworm").agent, tmp_path)
            for name in STAYS:
                host.path(name).mkdir(parents=True, exist_ok=True)
                (host.path(name) / "kept").write_text("x")
            before = host.changes()
            for wanted in ("usr/local/bin/agent", "usr/local/share/man/man1/agent-bpf-trace.1"):
                assert before[wanted] == "file"
            assert host.run("/usr/local/bin/agent", "--version").stdout.startswith("agent ")
            # No agent runs here, and no Docker, which a clean-up says.
            ends = {"agent stop": {0, 3}, "agent cleanup": {0, 1}}
            for command in commands()[1:]:
                done = host.run("bash", "-c", f"PATH=/usr/local/bin:$PATH; {command}", check=False)
                assert done.returncode in ends.get(command, {0}), done.stdout + done.stderr
            left = {path for path, what in host.changes().items() if what != "directory"}
            assert {path for path in left if not path.startswith(STAYS)} == set()
            named = row_of_the_clone()[1]
            assert all(f"/{path.strip('/')}" in named for path in STAYS)
            assert all((host.path(path) / "kept").is_file() for path in STAYS)
    finally:
        shutil.rmtree(place)
