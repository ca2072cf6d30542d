"""Cgroups that an engine makes and forgets: a pod's, a parent named on its command line."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.containers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def no_cgroup_left(*names: str) -> Iterator[None]:
    """Removes what lies below directories of these names in any hierarchy and was not there before.

    Raises AssertionError where something goes on living in one of them.
    """
    before = _directories(names)
    yield

    def none_left() -> bool:
        left = sorted(_directories(names) - before, key=lambda one: -len(one.parts))
        for directory in left:  # deepest first
            with suppress(OSError):
                directory.rmdir()
        return not left

    # A container's monitor ends a moment after it.
    wait_until(none_left, f"no cgroup is left below {', '.join(names)}", timeout_s=60)


def _directories(names: tuple[str, ...]) -> set[Path]:
    """The directories of these names, at the top of a hierarchy, and all below them."""
    found = set()
    for hierarchy in (_ROOT, *_ROOT.iterdir()):
        for name in names:
            top = hierarchy / name
            if top.is_dir() and not top.is_symlink():
                found |= {top.resolve(), *(one.resolve() for one in top.rglob("*/"))}
    return {one for one in found if one.is_dir()}
