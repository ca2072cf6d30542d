"""What procfs says of a process, for the modules' figures."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.vm import modules_support as host

if TYPE_CHECKING:
    from collections.abc import Iterator


def holds(condition: bool) -> None:
    assert condition


@contextmanager
def own_cgroup() -> Iterator[tuple[Path, str]]:
    """A cgroup of memory's hierarchy, and "memory" where that is v1, else ""."""
    mounts = host.cgroup_hierarchies()
    controller = "memory" if "memory" in mounts else ""
    directory = mounts[controller] / f"so1-test-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory, controller
    finally:
        remove_cgroup(directory)


def remove_cgroup(directory: Path) -> None:
    """Remove it as soon as the last of its processes is reaped."""

    def remove() -> None:
        try:
            directory.rmdir()
        except OSError as error:
            raise AssertionError(f"{directory} is still in use") from error

    host.eventually(remove)
