"""OOM kills on a real kernel: what the agent stores of each, against the kernel's own log.

The same cases run natively and in guests. Collected through a subclass that gives `image`, `words`.
The oracle is `/dev/kmsg`, read and parsed here, and the cgroup's own counters.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import containers
from tests.agent_process import AgentProcess, rows, run_agent
from tests.bpf_agent_cases import QUIET, Place
from tests.bpf_support import cgroup_of, unified
from tests.containers import docker, wait_until

PROGRAM = Path(__file__).parent / "programs" / "eater.c"
INTERVAL_S = 4
_LINES_AT_ONCE = 20_000
_KILLED = re.compile(
    r"(.*)[Oo]ut of memory.*: Killed process (\d+) \((.*)\) total-vm:\d+kB, anon-rss:(\d+)kB, "
    r"file-rss:(\d+)kB, shmem-rss:(\d+)kB"
)
_LIMIT = re.compile(r"oom-kill:constraint=CONSTRAINT_MEMCG,.*oom_memcg=([^,]*),.*,pid=(\d+),")


@dataclass(slots=True)
class Kmsg:
    """The kernel's log from when it was opened, as this test reads it."""

    fd: int
    killed: dict[int, tuple[str, int]] = field(default_factory=dict)
    """By pid: its name, and KB of anonymous memory."""
    limits: dict[int, str] = field(default_factory=dict)
    """By pid: the cgroup at its limit, where the kernel logged it."""

    def read(self) -> dict[int, tuple[str, int]]:
        # A kernel that logs without end would otherwise keep this from returning.
        for _ in range(_LINES_AT_ONCE):
            try:
                line = os.read(self.fd, 8192).decode("utf-8", "replace")
            except BrokenPipeError:
                continue
            except BlockingIOError:
                return self.killed
            text = line.partition(";")[2]
            if match := _KILLED.match(text):
                self.killed[int(match[2])] = (match[3], int(match[4]))
            elif match := _LIMIT.match(text):
                self.limits[int(match[2])] = match[1]
        return self.killed


@pytest.fixture
def kmsg() -> Iterator[Kmsg]:
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        pytest.skip(f"needs the kernel's log: {error}")
    os.lseek(fd, 0, os.SEEK_END)
    yield Kmsg(fd)
    os.close(fd)


