"""Faults among the containers: hundreds that come and go, one that will not go, memory at its end.

The agent's own record is held against what this test started and what Docker and the cgroup's own
counters say.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import rows
from tests.containers import (
    ALPINE,
    STRESS,
    cgroup_directory,
    first_pid,
    in_lab,
    inspect,
    wait_until,
)
from tests.vm.faults import support
from tests.vm.faults.support import PREFIX, SLEEP, Agent, assert_books_close, assert_no_leak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.containers import Containers
    from tests.vm.faults.support import Town

    Record = Callable[[str, object], None]

_AT_ONCE = 3
_MB = 1 << 20


@pytest.mark.full
@pytest.mark.parametrize("number", [60, 500])
def test_hundreds_of_containers_that_come_and_go_cost_nothing_and_are_never_mixed_up(
    config: Path, database: Path, town: Town, mine: Containers, record: Record, number: int
) -> None:
    started: dict[str, str] = {}

    def come_and_go(index: int) -> None:
        """A governed one that the agent may take first, or one that ends and removes itself."""
        name = f"{PREFIX}{1000 + index}" if index % 2 else f"passer-{index}"
        options = () if index % 2 else ("--rm",)
        command = SLEEP if index % 2 else ("sh", "-c", "sleep 0.2")
        identity = mine.run(ALPINE, command, name=name, options=options)
        started[identity[:12]] = name
        if index % 4 == 3:
            subprocess.run(["docker", "rm", "-f", identity], capture_output=True, check=False)

    with Agent(config) as agent:
        agent.warm()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for count, done in enumerate(pool.map(come_and_go, range(number)), 1):
                assert done is None
                if count % 50 == 0:
                    print(f"{count} of {number}, {agent.tick_lines[-1]}", flush=True)
        support.wait_gone(mine.ids())
        agent.more_ticks(3, " · 7 containers · ")
        assert_no_leak(agent, record)
        agent.end()
    assert len(started) == number
    ticks = assert_books_close(database, [agent])
    known = started | {identity[:12]: name for name, identity in town.all.items()}
    pairs = rows(database, "SELECT DISTINCT container_id, container_name FROM container_stats")
    named = [row for row in pairs if not row["container_name"].startswith("cgroup-")]
    assert all(known.get(row["container_id"]) == row["container_name"] for row in named)
    # One that came or went around Docker's list goes by its id alone. Natively there may be other
    # engines' containers too, which go by theirs.
    nameless = [row for row in pairs if row not in named and row["container_id"] in known]
    if in_lab():
        assert len(named) + len(nameless) == len(pairs)
    outcomes = Counter(row["outcome"] for row in support.removed(database))
    assert set(outcomes) <= {"removed", "gone"}, support.removed(database)
    assert sum(row["deleted_count"] for row in support.metrics(database)) == outcomes["removed"]
    print(f"\n{number} containers in {ticks} ticks; {len(pairs)} seen, {len(nameless)} of them")
    print(f"by their id alone; removals: {dict(outcomes)}")
    town.assert_none_decided_on(database)
    town.assert_unharmed()


@contextmanager
def unremovable(container: str) -> Iterator[None]:
    """A file in the container's upper directory that not even root can delete."""
    file = Path(inspect(container)["GraphDriver"]["Data"]["UpperDir"], "fixed")
    file.touch()
    support.run("chattr", "+i", str(file))
    try:
        yield
    finally:
        if file.exists():
            support.run("chattr", "-i", str(file))


