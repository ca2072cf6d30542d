"""Removes an engine's directory with what the engine leaves mounted in it.

dockerd keeps the host's network namespace mounted at `exec/netns/default` from the first container
with `--network=host` on, past its own end; one that was killed leaves its `data` too. A directory
with a mount in it cannot be removed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.containers import wait_until


def mounts_below(directory: Path) -> list[str]:
    """Where something is mounted in or on it, in this mount namespace, the newest first."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    # Blanks are octal in there (proc_pid_mountinfo(5)).
    places = [
        re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4])
        for line in lines
    ]
    return [one for one in reversed(places) if Path(one).is_relative_to(directory)]


def remove_engines_directory(directory: Path) -> None:
    """Unmounts and removes it. Raises AssertionError where it stays."""

    def gone() -> bool:
        for place in mounts_below(directory):
            subprocess.run(["umount", place], capture_output=True, check=False)
        if not mounts_below(directory):
            shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    # A shim or a monitor ends a moment after its engine.
    wait_until(gone, f"{directory} is gone", timeout_s=120, pause_s=0.5)
