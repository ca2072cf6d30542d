"""Another Debian's engines run on this machine: podman, containerd, dockerd of a guest's tree.

The tree of the lab's cache is the lower layer of an overlay, which is the root of a mount namespace
of its own. All else is this machine's: processes, cgroups, network. So the agent sees containers of
Debian 13's or sid's engines as it sees those of the installed ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.errors import LabError
from tests.lab.guests import find_guest
from tests.lab.images import obtain_base

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

INSTALLED = "installed"
"""This machine's own engines, without a tree."""
OTHERS = ("debian13", "sid")
"""Guests whose trees have other engines than Debian 12."""
SUITES = (INSTALLED, *(pytest.param(one, marks=pytest.mark.full) for one in OTHERS))
"""Parameters: the installed engines, and with --full those of other suites, by a guest's name."""

_ENTER = """
set -e
merged=$1 shared=$2 options=upperdir=$4,workdir=$5
mount -t overlay -o "lowerdir=$3,$options" overlay "$merged"
for one in proc sys dev; do mount --rbind "/$one" "$merged/$one"; done
for one in run tmp; do mount -t tmpfs tmpfs "$merged/$one"; done
chmod 1777 "$merged/tmp"
mkdir -p "$merged$shared" "$merged/mnt"
mount --bind "$shared" "$merged$shared"
cd "$merged"
pivot_root . mnt
exec chroot . sh -c 'umount -l /mnt && echo ready && exec sleep infinity'
"""
_ENTER_HERE = """
set -e
mount -t overlay -o "lowerdir=/etc,upperdir=$4/etc,workdir=$5" overlay /etc
echo ready
exec sleep infinity
"""
"""This machine with other files in /etc."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Where programs of an engine are run; this machine itself where `prefix` is empty."""

    prefix: tuple[str, ...] = ()

    def words(self, *words: str) -> list[str]:
        """How `words` are run there, with this process's environment."""
        return [*self.prefix, *words]

    def need(self, *programs: str) -> None:
        """Skips, naming the first program that is not there."""
        for program in programs:
            asked = self.words("sh", "-c", 'command -v "$1"', "sh", program)
            if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
                pytest.skip(f"{program} is not installed")


@contextmanager
def engine_tree(
    suite: str,
    shared: Path,
    more_etc: Mapping[str, str] | None = None,
    programs: Sequence[str] = (),
) -> Iterator[Inside]:
    """The programs of a suite; `shared` is the same directory in there.

    `more_etc` is added to files of /etc, `programs` of this machine are there too. Where the
    guest's tree is not in the lab's cache it is made, which takes minutes and the network.
    """
    if suite == INSTALLED and not more_etc:
        yield Inside()
        return
    if os.geteuid() != 0:
        pytest.skip("root is needed for a tree of another Debian")
    lower = Path("/") if suite == INSTALLED else _tree(suite)
    place = Path(tempfile.mkdtemp(prefix="so1-tree-", dir="/var/lib"))
    place.chmod(0o755)
    layers = [place / name for name in ("merged", "upper", "work")]
    for path in (*layers, place / "upper/etc"):
        path.mkdir()
    for name, text in (more_etc or {}).items():
        old = lower / "etc" / name
        before = old.read_text(encoding="utf-8") if old.exists() else ""
        (place / "upper/etc" / name).write_text(before + text, encoding="utf-8")
    if suite != INSTALLED:
        for program in programs:
            target = place / "upper" / program.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, target)
    merged, upper, work = map(str, layers)
    holder = subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
            _ENTER_HERE if suite == INSTALLED else _ENTER,
            *("sh", merged, str(shared), str(lower), upper, work),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n", "the tree's mounts cannot be made"
        yield Inside(("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"))
    finally:
        holder.kill()
        holder.wait(60)
        shutil.rmtree(place, ignore_errors=True)


def _tree(name: str) -> Path:
    try:
        return obtain_base(find_guest(name)) / "root"
    except LabError as error:
        pytest.skip(f"the tree of {name} cannot be made: {error}")