@pytest.mark.full
def test_one_that_cannot_be_removed_fails_alone_and_goes_when_it_can(
    config: Path, database: Path, town: Town, mine: Containers, record: Record
) -> None:
    with Agent(config) as agent:
        agent.warm()
        # Made before it counts, so that no pass takes it first: ungoverned until it is renamed.
        stuck = mine.run(ALPINE, SLEEP, name="stuck")
        with unremovable(stuck):
            support.run("docker", "rename", stuck, f"{PREFIX}66")
            agent.wait_for("outcome=failed")
            agent.more_ticks(5)
            town.assert_unharmed()
            assert support.exists(stuck)
            # Another excess meanwhile is dealt with as ever.
            support.wait_gone(support.surplus(mine, 1))
        support.wait_gone([stuck])
        agent.more_ticks(2, " · 7 containers · ")
        assert_no_leak(agent, record)
        agent.end()
    assert_books_close(database, [agent])
    told = [row for row in support.removed(database) if row["container_id"] == stuck[:12]]
    assert [row["outcome"] for row in told][-1] in ("removed", "gone")
    assert {row["outcome"] for row in told[:-1]} == {"failed"}
    assert all(row["error"] for row in told[:-1])
    town.assert_none_decided_on(database)
    town.assert_unharmed()


@pytest.mark.full
def test_a_container_at_its_memorys_end_is_counted_and_disturbs_nobody(
    config: Path, database: Path, town: Town, mine: Containers, record: Record
) -> None:
    with Agent(config) as agent:
        agent.warm()
        command = ["sh", "-c", "while true; do stress -q --vm 1 --vm-bytes 200M --vm-keep; done"]
        hog = mine.run(STRESS, command, name="hog", options=("--memory=32m",))
        directory = cgroup_directory(first_pid(hog))
        wait_until(lambda: oom_kills(directory) >= 3, "the kernel has killed in it")
        agent.more_ticks(2)
        most = oom_kills(directory)
        told = "SELECT sum(oom_kills) AS n FROM container_totals WHERE container_name = 'hog'"
        wait_until(lambda: rows(database, told)[0]["n"], "the kills are told")
        support.run("docker", "rm", "-f", hog)
        agent.more_ticks(2, " · 7 containers · ")
        assert_no_leak(agent, record)
        agent.end()
    print(f"\n{rows(database, told)[0]['n']} kills told, the cgroup counted at least {most}")
    assert_books_close(database, [agent])
    assert support.removed(database) == []
    town.assert_unharmed()


def oom_kills(directory: Path) -> int:
    for name in ("memory.events", "memory.oom_control"):
        try:
            text = (directory / name).read_text(encoding="ascii")
        except OSError:
            continue
        figures = dict(line.split() for line in text.splitlines())
        return int(figures["oom_kill"])
    return 0


@contextmanager
def memory_cgroup(limit_mb: int) -> Iterator[Path]:
    """A cgroup with a limit of memory, on either version; its processes go back at the end."""
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    parent = root if unified else root / "memory"
    directory = parent / "so1-fault"
    if unified:
        (root / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    directory.mkdir()
    try:
        file = directory / ("memory.max" if unified else "memory.limit_in_bytes")
        file.write_text(str(limit_mb * _MB), encoding="ascii")
        yield directory
    finally:
        for pid in (directory / "cgroup.procs").read_text(encoding="ascii").split():
            (parent / "cgroup.procs").write_text(pid, encoding="ascii")
        directory.rmdir()


_HOG = """
import sys, time
open("/proc/self/oom_score_adj", "w").write("1000")
open(sys.argv[1] + "/cgroup.procs", "w").write(str(__import__("os").getpid()))
kept = []
while True:
    kept.append(b"x" * (1 << 20))
"""


@pytest.mark.any_kernel
def test_memory_that_runs_out_beside_the_agent_leaves_the_agent_running(
    config: Path, database: Path, town: Town, record: Record
) -> None:
    with Agent(config) as agent, memory_cgroup(96) as directory:
        agent.warm()
        (directory / "cgroup.procs").write_text(str(agent.pid), encoding="ascii")
        for _ in itertools.repeat(None, 4):
            hog = subprocess.run(
                [sys.executable, "-c", _HOG, str(directory)], capture_output=True, timeout=300
            )
            assert hog.returncode == -9, hog.stderr
            agent.more_ticks(1)
        assert oom_kills(directory) >= 4
        assert_no_leak(agent, record)
        agent.end()
    assert agent.count("not stored") == 0
    assert_books_close(database, [agent])
    assert support.removed(database) == []
    town.assert_unharmed()
