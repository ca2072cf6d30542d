"""A host to install packages on: a guest's Debian tree, without a kernel, a network or an init.

The tree of the lab's cache is the lower layer of an overlay, so that what an installation changes
is exactly what lies in the upper one.
"""

from __future__ import annotations

import os
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.guests import find_guest
from tests.lab.images import obtain_base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NOISE = ("var/lib/dpkg/", "var/log/", "var/cache/", "var/lib/apt/", "etc/ld.so.cache", "root/")
"""What dpkg itself writes down."""


@dataclass(frozen=True, slots=True)
class Chroot:
    """`merged` is the host's root directory, `upper` what was changed in it."""

    merged: Path
    upper: Path

    def run(
        self, *words: str, check: bool = True, data: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs words in it, as root, with /proc and an empty /run, and no network at all."""
        script = (
            'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && '
            'mount -t tmpfs tmpfs "$0/run" && exec chroot "$0" "$@"'
        )
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "sh",
                "-c",
                script,
                self.merged,
                *words,
            ],
            input=data,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "DEBIAN_FRONTEND": "noninteractive",
                "LC_ALL": "C.UTF-8",
            },
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def path(self, place: str) -> Path:
        return self.merged / place.lstrip("/")

    def changes(self) -> dict[str, str]:
        """What differs from the tree as it was: path → `gone`, or what it is now."""
        found = {}
        for directory, names, files in os.walk(self.upper):
            for name in [*names, *files]:
                path = os.path.join(directory, name)
                about = os.lstat(path)
                place = os.path.relpath(path, self.upper)
                if place.startswith(_NOISE) or f"{place}/" in _NOISE:
                    continue
                if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
                    found[place] = "gone"
                elif not stat.S_ISDIR(about.st_mode):
                    found[place] = "file"
                elif not (self.lower / place).is_dir():
                    found[place] = "directory"
        return found

    @property
    def lower(self) -> Path:
        return self.upper.parent / "lower"


@contextmanager
def chroot_of(guest_name: str, place: Path) -> Iterator[Chroot]:
    """A host as the guest is, in the directory `place`; gone afterwards."""
    base = obtain_base(find_guest(guest_name))
    names = {name: place / name for name in ("upper", "work", "merged")}
    for path in names.values():
        path.mkdir()
    (place / "lower").symlink_to(base / "root")
    options = f"lowerdir={base / 'root'},upperdir={names['upper']},workdir={names['work']}"
    subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "overlay", names["merged"]], check=True
    )
    try:
        yield Chroot(names["merged"], names["upper"])
    finally:
        subprocess.run(["umount", names["merged"]], check=True)
        subprocess.run(["rm", "-rf", names["upper"], names["work"]], check=True)
