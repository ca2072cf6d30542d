"""What `/proc/PID` says, in texts as kernels print them and as workloads try to forge them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources import procfs
from tests.containers import wait_until

TAIL = b" S 7 1 1 0 -1 4194304 10 0 0 0 250 50 9 9 20 0 3 0 12345 8192000 55 18446744073709551615"


def test_a_stat_line_is_read() -> None:
    stat = procfs.parse_stat(b"42 (sleep)" + TAIL)
    assert (stat.comm, stat.state, stat.ppid, stat.threads) == (b"sleep", "S", 7, 3)
    assert stat.cpu_ns == 300 * procfs.TICK_NS
    assert stat.start_ns == 12345 * procfs.TICK_NS
    assert stat.vsz_kb == 8000


@pytest.mark.allow_subprocess
def test_the_cpu_of_a_process_is_its_own_clock_s() -> None:
    """By the clock that it reads itself, threads that are gone in it, and by what its parent is
    told at its end."""
    burn = (
        "import sys, threading, time\n"
        "def burn():\n"
        "    while time.thread_time_ns() < 33_000_000: pass\n"
        "one = threading.Thread(target=burn)\n"
        "one.start()\n"
        "one.join()\n"
        "print(time.process_time_ns(), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        own_ns = int(child.stdout.readline())
        wait_until(lambda: procfs.read_stat("/proc", child.pid).state == "S", "it sleeps")
        stat = procfs.read_stat("/proc", child.pid)
        told_ns = procfs.exact_cpu_ns(child.pid, stat)
        child.kill()
        used = os.wait4(child.pid, 0)[2]
        child.returncode = 0
    assert own_ns <= told_ns <= (used.ru_utime + used.ru_stime) * 1e9 + 1000
    assert procfs.exact_cpu_ns(child.pid, stat) == stat.cpu_ns  # nobody has that pid


def test_a_clock_that_says_less_is_another_process_s() -> None:
    stat = procfs.read_stat("/proc", os.getpid())._replace(cpu_ns=10**18)
    assert procfs.exact_cpu_ns(os.getpid(), stat) == 10**18


def test_pids_are_ours_where_proc_is_of_our_own_namespace(tmp_path: Path) -> None:
    assert procfs.has_our_pids("/proc")
    assert not procfs.has_our_pids(str(tmp_path))
    (tmp_path / "self").mkdir()
    for told, is_ours in ((f"{os.getpid()}", True), (f"{os.getpid()}\t7", False), ("1", False)):
        (tmp_path / "self/status").write_text(f"Name:\tx\nNSpid:\t{told}\n", encoding="ascii")
        assert procfs.has_our_pids(str(tmp_path)) == is_ours


@given(st.binary(max_size=15).filter(lambda name: b"\0" not in name))
def test_no_name_forges_a_field(name: bytes) -> None:
    stat = procfs.parse_stat(b"42 (" + name + b")" + TAIL)
    assert (stat.comm, stat.state, stat.ppid) == (name, "S", 7)


@pytest.mark.parametrize("text", [b"", b"42", b"42 (x)", b"42 (x) S 1 2", b"42 (x)" + b" a" * 30])
def test_a_cut_stat_line_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        procfs.parse_stat(text)


def test_status_fields_are_read_and_the_first_of_a_name_counts() -> None:
    fields = procfs.parse_status(
        b"Name:\ta\\nNSpid:\t9\nVmRSS:\t     712 kB\nNSpid:\t4242\t17\t1\nNSpid:\t3\n"
    )
    assert procfs.kb(fields, b"VmRSS") == 712
    assert procfs.kb(fields, b"RssShmem") == 0
    assert procfs.innermost_pid(fields) == (1, 3)


def test_a_status_without_pids_is_refused() -> None:
    with pytest.raises(ValueError, match="NSpid"):
        procfs.innermost_pid({})


def test_a_rollup_is_read() -> None:
    text = b"55d-7ff ---p 00000000 00:00 0    [rollup]\nRss:      1440 kB\nAnonymous:   96 kB\n"
    fields = procfs.parse_rollup(text)
    assert (procfs.kb(fields, b"Rss"), procfs.kb(fields, b"Anonymous")) == (1440, 96)


def test_cgroups_are_read_by_controller() -> None:
    text = b"9:name=systemd:/a\n4:cpu,cpuacct:/x:y\n3:memory:/docker/\xff (deleted)\n0::/u\n\n"
    assert procfs.parse_cgroups(text) == {
        "name=systemd": "/a",
        "cpu": "/x:y",
        "cpuacct": "/x:y",
        "memory": "/docker/\udcff (deleted)",
        "": "/u",
    }


@given(st.binary(max_size=200))
def test_no_cgroup_text_raises(text: bytes) -> None:
    procfs.parse_cgroups(text)


def test_a_namespace_is_its_number(tmp_path: Path) -> None:
    (tmp_path / "7" / "ns").mkdir(parents=True)
    (tmp_path / "7" / "ns" / "pid").symlink_to("pid:[4026531836]")
    (tmp_path / "7" / "ns" / "uts").symlink_to("pid:[4026531836]")
    assert procfs.namespace(str(tmp_path), 7, "pid") == 4026531836
    with pytest.raises(ValueError, match="not a namespace"):
        procfs.namespace(str(tmp_path), 7, "uts")
    with pytest.raises(OSError, match="No such file"):
        procfs.namespace(str(tmp_path), 8, "pid")


def test_large_files_are_read_whole(tmp_path: Path) -> None:
    text = os.urandom(200_000)
    (tmp_path / "big").write_bytes(text)
    assert procfs.read(str(tmp_path / "big")) == text
