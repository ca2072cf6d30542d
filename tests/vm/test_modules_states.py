"""Candidates, zombies, threads and freezers: odd states in both modules."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.vm import modules_support as host
from tests.vm.figures_support import holds, own_cgroup, remove_cgroup
from tests.vm.modules_support import scene

pytestmark = pytest.mark.usefixtures("modules")


PF_KTHREAD = 0x00200000


def test_candidates_are_all_in_a_uts_or_pid_namespace_of_their_own_and_no_others() -> None:
    init = host.namespace(1, "pid"), host.namespace(1, "uts")

    def look() -> None:
        def numbers() -> dict[int, tuple[int | None, int | None]]:
            return {
                pid: (host.namespace(pid, "pid"), host.namespace(pid, "uts"))
                for pid in host.host_pids()
            }

        before = numbers()
        ours = host.candidates()
        after = numbers()
        stayed = {pid for pid, pair in before.items() if after.get(pid) == pair and pair[0]}
        # A zombie is in no UTS namespace any more.
        foreign = {
            pid: (before[pid][0], before[pid][1] or 0)
            for pid in stayed
            if before[pid][0] != init[0] or before[pid][1] not in (init[1], None)
        }
        assert {pid: ours[pid]["ns_pid"] for pid in foreign} == {
            pid: int(host.fields(pid, "status")["NSpid"].split()[-1]) for pid in foreign
        }
        assert {pid: (ours[pid]["pid_ns"], ours[pid]["uts_ns"]) for pid in foreign} == foreign
        assert not set(ours) & (stayed - set(foreign))
        for pid in (*uts.pids, *inside):
            assert pid in foreign

    with (
        scene("parked", 2, prefix=("unshare", "--uts")) as uts,
        scene("parked", 2, prefix=("unshare", "--pid", "--fork")) as pids,
    ):
        inside = descendants(pids.process.pid)
        assert len(inside) == 3
        host.eventually(look)
        both = host.processes()
        for pid, row in host.candidates().items():
            if pid in (*uts.pids, *inside):
                assert {key: row[key] for key in ("start_ns", "rss", "cgroup_id")} == {
                    key: both[pid][key] for key in ("start_ns", "rss", "cgroup_id")
                }


def descendants(pid: int) -> list[int]:
    """All children of `pid`, theirs, and so on, from stat."""
    parents: dict[int, int] = {}
    for child in host.host_pids():
        if fields := host.stat(child):
            parents[child] = int(fields[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in descendants(child)]


def test_a_zombie_has_its_state_and_cgroup_and_no_memory() -> None:
    with scene("zombies", 3) as dead:
        rows = host.processes()
        for pid in dead.pids:
            row = rows[pid]
            assert row["state"] == 32
            assert [row[key] for key in ("rss", "rss_anon", "rss_shmem", "vsz", "mm_id")] == [0] * 5
            assert row["cgroup_id"] == rows[dead.process.pid]["cgroup_id"]
            assert row["ppid"] == dead.process.pid
            assert row["cpu_ns"] > 0


def test_a_process_whose_leader_ended_first_keeps_its_memory_and_follows_its_cgroup() -> None:
    with own_cgroup() as (directory, controller), scene("dead-leader") as left:
        # The other thread may be there before the first one has quite ended.
        host.eventually(lambda: holds((host.stat(left.pid) or "?")[0] == "Z"))
        (thread,) = host.threads(left.pid) - {left.pid}
        text = Path(f"/proc/{left.pid}/task/{thread}/smaps").read_text()
        rss = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Rss:"))
        row = host.processes()[left.pid]
        assert (row["state"], row["rss"], row["threads"]) == (32, rss, 2)
        assert rss > 1024
        assert row["mm_id"]
        (directory / "cgroup.procs").write_text(str(thread))
        field = "cgroup1_id" if controller else "cgroup_id"
        assert host.processes()[left.pid][field] == directory.stat().st_ino


def test_kernel_threads_are_there_without_memory() -> None:
    rows = host.processes()
    kernel = {
        pid: rows[pid]
        for pid in host.host_pids() & set(rows)
        if (found := host.stat(pid)) and int(found[6]) & PF_KTHREAD
    }
    assert len(kernel) > 20
    for row in kernel.values():
        assert [row[key] for key in ("rss", "vsz", "mm_id", "rss_anon", "mem_percent")] == [0] * 5
    assert not set(kernel) & set(host.candidates())


def test_a_process_that_executes_itself_from_other_threads_is_always_there_once() -> None:
    with scene("exec-loop") as busy:
        start = host.processes()[busy.pid]["start_ns"]
        deadline = time.monotonic() + 60
        while executed(busy.pid) < 100 and time.monotonic() < deadline:
            row = host.processes()[busy.pid]
            assert row["start_ns"] == start
            assert row["name"] in {"exe", "scene"}
        assert executed(busy.pid) >= 100


def executed(pid: int) -> int:
    """How often the scene exec-loop has executed itself; 0 while it does so."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return int(words[2]) if len(words) > 3 else 0


def test_a_frozen_process_of_a_v1_freezer_is_uninterruptible() -> None:
    freezer = host.cgroup_hierarchies().get("freezer")
    if freezer is None:
        pytest.skip("needs a boot with cgroup v1 (--cgroup v1)")
    directory = freezer / "so1-test-frozen"
    directory.mkdir()
    try:
        with scene("parked", 1) as parked:
            (directory / "cgroup.procs").write_text(str(parked.pid))
            (directory / "freezer.state").write_text("FROZEN")
            host.eventually(lambda: holds((host.stat(parked.pid) or "?")[0] == "D"))
            assert host.processes()[parked.pid]["state"] == 2
            (directory / "freezer.state").write_text("THAWED")
    finally:
        remove_cgroup(directory)


def test_programs_read_the_files_as_they_read_any_other(tmp_path: Path) -> None:
    for path in (host.SYSINFO, host.CONTINFO):
        copy = tmp_path / path.name
        subprocess.run(["cp", path, copy], check=True)
        subprocess.run(["jq", "-e", ".", copy], check=True, stdout=subprocess.DEVNULL)
        sent = tmp_path / "sent"
        with path.open("rb") as source, sent.open("wb") as target:
            while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
                pass
        subprocess.run(["jq", "-e", ".", sent], check=True, stdout=subprocess.DEVNULL)
