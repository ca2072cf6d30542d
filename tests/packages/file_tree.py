"""A tree's file system as a value: each path with its kind, mode, owner and contents.

The oracle of installation and removal: it walks the whole tree, and knows nothing of packages, of
overlays or of what is expected to change.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class PathState:
    """Two are equal where nobody could tell the paths apart but by their times.

    `contents` is a file's SHA-256, a link's target and a device's number.
    """

    kind: str
    mode: int
    owner: tuple[int, int]
    contents: str = ""


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
_digests: dict[tuple[int, int, int, int], str] = {}
"""By device, inode, time of change and size: a file that nobody touched is read once."""


def _digest(path: str, about: os.stat_result) -> str:
    key = (about.st_dev, about.st_ino, about.st_ctime_ns, about.st_size)
    if key not in _digests:
        with open(path, "rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def _state(path: str) -> PathState:
    about = os.lstat(path)
    kind = _KINDS[stat.S_IFMT(about.st_mode)]
    contents = {
        "file": lambda: _digest(path, about),
        "link": lambda: os.readlink(path),
        "device": lambda: f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}",
    }.get(kind, str)()
    return PathState(kind, stat.S_IMODE(about.st_mode), (about.st_uid, about.st_gid), contents)


def picture(root: Path, without: Collection[str] = ()) -> dict[str, PathState]:
    """Path, from `root` on → its state, of everything below `root` but the paths `without`."""
    found = {}
    for directory, names, files in os.walk(root, onerror=_fail):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            place = os.path.relpath(path, root)
            if place not in without:
                found[place] = _state(path)
    return found


def _fail(error: OSError) -> None:
    raise error


def differences(
    before: dict[str, PathState], after: dict[str, PathState]
) -> dict[str, tuple[PathState | None, PathState | None]]:
    """Path → what it was and what it is, of each that is not the same; None where it is not."""
    return {
        path: (before.get(path), after.get(path))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    }
