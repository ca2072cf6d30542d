"""Engines of a user who is not root: his programs' rights, his ids, his directories.

The user is one of a mount namespace's own /etc: nothing of this machine is changed. Everything
that runs under his ids is ended with him.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.containers import wait_until
from tests.docker.engine_tree import Inside, engine_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "so1-ana"
UID = 471_100
_SUBORDINATE = range(471_200_000, 471_200_000 + 65_536)
_MAPPERS = ("newuidmap", "newgidmap")


@contextmanager
def rootless(suite: str, directory: Path, *programs: str) -> Iterator[Inside]:
    """A suite's programs as the user runs them; `directory` becomes his.

    `programs` of this machine are needed, and are there too: Debian has them in packages that an
    engine only recommends.
    """
    needed = []
    for program in (*_MAPPERS, *programs):
        found = shutil.which(program)
        if found is None:
            package = "uidmap" if program in _MAPPERS else program
            pytest.skip(f"{program} is not installed ({package})")
        needed.append(found)
    ids = f"{USER}:{_SUBORDINATE.start}:{len(_SUBORDINATE)}\n"
    home, run = directory / "home", directory / "run"
    more = {
        "passwd": f"{USER}:x:{UID}:{UID}::{home}:/bin/sh\n",
        "group": f"{USER}:x:{UID}:\n",
        "subuid": ids,
        "subgid": ids,
    }
    directory.chmod(0o755)
    for path in (home, run):
        path.mkdir(mode=0o700)
    for path in (directory, home, run):
        os.chown(path, UID, UID)
    with engine_tree(suite, directory, more, needed) as root:
        prefix = root.words(
            *("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"),
            *("env", "-u", "DOCKER_HOST", f"HOME={home}", f"USER={USER}"),
            *(f"XDG_RUNTIME_DIR={run}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"),
        )
        probe = root.words("unshare", "--user", "true")
        if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
            pytest.skip("users may make no user namespaces here")
        try:
            yield Inside(tuple(prefix))
        finally:
            _end_all()


def his_processes() -> set[int]:
    """Every process that runs under one of his ids."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                text = Path(f"/proc/{name}/status").read_text(encoding="utf-8")
                uid = int(text.partition("Uid:")[2].split()[0])
                if uid == UID or uid in _SUBORDINATE:
                    found.add(int(name))
    return found


def _end_all() -> None:
    def none_left() -> bool:
        left = his_processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, "nothing of the user's runs")
