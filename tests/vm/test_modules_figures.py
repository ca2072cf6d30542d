"""Every figure of the modules against procfs, for each process of the guest and for hard scenes.

What others may change meanwhile is read before and after: where both readings agree the module's
figure has to be just that, and most processes have to agree.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.vm import modules_support as host
from tests.vm.figures_support import holds, own_cgroup
from tests.vm.modules_support import scene

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("modules")


# The entries are described in docs/kernel.md.
USAGE_FIELDS = {
    *("pid", "name", "rss", "mem_percent", "vsz", "cpu", "start_ns", "cpu_ns", "rss_anon"),
    *("rss_shmem", "mm_id", "cgroup_id", "cgroup1_id"),
}


PROCESS_FIELDS = USAGE_FIELDS | {"state", "ppid", "threads"}


CANDIDATE_FIELDS = USAGE_FIELDS | {"ns_pid", "pid_ns", "uts_ns"}


# include/linux/sched.h; an idle kernel thread is uninterruptible without counting as load.
STATES = {"R": 0, "S": 1, "D": 2, "I": 2, "T": 4, "t": 8, "Z": 32, "P": 64}


_EXACT_VMRSS = host.LINUX >= (6, 2)


_USER_HZ = os.sysconf("SC_CLK_TCK")


def settled(read: Callable[[int], Any], ours: Callable[[dict[str, Any]], Any]) -> dict[int, Any]:
    """Compare all processes for which `read` says the same before and after the module is read.

    Returns what the oracle said of them. A process that differs does so three times in a row
    before it counts, since it may have changed there and back.
    """
    suspects: set[int] | None = None
    for _ in range(3):
        before = {pid: read(pid) for pid in host.host_pids()}
        rows = host.processes()
        same = {
            pid: value
            for pid, value in before.items()
            if value is not None and read(pid) == value and pid in rows
        }
        wrong = {pid for pid, value in same.items() if ours(rows[pid]) != value}
        suspects = wrong if suspects is None else suspects & wrong
        if not suspects:
            return same
    differences = {pid: (rows[pid], same.get(pid)) for pid in suspects or ()}
    raise AssertionError(f"the module, then the oracle: {differences}")


def of_stat(*indices: int) -> Callable[[int], tuple[int, ...] | None]:
    def read(pid: int) -> tuple[int, ...] | None:
        found = host.stat(pid)
        return tuple(int(found[index]) for index in indices) if found else None

    return read


def test_an_entry_has_the_fields_of_the_contract_and_integers_in_them() -> None:
    info = host.sysinfo()
    assert set(info) == {
        *("total_ram", "free_ram", "used_ram", "available_ram", "snapshot_ns", "processes")
    }
    rows = info.pop("processes")
    assert all(type(value) is int for value in info.values())
    found = [*((row, PROCESS_FIELDS) for row in rows)]
    found += [(row, CANDIDATE_FIELDS) for row in host.candidates().values()]
    for row, fields in found:
        assert set(row) == fields
        assert type(row["name"]) is str
        assert all(type(value) is int and value >= 0 for key, value in row.items() if key != "name")


def test_the_hosts_memory_is_meminfos() -> None:
    def meminfo() -> dict[str, int]:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) for line in lines}

    def look() -> None:
        before, info, after = meminfo(), host.sysinfo(), meminfo()
        assert info["total_ram"] == before["MemTotal"]
        assert info["used_ram"] == info["total_ram"] - info["free_ram"]
        for ours, theirs in (("free_ram", "MemFree"), ("available_ram", "MemAvailable")):
            low, high = sorted((before[theirs], after[theirs]))
            assert low <= info[ours] <= high

    host.eventually(look)


def test_the_snapshots_time_is_the_boot_clocks() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    ours = host.sysinfo()["snapshot_ns"]
    assert before <= ours <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_the_resident_memory_of_every_process_is_what_smaps_rollup_says() -> None:
    with scene("parked", 20):
        same = settled(
            lambda pid: host.kilobytes(pid, "smaps_rollup", "Rss", "Anonymous"),
            lambda row: (row["rss"], row["rss_anon"]),
        )
        with_memory = [pid for pid in host.host_pids() if host.kilobytes(pid, "status", "VmSize")]
    # This process itself, and little else, changes while it looks.
    assert len(same) > len(with_memory) * 3 // 4


@pytest.mark.skipif(not _EXACT_VMRSS, reason="before Linux 6.2 /proc/PID/status is not exact")
def test_the_resident_memory_of_every_process_is_what_status_says() -> None:
    assert settled(
        lambda pid: host.kilobytes(pid, "status", "VmRSS", "RssAnon", "RssShmem"),
        lambda row: (row["rss"], row["rss_anon"], row["rss_shmem"]),
    )


def test_the_kinds_of_memory_are_told_apart() -> None:
    with scene("hold", 8192, 4096) as held:
        row = host.processes()[held.pid]
        rss, anonymous = host.kilobytes(held.pid, "smaps_rollup", "Rss", "Anonymous") or (0, 0)
    assert (row["rss"], row["rss_anon"], row["rss_shmem"]) == (rss, anonymous, 4096)
    assert 8192 <= anonymous < 8192 + 1024
    assert rss > anonymous + 4096


def test_percentages_are_whole_parts_of_ram_and_of_life() -> None:
    info = host.sysinfo()
    after_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for row in info["processes"]:
        assert row["mem_percent"] == row["rss"] * 100 // info["total_ram"]
        shortest = max(info["snapshot_ns"] - row["start_ns"], 1)
        longest = after_ns - row["start_ns"]
        assert row["cpu_ns"] * 100 // longest <= row["cpu"]
        assert row["cpu"] <= row["cpu_ns"] * 100 // max(shortest - 100, 1)


def test_size_start_parent_and_threads_of_every_process_are_what_stat_says() -> None:
    with scene("threads", 7) as threaded, scene("zombies", 2):
        same = settled(
            of_stat(20, 19, 1, 17),
            lambda row: (
                row["vsz"] * 1024,
                row["start_ns"] // (10**9 // _USER_HZ),
                row["ppid"],
                row["threads"],
            ),
        )
        row = host.processes()[threaded.pid]
    assert same[threaded.pid][2:] == (os.getpid(), 8)
    assert row["threads"] == 8


def test_a_process_starts_between_two_looks_at_the_boot_clock() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with scene("parked", 1) as parked:
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert before <= host.processes()[parked.pid]["start_ns"] <= after


def test_the_state_of_every_process_is_the_letter_in_stat() -> None:
    def letter(pid: int) -> int | None:
        found = host.stat(pid)
        return STATES[found[0]] if found else None

    with scene("zombies", 2) as dead, scene("parked", 1) as stopped, scene("burning") as burning:
        os.kill(stopped.pid, 19)
        host.eventually(lambda: holds(letter(stopped.pid) == 4))
        same = settled(letter, lambda row: row["state"])
        assert [same[pid] for pid in (*dead.pids, stopped.pid, burning.pid)] == [32, 32, 4, 0]


def test_the_name_of_every_process_is_its_comm() -> None:
    def name(pid: int) -> str | None:
        try:
            found = Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")
        except (FileNotFoundError, ProcessLookupError):
            return None
        # procfs has longer names for kernel threads, and adds to a worker's what it works on.
        return None if found.startswith(b"kworker") else found[:15].decode(errors="replace")

    assert settled(name, lambda row: row["name"])


def test_the_cpu_time_of_a_parked_process_is_exact() -> None:
    with scene("parked", 5) as parked, scene("threads", 20) as threaded:

        def look() -> None:
            rows = host.processes()
            for pid in (*parked.pids, threaded.pid):
                # Until all of its threads have come to rest, the clock has moved on.
                assert rows[pid]["cpu_ns"] == host.cpu_clock_ns(pid) == host.scheduler_ns(pid) > 0

        host.eventually(look)


def test_the_cpu_time_of_a_burning_process_lies_between_two_readings() -> None:
    with scene("burning") as burning:
        for _ in range(20):
            before = host.scheduler_ns(burning.pid)
            ours = host.processes()[burning.pid]["cpu_ns"]
            assert before <= ours <= host.scheduler_ns(burning.pid)
        assert ours > 0


def test_the_cpu_time_of_ended_threads_stays_their_process() -> None:
    with scene("ended-threads", 50, 20) as burned:

        def look() -> None:
            # Until its first thread has come to rest, the clock has moved on.
            ours = host.processes()[burned.pid]["cpu_ns"]
            assert ours == host.cpu_clock_ns(burned.pid)
            assert ours >= 50 * 20_000_000

        host.eventually(look)
        assert host.scheduler_ns(burned.pid) < 50 * 20_000_000


def test_cgroup_numbers_are_the_inodes_of_their_directories() -> None:
    v1 = "memory" in host.cgroup_hierarchies()

    def inodes(pid: int) -> tuple[int | None, int] | None:
        found = host.stat(pid)
        if v1 and found and found[0] in "ZX":
            return None  # of one that has ended, /proc tells the root instead (proc_cgroup_show)
        try:
            return host.cgroup_inode(pid, ""), host.cgroup_inode(pid, "memory") or 0
        except (FileNotFoundError, ProcessLookupError):
            return None

    unified = "" in host.cgroup_hierarchies()
    with scene("parked", 3), scene("zombies", 1) as dead, own_cgroup() as (directory, controller):
        with scene("parked", 2) as moved:
            for pid in moved.pids:
                (directory / "cgroup.procs").write_text(str(pid))
            same = settled(
                inodes, lambda row: (row["cgroup_id"] if unified else None, row["cgroup1_id"])
            )
            rows = host.processes()
        field = "cgroup1_id" if controller else "cgroup_id"
        for pid in moved.pids:
            assert rows[pid][field] == directory.stat().st_ino
        (ended,) = dead.pids
        # A zombie keeps the cgroup it ended in, which is its parent's here.
        assert rows[ended][field] == host.cgroup_inode(dead.process.pid, controller)
    assert v1 or ended in same
