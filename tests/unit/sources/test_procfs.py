"""What `/proc/PID` says, in texts as kernels print them and as workloads try to forge them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources import procfs

TAIL = b" S 7 1 1 0 -1 4194304 10 0 0 0 250 50 9 9 20 0 3 0 12345 8192000 55 18446744073709551615"


def test_a_stat_line_is_read() -> None:
    stat = procfs.parse_stat(b"42 (sleep)" + TAIL)
    assert (stat.comm, stat.state, stat.ppid, stat.threads) == (b"sleep", "S", 7, 3)
    assert stat.cpu_ns == 300 * procfs.TICK_NS
    assert stat.start_ns == 12345 * procfs.TICK_NS
    assert stat.vsz_kb == 8000


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
