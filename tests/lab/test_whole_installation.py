"""The newcomer's way, whole and once: a fresh Debian, a user with sudo, a clone, `./bash/start.sh`.

systemd, packages from the archive, modules compiled on the spot, Docker, cron and the agent come
together here and nowhere else. It takes a network and a quarter of an hour a guest, so CI leaves
it out.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.image import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.full
SCRIPT = PROJECT / "tests/lab/guest/whole_installation.sh"


@pytest.mark.parametrize("guest", ["debian12-fresh", "debian13-fresh"])
def test_from_a_fresh_system_and_a_clone_to_a_running_agent_and_back(
    guest: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.lab", "run", guest, "--net", "--timeout", "3600"),
            *("--results", str(tmp_path), "--", "bash", str(SCRIPT.relative_to(PROJECT))),
        ],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * 3600,
        check=False,
    )
    log = tmp_path / "start.log"
    said = log.read_text(errors="replace")[-3000:] if log.exists() else "no start.log"
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-2000:]}\n{said}"
    facts = dict(line.split("=", 1) for line in done.stdout.splitlines() if line[:5] == "fact:")
    assert facts["fact:source"] == "modules"
    assert int(facts["fact:ticks"]) >= 2
    assert int(facts["fact:container_rows"]) > 0
    assert facts["fact:wrong_names"] == "0"
    assert facts["fact:modules_while_running"] == "2"
    assert facts["fact:start_status"] == "0"
    assert facts["fact:left"] == ""
    assert facts["fact:roots_files_in_checkout"] == ""
    assert facts["fact:once_status"] == "0"
