"""The host's own figures, against /proc read by hand, and the right to go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import PrivilegeError
from agent.model.host import HostCounters
from agent.sources.host_metrics import available_kb, read, require_root


def meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(name)


def with_pressure(proc: Path, text: str) -> HostCounters:
    (proc / "pressure").mkdir()
    for resource in ("memory", "cpu"):
        (proc / "pressure" / resource).write_text(text)
    return read(proc)


def test_available_memory_is_the_kernel_s_own_word() -> None:
    total = meminfo("MemTotal")
    near = total // 20  # others allocate between the two looks
    assert abs(available_kb() - meminfo("MemAvailable")) < near


def test_the_counters_are_those_of_all_cpus_since_boot(tmp_path: Path) -> None:
    figures = read(tmp_path)
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]  # without guests
    ticks = [int(one) / os.sysconf("SC_CLK_TCK") for one in fields]
    assert 0.0 < figures.cpu_busy_s < figures.cpu_total_s
    assert figures.cpu_total_s <= sum(ticks) + 1
    assert sum(ticks) - figures.cpu_total_s < 60
    assert figures.cpu_count == os.cpu_count()
    assert figures.load1 >= 0


def test_pressure_is_the_ten_second_average_of_some(tmp_path: Path) -> None:
    text = "some avg10=1.25 avg60=9.00 avg300=8.00 total=7\nfull avg10=5.00 avg60=0.00 total=1\n"
    figures = with_pressure(tmp_path, text)
    assert (figures.psi_memory_some_avg10, figures.psi_cpu_some_avg10) == (1.25, 1.25)


@pytest.mark.parametrize("text", ["", "full avg10=5.00\n", "some avg10=\n", "some avg10=x\n"])
def test_a_kernel_that_tells_no_pressure_gives_none(tmp_path: Path, text: str) -> None:
    figures = with_pressure(tmp_path, text)
    assert figures.psi_memory_some_avg10 is None


def test_a_host_without_pressure_files_gives_none(tmp_path: Path) -> None:
    assert read(tmp_path).psi_cpu_some_avg10 is None


def test_root_may_go_on_and_another_user_is_told_to_use_sudo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    require_root("agent start")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PrivilegeError) as caught:
        require_root("agent start")
    assert caught.value.hint == "Run `sudo agent start`."
