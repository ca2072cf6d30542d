"""The boot clock is the host's, also for an agent that runs in a time namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.clock import boot_offset_ns
from agent.sources import procfs

PROJECT = Path(__file__).resolve().parents[2]
SHIFTED = ["unshare", "--time", "--boottime", "86400", "--fork"]


@pytest.mark.parametrize(
    ("text", "offset_ns"),
    [
        (b"monotonic           0         0\nboottime            0         0\n", 0),
        (b"monotonic           5         1\nboottime       86400      2000\n", 86_400_000_002_000),
        (b"monotonic           5         0\nboottime          -3 500000000\n", -2_500_000_000),
        (b"1 0 0\n7 12 0\n", 12 * 10**9),  # before Linux 5.7
        (b"", 0),
    ],
)
def test_the_offset_is_that_of_the_boot_clock(text: bytes, offset_ns: int) -> None:
    assert boot_offset_ns(text) == offset_ns


@pytest.mark.allow_subprocess
def test_an_agent_in_a_time_namespace_has_the_hosts_clock_and_the_hosts_starts() -> None:
    tried = subprocess.run([*SHIFTED, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("needs root and time namespaces (CONFIG_TIME_NS)")
    code = (
        "import json\n"
        "from agent.clock import SystemClock\n"
        "from agent.sources import procfs\n"
        f"start_ns = procfs.read_stat('/proc', {os.getpid()}).start_ns\n"
        "print(json.dumps([SystemClock().boot_ns(), start_ns]))\n"
    )
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    done = subprocess.run(
        [*SHIFTED, sys.executable, "-c", code],
        capture_output=True, cwd=PROJECT, timeout=60, check=True,
    )  # fmt: skip
    after_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    inside_ns, start_ns = json.loads(done.stdout)
    assert before_ns <= inside_ns <= after_ns
    assert start_ns == procfs.read_stat("/proc", os.getpid()).start_ns
