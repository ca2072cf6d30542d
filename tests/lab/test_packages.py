"""The packages in guests without a network: over an installation of 1.0, a new kernel, purged.

A guest of its own for each, since what is purged at the end every other test needs. It takes a
quarter of an hour a guest, so CI leaves it out; tests/packages has what needs no kernel.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.guests import find_guest
from tests.lab.image import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.full
SCRIPT = PROJECT / "tests/lab/guest/packages.sh"
GUESTS = ("debian12", "debian13", "debian13-arm64")
SIGNER = "DKMS module signing key"


@pytest.mark.parametrize("guest", GUESTS)
def test_over_a_clone_and_purged_with_nothing_lost_in_between_and_nothing_left(
    guest: str, tmp_path: Path
) -> None:
    built, results = tmp_path / "packages", tmp_path / "results"
    results.mkdir()
    host = find_guest(guest)
    options = ("-s", host.suite, "-a", host.arch, "-o", built)
    subprocess.run(["bash", PROJECT / "packaging/build.sh", *options], check=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.lab", "run", guest, "--timeout", "5400"),
            # The kernel says that it refuses a module, which is what is tried.
            *("--allow-log", "trusted key|is rejected"),
            # Not by the checkout, whose copy leaves out what git ignores.
            *("--share", f"{built}:packages", "--results", str(results)),
            *("--", "bash", str(SCRIPT.relative_to(PROJECT))),
        ],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * 3600,
        check=False,
    )
    log = results / "install.log"
    said = log.read_text(errors="replace")[-3000:] if log.exists() else "no install.log"
    print(done.stdout, said)
    assert done.returncode == 0, f"{done.stdout[-4000:]}{done.stderr[-2000:]}\n{said}"
    facts = dict(line[5:].split("=", 1) for line in done.stdout.splitlines() if line[:5] == "fact:")
    assert "/usr/local/bin/agent" in facts["clone_exec"]
    assert (facts["install_status"], facts["took_over"]) == ("0", "1")
    # The same container, never restarted, and the history of before.
    assert facts["keeper_now"] == facts["keeper_before"]
    assert facts["keeper_now"].startswith("true ")
    assert (facts["installation_same"], facts["settings_same"]) == ("yes", "yes")
    assert facts["first_row"] == "1"
    assert facts["command"] == "/usr/bin/agent"
    assert "path=/usr/bin/agent" in facts["package_exec"]
    assert facts["enabled"] == "enabled"
    assert (facts["keeper_rows"], facts["wrong_names"]) == ("1", "0")
    assert "installed" in facts["dkms"]
    # An ordinary stop removes what is this installation's.
    assert facts["keeper_after_stop"] == ""
    assert facts["loaded_signer"] == SIGNER
    assert set(facts["next_kernel"].split()) == {"sysinfo", "continfo"}
    # A key that nobody has enrolled: psutil, and the command that enrols it.
    assert facts["sig_enforce"] == "Y"
    assert facts["source_enforced"] == "psutil"
    assert facts["enforced_says"] != ""
    assert facts["purge_status"] == "0"
    assert facts["left"] == ""
