"""OOM kills in a guest: the host's memory used up, groups, and loops without a victim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import containers
from tests.agent_process import AgentProcess
from tests.bpf_agent_cases import Place, place
from tests.bpf_cases import boxes
from tests.bpf_support import cgroup_of, unified
from tests.containers import docker, wait_until
from tests.oom_cases import (
    Ground,
    Kmsg,
    OomCases,
    eater,
    ground,
    kills,
    kmsg,
    shared,
    wait_for_kills,
    wait_for_log,
    wait_for_row_of,
)
from tests.vm.test_bpf_witness import image

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

__all__ = ["boxes", "eater", "ground", "image", "kmsg", "place", "shared"]


def host_mb() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no MemTotal")


@pytest.mark.usefixtures("image")
class TestOom(OomCases):
    words = ("--source", "modules")

    @pytest.mark.usefixtures("agent")
    def test_the_host_out_of_memory(self, place: Place, ground: Ground, kmsg: Kmsg) -> None:
        """The kernel's log names no limit here; the lab allows victims of these names."""
        holder = ground.run(
            ["name", "so1-oom-holder", "grow", "200", "make", "/s/held", "pause"],
            *("--oom-score-adj", "1000"),
            name="so1-oom-holder",
        )
        grower = ground.run(
            ["name", "so1-oom-grower", "wait", "/s/go", "grow", "99999"],
            name="so1-oom-host-grower",
        )
        wait_until((ground.shared / "held").exists, "the holder holds")
        wait_for_row_of(place, holder, "so1-oom-holder")
        wait_for_row_of(place, grower, "so1-oom-grower")
        pids = {one: containers.first_pid(one) for one in (holder, grower)}
        ground.go()

        logged = wait_for_log(kmsg, 2)
        found = wait_for_kills(place, set(logged))

        assert set(logged) == set(pids.values())
        first = found[pids[holder]]
        assert {row["cause"] for row in found.values()} == {"host"}
        assert {row["limit_cgroup"] for row in found.values()} == {""}
        assert first["limit_mb"] == pytest.approx(host_mb(), abs=1)
        assert (first["container_name"], first["process_name"]) == (
            *("so1-oom-holder", "so1-oom-holder"),
        )
        assert (first["grower_name"], first["grower_container"]) == (
            *("so1-oom-grower", "so1-oom-host-grower"),
        )
        assert first["anon_mb"] == pytest.approx(logged[pids[holder]][1] / 1024, abs=2)
        assert found[pids[grower]]["grower_pid"] == pids[grower]

    @pytest.mark.usefixtures("agent")
    def test_one_that_was_asked_for_at_the_console(
        self, place: Place, ground: Ground, kmsg: Kmsg
    ) -> None:
        box = ground.run(
            ["name", "so1-oom-asked", "grow", "30", "make", "/s/held", "pause"],
            *("--oom-score-adj", "1000"),
        )
        wait_until((ground.shared / "held").exists, "it holds")
        pid = containers.first_pid(box)
        wait_for_row_of(place, box)
        Path("/proc/sysrq-trigger").write_text("f", encoding="ascii")

        assert set(wait_for_log(kmsg, 1)) == {pid}
        row = wait_for_kills(place, {pid})[pid]

        assert (row["cause"], row["container_id"], row["limit_cgroup"]) == ("sysrq", box[:12], "")

    @pytest.mark.skipif(not unified(), reason="memory.oom.group is of cgroup v2")
    @pytest.mark.usefixtures("agent")
    def test_a_group_that_dies_together(self, place: Place, ground: Ground, kmsg: Kmsg) -> None:
        box = ground.run(
            [
                *("spawn", "name", "first", "wait", "/s/go", "grow", "90", "also"),
                *("fork", "3", "grow", "4", "pause"),
            ],
            # Without a namespace of its own: as its init dies the kernel ends all others in it, and
            # those that are dead before their turn are no kills.
            *("-m", "64m", "--memory-swap", "64m", "--pid=host"),
        )
        cgroup = cgroup_of(containers.first_pid(box))
        (cgroup / "memory.oom.group").write_text("1", encoding="ascii")
        wait_for_row_of(place, box)
        pids = set(map(int, (cgroup / "cgroup.procs").read_text(encoding="ascii").split()))
        assert len(pids) == 5
        ground.go()
        wait_until(
            lambda: docker("inspect", "-f", "{{.State.Running}}", box) == "false", "all are dead"
        )

        logged = set(kmsg.read())
        wait_for_kills(place, logged)

        # The kernel's own counter has one more: it counts the first victim twice.
        assert logged == pids
        mine = [row["pid"] for row in kills(place) if row["container_id"] == box[:12]]
        assert sorted(mine) == sorted(pids)

    @pytest.mark.usefixtures("agent", "quiet_console")
    def test_a_loop_without_anybody_to_kill_is_no_kill(
        self, place: Place, ground: Ground, agent: AgentProcess
    ) -> None:
        limit = ("-m", "24m", "--memory-swap", "24m")
        stuck = ground.run(["wait", "/s/go", "grow", "90"], *limit)
        other = ground.run(["wait", "/s/other", "grow", "90"], *limit)
        pid, killed = containers.first_pid(stuck), containers.first_pid(other)
        cgroup = cgroup_of(pid)
        for box in (stuck, other):
            wait_for_row_of(place, box)
        immune = Path(f"/proc/{pid}/oom_score_adj")
        immune.write_text("-1000", encoding="ascii")
        try:
            ground.go()
            wait_until(lambda: failures(cgroup) >= 50, "it loops")
            ground.go("other")
            # The engine is the oracle: the loop's lines push others out of the kernel's log.
            wait_until(lambda: is_killed(other), "the other is killed")

            row = wait_for_kills(place, {killed})[killed]
            assert Path(f"/proc/{pid}").exists()
        finally:
            immune.write_text("0", encoding="ascii")

        assert (row["container_id"], row["cause"], row["limit_mb"]) == (other[:12], "limit", 24.0)
        # With the loop's end it is a victim as any other.
        wait_until(lambda: is_killed(stuck), "the loop has ended")
        wait_for_kills(place, {killed, pid})
        assert [one["pid"] for one in kills(place)] == [killed, pid]


@pytest.fixture
def quiet_console() -> Iterator[None]:
    """A serial console takes longer for a line than a loop that logs without end."""
    level = Path("/proc/sys/kernel/printk")
    before = level.read_text(encoding="ascii")
    level.write_text("1", encoding="ascii")
    yield
    level.write_text(before, encoding="ascii")


def is_killed(box: str) -> bool:
    """By SIGKILL; whether by the OOM killer not every engine says on cgroup v2."""
    state = containers.inspect(box)["State"]
    return not state["Running"] and state["ExitCode"] == 137


def failures(cgroup: Path) -> int:
    """How often a cgroup found no memory below its limit."""
    if not unified():
        # The limit of memory and swap together is asked first.
        files = [cgroup / f"memory.{one}failcnt" for one in ("", "memsw.")]
        return sum(int(one.read_text(encoding="ascii")) for one in files if one.exists())
    for line in (cgroup / "memory.events").read_text(encoding="ascii").splitlines():
        if line.startswith("oom "):
            return int(line.split()[1])
    raise AssertionError("no oom in memory.events")
