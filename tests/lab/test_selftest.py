"""The lab tried on a guest that misbehaves: what it has to notice, it notices on a real boot.

Without these, a lab that calls everything a pass would look just like a project without faults.
They boot without Docker, which they do not need.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.errors import GuestTimeoutError, KernelComplaintError, LostGuestError
from tests.lab.image import PROJECT

GUEST = "debian12"
WITHOUT_DOCKER = (
    "systemd.mask=docker.service systemd.mask=docker.socket systemd.mask=containerd.service"
)


def lab(*words: str, results: Path, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Status, stdout and stderr of one run in the guest."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.lab", "run", GUEST, "--results", str(results)),
            *("--no-install", "--append", WITHOUT_DOCKER, "--timeout", "240", *options),
            *("--", *words),
        ],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_commands_status_output_and_results_come_out(tmp_path: Path) -> None:
    script = "echo out; echo err >&2; pwd; id -u; echo kept >/results/file; exit 7"
    status, out, _ = lab("bash", "-c", script, results=tmp_path)
    assert status == 7
    assert sorted(out.split()) == sorted(["out", "err", "/root/so1", "0"])
    assert (tmp_path / "file").read_text() == "kept\n"
    assert "Linux version 6.1" in (tmp_path / "kernel.log").read_text()


def test_a_planted_kernel_warning_fails_a_command_that_passed(tmp_path: Path) -> None:
    planted = "WARNING: CPU: 0 PID: 1 at planted.c:1 nothing+0x0/0x1"
    script = f"echo '<4>{planted}' >/dev/kmsg"
    status, _, err = lab("bash", "-c", script, results=tmp_path)
    assert status == KernelComplaintError.exit_status
    assert planted in err


def test_a_guest_that_powers_off_before_its_command_ended_is_lost(tmp_path: Path) -> None:
    script = "echo last words; sleep 1; systemctl poweroff -ff; sleep 60"
    status, out, err = lab("bash", "-c", script, results=tmp_path)
    assert status == LostGuestError.exit_status
    assert "last words" in out
    assert "went away" in err


def test_a_guest_that_outlasts_its_time_is_ended_and_said(tmp_path: Path) -> None:
    status, _, err = lab("true", results=tmp_path, options=("--timeout", "4"))
    assert status == GuestTimeoutError.exit_status
    assert "still running after 4 s" in err


@pytest.mark.full
def test_a_kernel_that_panics_is_a_lost_guest_whose_console_says_why(tmp_path: Path) -> None:
    script = "echo c >/proc/sysrq-trigger; sleep 60"
    status, _, err = lab("bash", "-c", script, results=tmp_path)
    assert status == LostGuestError.exit_status
    assert "sysrq triggered crash" in err
