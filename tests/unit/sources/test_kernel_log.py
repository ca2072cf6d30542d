"""OOM kills in the kernel's log: what counts, what is told, and what only looks like one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from agent.model.oom import LoggedKill
from agent.sources.kernel_log import KernelLog, Parser

BOX = "/docker/" + "ab" * 32
INVOKED = "4,100,7000000,-;stress invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, adj=0"
WHO = "4,101,7000001,-;CPU: 1 UID: 0 PID: 88 Comm: stress Not tainted 6.18.0 #1"
OLDER_WHO = "4,101,7000001,-;CPU: 1 PID: 88 Comm: stress Not tainted 6.1.0-50-amd64 #1"
LIMIT = (
    "6,102,7000002,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,"
    f"oom_memcg={BOX},task_memcg={BOX}/inner,task=stress,pid=91,uid=0"
)
HOST = (
    "6,102,7000002,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,"
    f"global_oom,task_memcg={BOX},task=stress,pid=91,uid=0"
)
KILLED = (
    "3,103,7000003,-;Memory cgroup out of memory: Killed process 91 (stress) total-vm:68924kB, "
    "anon-rss:32256kB, file-rss:12kB, shmem-rss:4kB, UID:0 pgtables:112kB oom_score_adj:-7"
)
BY_HOST = KILLED.replace("Memory cgroup out of memory", "Out of memory")


def kills(*records: str) -> list[LoggedKill]:
    return list(Parser().kills(records))


@pytest.mark.parametrize("who", [WHO, OLDER_WHO])
def test_a_kill_has_all_that_its_lines_say(who: str) -> None:
    (one,) = kills(INVOKED, who, LIMIT, KILLED)

    assert (one.pid, one.comm, one.oom_score_adj, one.is_limit) == (91, "stress", -7, True)
    assert one.memory == (32256, 12, 4, None)
    assert (one.limit_path, one.victim_path) == (BOX, f"{BOX}/inner")
    assert (one.trigger_pid, one.trigger_comm) == (88, "stress")
    assert one.logged_ns == 7_000_003_000


def test_a_kill_of_which_the_kernel_logged_no_details_is_one() -> None:
    (one,) = kills(KILLED)

    assert (one.pid, one.limit_path, one.trigger_pid) == (91, "", 0)


def test_the_details_of_another_kill_are_not_its() -> None:
    _, two = kills(INVOKED, WHO, LIMIT, KILLED, KILLED.replace("process 91", "process 92"))

    assert (two.pid, two.limit_path, two.trigger_pid) == (92, "", 0)


def test_the_hosts_memory_is_nobodys_limit() -> None:
    (one,) = kills(INVOKED, WHO, HOST, BY_HOST)

    assert (one.is_limit, one.limit_path, one.victim_path) == (False, "", BOX)


@pytest.mark.parametrize(
    "line",
    [
        KILLED.replace("3,103", "11,103"),  # user space wrote it to /dev/kmsg
        KILLED.replace("Killed process 91", "Killed process x"),
        "3,103,7000003,-;Memory cgroup out of memory and no killable processes...",
        "no record at all",
        "",
    ],
)
def test_what_only_looks_like_a_kill_is_none(line: str) -> None:
    assert kills(line) == []


def test_a_name_that_holds_the_kernels_words_is_a_name() -> None:
    name = "x) total-vm:1kB"
    (one,) = kills(KILLED.replace("(stress)", f"({name})"))

    assert (one.comm, one.memory.anon_kb) == (name, 32256)


def test_lines_below_a_record_are_no_part_of_it() -> None:
    (one,) = kills(f"{KILLED}\n SUBSYSTEM=memory\n DEVICE=+x:1")

    assert one.pid == 91


def test_what_was_logged_before_it_was_opened_is_not_told(tmp_path: Path) -> None:
    file = tmp_path / "kmsg"
    file.write_text(KILLED, encoding="utf-8")
    log = KernelLog.open(file)
    assert log is not None
    assert log.read() == ()
    with file.open("a", encoding="utf-8") as more:
        more.write(KILLED.replace("process 91", "process 95"))
    assert [one.pid for one in log.read()] == [95]
    log.close()


def test_one_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert KernelLog.open(tmp_path / "absent") is None
    assert os.access(tmp_path, os.R_OK)


def test_a_kernel_that_logs_without_end_keeps_no_reading_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = KernelLog.open(Path(os.devnull))
    assert log is not None
    records = itertools.chain(
        itertools.repeat(b"4,1,7000001,-;CPU: 1 PID: 88 Comm: stuck Not tainted", 20_000),
        [KILLED.encode()],
        itertools.repeat(b"4,2,7000004,-;Call Trace:"),
    )
    read = 0

    def one(fd: int, size: int) -> bytes:
        nonlocal read
        read += 1
        return next(records)

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", one)
        at_once = []
        while not (found := log.read()):
            at_once.append(read)
    log.close()

    assert [one.pid for one in found] == [91]
    assert max(after - before for before, after in itertools.pairwise([0, *at_once])) <= 10_000