@pytest.fixture(scope="module")
def eater() -> Iterator[Path]:
    """The directory of the program that eats memory, static."""
    directory = Path(tempfile.mkdtemp(prefix="so1-eater-", dir="/var/tmp"))
    directory.chmod(0o755)
    subprocess.run(
        ["gcc", "-O2", "-static", "-o", directory / "eater", PROGRAM],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that containers and the test see, by which they wait for each other."""
    directory = Path(tempfile.mkdtemp(prefix="so1-oom-", dir="/var/tmp"))
    yield directory
    shutil.rmtree(directory)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where eaters run."""

    boxes: containers.Containers
    image: str
    eater: Path
    shared: Path

    def run(self, words: Sequence[str], *options: str, name: str | None = None) -> str:
        mounts = ["-v", f"{self.eater}:/eater:ro", "-v", f"{self.shared}:/s"]
        return self.boxes.run(
            self.image, ["/eater/eater", *words], name=name, options=[*mounts, *options]
        )

    def go(self, file: str = "go") -> None:
        (self.shared / file).touch()


@pytest.fixture
def ground(boxes: containers.Containers, image: str, eater: Path, shared: Path) -> Ground:
    return Ground(boxes, image, eater, shared)


def kills(place: Place) -> list[dict[str, Any]]:
    return rows(place.database, "SELECT * FROM oom_kills ORDER BY id")


def wait_for_kills(place: Place, pids: set[int]) -> dict[int, dict[str, Any]]:
    """The stored kills by pid, once all of these are there."""

    def all_there() -> dict[int, dict[str, Any]] | None:
        found = {row["pid"]: row for row in kills(place)}
        return found if pids <= found.keys() else None

    found: dict[int, dict[str, Any]] = wait_until(all_there, f"rows of {pids}", timeout_s=120)
    return found


def wait_for_log(kmsg: Kmsg, number: int) -> dict[int, tuple[str, int]]:
    found: dict[int, tuple[str, int]] = wait_until(
        lambda: kmsg.read() if len(kmsg.read()) >= number else None, f"{number} kills in the log"
    )
    return found


def counted(cgroup: Path) -> int:
    """Kills by the cgroup's own counter."""
    name = "memory.events" if unified() else "memory.oom_control"
    for line in (cgroup / name).read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    raise AssertionError(f"no oom_kill in {name}")


class OomCases:
    """One agent for all kills of a test."""

    words: tuple[str, ...] = ()

    @pytest.fixture
    def agent(self, place: Place) -> Iterator[AgentProcess]:
        words = ("--config", str(place.config), *QUIET, "--interval", str(INTERVAL_S), *self.words)
        with AgentProcess(words) as one:
            one.wait_for("bpf=ready")
            yield one

    @pytest.mark.usefixtures("agent")
    def test_a_container_at_its_own_limit(self, place: Place, ground: Ground, kmsg: Kmsg) -> None:
        box = ground.run(
            ["spawn", "wait", "/s/go", "name", "hungry", "grow", "90", "also", "pause"],
            *("-m", "32m", "--memory-swap", "32m"),
            name="so1-oom-own",
        )
        cgroup = cgroup_of(containers.first_pid(box))
        wait_for_row_of(place, box)
        ground.go()

        ((pid, (name, anon_kb)),) = wait_for_log(kmsg, 1).items()
        row = wait_for_kills(place, {pid})[pid]

        assert (row["process_name"], row["container_id"]) == (name, box[:12])
        assert (name, row["container_name"]) == ("hungry", "so1-oom-own")
        assert (row["cause"], row["limit_container"], row["limit_mb"]) == (
            *("limit", "so1-oom-own"),
            32.0,
        )
        assert row["limit_mb"] - 1 <= row["used_mb"] <= row["limit_mb"]
        assert row["anon_mb"] == pytest.approx(anon_kb / 1024, abs=2)
        assert (row["trigger_pid"], row["trigger_name"]) == (pid, "hungry")
        assert (row["grower_pid"], row["grower_name"]) == (pid, "hungry")
        assert box in row["limit_cgroup"]
        assert row["limit_cgroup"].endswith(kmsg.limits.get(pid, row["limit_cgroup"]))
        assert counted(cgroup) == 1
        assert row["witnesses"] == "bpf,kernel-log,memory.events"
        self.shown(place, row, "hungry", "so1-oom-own", "32.0 MB")

    def shown(self, place: Place, row: dict[str, Any], *words: str) -> None:
        """The commands say the same."""
        where = ("--database", str(place.database))
        told = run_agent("oom", str(row["id"]), *where)
        assert told.returncode == 0, told.stderr
        assert all(word in told.stdout for word in words), told.stdout
        listed = json.loads(run_agent("oom", "--json", *where).stdout)
        assert row["pid"] in {one["pid"] for one in listed["kills"]}
        whose = run_agent("who", str(row["pid"]), "--config", str(place.config))
        assert f"status 137, OOM (agent oom {row['id']})" in whose.stdout, whose.stdout
        assert row["container_name"] in whose.stdout

    @pytest.mark.usefixtures("agent")
    def test_one_that_is_gone_before_a_tick_saw_it(
        self, place: Place, ground: Ground, kmsg: Kmsg
    ) -> None:
        box = ground.run(
            ["grow", "90"], *("--rm", "-m", "24m", "--memory-swap", "24m"), name="so1-oom-rm"
        )
        wait_until(lambda: box not in docker("ps", "-aq", "--no-trunc"), "it is gone")

        (pid,) = wait_for_log(kmsg, 1)
        row = wait_for_kills(place, {pid})[pid]

        assert (row["container_id"], row["container_name"]) == (box[:12], "so1-oom-rm")
        assert (row["image"], row["cause"], row["limit_mb"]) == (ground.image, "limit", 24.0)
        assert row["grower_pid"] == pid
        assert row["witnesses"].startswith("bpf,kernel-log")

    @pytest.mark.usefixtures("agent")
    def test_many_in_a_moment_have_a_row_each(
        self, place: Place, ground: Ground, kmsg: Kmsg
    ) -> None:
        box = ground.run(
            ["fork", "12", "wait", "/s/go", "grow", "90"], "-m", "48m", "--memory-swap", "48m"
        )
        wait_for_row_of(place, box)
        ground.go()
        wait_until(
            lambda: docker("inspect", "-f", "{{.State.Running}}", box) == "false", "all are dead"
        )

        logged = kmsg.read()
        found = wait_for_kills(place, set(logged))

        assert len(logged) >= 11
        mine = [row for row in kills(place) if row["container_id"] == box[:12]]
        # One that dies with the container's init anyway is marked as a victim too, and not logged.
        pids = [row["pid"] for row in mine]
        assert set(logged) <= set(pids)
        assert len(set(pids)) == len(pids) <= 13
        assert {row["cause"] for row in found.values()} == {"limit"}
        stamps = [row["timestamp"] for row in kills(place)]
        assert stamps == sorted(stamps)

    @pytest.mark.usefixtures("agent")
    def test_one_in_a_cgroup_inside_its_container(
        self, place: Place, ground: Ground, kmsg: Kmsg
    ) -> None:
        box = ground.run(["wait", "/s/go", "grow", "90"], "-m", "32m", "--memory-swap", "32m")
        pid = containers.first_pid(box)
        inner = cgroup_of(pid) / "inner"
        inner.mkdir()
        (inner / "cgroup.procs").write_text(str(pid), encoding="ascii")
        wait_for_row_of(place, box)
        ground.go()

        assert set(wait_for_log(kmsg, 1)) == {pid}
        row = wait_for_kills(place, {pid})[pid]

        assert (row["container_id"], row["cause"], row["limit_mb"]) == (box[:12], "limit", 32.0)
        assert box in row["limit_cgroup"]

    @pytest.mark.usefixtures("agent")
    def test_the_one_that_grew_is_named_where_another_is_killed(
        self, place: Place, ground: Ground, kmsg: Kmsg
    ) -> None:
        box = ground.run(
            [
                *("spawn", "name", "holder", "adj", "900", "grow", "40", "make", "/s/held"),
                *("pause", "also", "name", "grower", "wait", "/s/go", "grow", "36"),
                *("make", "/s/grown", "pause"),
            ],
            *("-m", "64m", "--memory-swap", "64m"),
            name="so1-oom-grower",
        )
        wait_until((ground.shared / "held").exists, "the holder holds")
        wait_for_row_of(place, box, "holder")
        ground.go()
        wait_until((ground.shared / "grown").exists, "the grower has grown")

        ((pid, (name, _)),) = wait_for_log(kmsg, 1).items()
        row = wait_for_kills(place, {pid})[pid]

        assert (name, row["process_name"]) == ("holder", "holder")
        assert (row["grower_name"], row["trigger_name"]) == ("grower", "grower")
        assert row["grower_pid"] == containers.first_pid(box)
        assert row["grown_mb"] == pytest.approx(36, abs=2)
        assert row["oom_score_adj"] == 900
        beside = {one["name"]: one for one in json.loads(row["beside"])}
        assert beside["holder"]["state"] == "killed"
        assert beside["grower"]["state"] == "lived"
        assert beside["holder"]["grown_mb"] < 2


def wait_for_row_of(place: Place, box: str, name: str = "") -> None:
    """Until a tick has seen the container with its processes."""
    wait_until(
        lambda: rows(
            place.database,
            "SELECT 1 FROM container_stats WHERE container_id = ? AND process_name LIKE ?",
            box[:12],
            f"{name}%",
        ),
        "a tick sees it",
        timeout_s=120,
    )
