"""Which cgroup hierarchies this host has, and which of them tells its containers apart.

Probed once into one value. The kernel's own table of mounts decides, not a path that is usual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agent.errors import SourceError
from agent.model.container import Hierarchy
from agent.sources.cgroup.memo import Memo


class CgroupMode(StrEnum):
    """How cgroups are mounted."""

    V2 = "v2"
    V1 = "v1"
    HYBRID = "hybrid"
    """Controllers in v1 hierarchies, and the default hierarchy mounted beside them."""


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    """Where the hierarchies are mounted."""

    mode: CgroupMode
    hierarchy: Hierarchy
    """The one whose cgroup ids name containers."""
    root: Path
    """Where that one is mounted."""
    default_root: Path | None
    """Mount of the default (v2) hierarchy."""
    memory1_root: Path | None
    """Mount of the memory controller's v1 hierarchy."""
    cpuacct_root: Path | None
    proc: Path
    hugetlb1_root: Path | None = None
    """Mount of the hugetlb controller's v1 hierarchy."""
    blkio1_root: Path | None = None
    """Mount of the blkio controller's v1 hierarchy."""
    sys: Path = Path("/sys")
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)
    """What one read leaves for the next."""


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    point: Path
    fstype: str
    options: frozenset[str]


def detect(
    root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc"), sys: Path = Path("/sys")
) -> CgroupLayout:
    """The layout, from `mountinfo`; of several mounts of one hierarchy one below `root` is taken.

    Raises SourceError where no hierarchy can tell containers apart.
    """
    try:
        text = (proc / "self" / "mountinfo").read_bytes()
    except OSError as error:
        raise SourceError(f"The table of mounts cannot be read: {error.strerror}.") from error
    mounts = _cgroup_mounts(text.decode("utf-8", "surrogateescape"))
    default_root = _best(mounts, root, lambda mount: mount.fstype == "cgroup2")
    memory1_root = _best(
        mounts, root, lambda mount: mount.fstype == "cgroup" and "memory" in mount.options
    )
    cpuacct_root = _best(
        mounts, root, lambda mount: mount.fstype == "cgroup" and "cpuacct" in mount.options
    )
    hugetlb1_root = _best(
        mounts, root, lambda mount: mount.fstype == "cgroup" and "hugetlb" in mount.options
    )
    blkio1_root = _best(
        mounts, root, lambda mount: mount.fstype == "cgroup" and "blkio" in mount.options
    )
    identifying = memory1_root or default_root
    if identifying is None:
        raise SourceError(
            "No cgroup hierarchy is mounted that tells containers apart.",
            "Mount one: `sudo mount -t cgroup2 none /sys/fs/cgroup`.",
        )
    if any(mount.fstype == "cgroup" for mount in mounts):
        mode = CgroupMode.V1 if default_root is None else CgroupMode.HYBRID
    else:
        mode = CgroupMode.V2
    return CgroupLayout(
        mode=mode,
        hierarchy=Hierarchy.MEMORY_V1 if memory1_root else Hierarchy.DEFAULT,
        root=identifying,
        default_root=default_root,
        memory1_root=memory1_root,
        cpuacct_root=cpuacct_root,
        proc=proc,
        hugetlb1_root=hugetlb1_root,
        blkio1_root=blkio1_root,
        sys=sys,
    )


def _best(mounts: Sequence[_Mount], root: Path, wanted: Callable[[_Mount], bool]) -> Path | None:
    """The whole hierarchy rather than a part of it, below `root` rather than elsewhere."""
    ranked = sorted(
        (mount for mount in mounts if wanted(mount)),
        key=lambda mount: (mount.root != "/", not mount.point.is_relative_to(root)),
    )
    return ranked[0].point if ranked else None


_OCTAL = re.compile(r"\\([0-7]{3})")


def _cgroup_mounts(text: str) -> list[_Mount]:
    """The cgroup mounts of `mountinfo` (proc_pid_mountinfo(5)), in the order of mounting."""
    mounts = []
    for line in text.split("\n"):
        left, dash, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if dash and len(before) >= 6 and len(after) >= 3 and after[0] in ("cgroup", "cgroup2"):
            root, point = (_OCTAL.sub(_byte, word) for word in before[3:5])
            mounts.append(_Mount(root, Path(point), after[0], frozenset(after[2].split(","))))
    return mounts


def _byte(match: re.Match[str]) -> str:
    return chr(int(match.group(1), 8))
