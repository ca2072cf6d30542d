"""The agent with its second witness: what it stores, what it keeps out, and what it leaves behind.

Collected through a subclass that gives `image` and `words` (the process source to use). The oracle
is Docker's word, `cgroup.procs`, the numbers that the storms were asked for, and bpftool.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests import containers
from tests.agent_process import AgentProcess, rows
from tests.bpf_support import (
    Storm,
    cgroup_of,
    cgroup_usage_ns,
    lying,
    program_ids,
    programs_there,
    storm,
)
from tests.containers import docker, wait_until

PREFIX = "so1_contenedor_"
QUIET = ("--no-grafana", "--no-cron")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent of a test keeps everything."""

    directory: Path
    config: Path
    database: Path


@pytest.fixture
def place() -> Iterator[Place]:
    parent = Path("/var/lib/so1-test")
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bpf-", dir=parent))
    config = directory / "agent.toml"
    config.write_text(
        f'docker_host = "{containers.HOST}"\n'
        "[policy]\nmax_containers = 2\nkeep_low = 1\nkeep_high = 1\n"
        f'[paths]\nrun = "{directory}/run"\nlog = "{directory}/log"\n'
        f'database = "{directory}/metrics.db"\nbpf = "{directory}/bpf"\n',
        encoding="utf-8",
    )
    yield Place(directory, config, directory / "metrics.db")
    shutil.rmtree(directory)


@pytest.fixture
def two(boxes: containers.Containers, image: str, program: Path) -> Iterator[tuple[Storm, Storm]]:
    """Two containers that nobody governs."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(storm(boxes, image, program)) for _ in range(2))
        yield first, second


def agent(place: Place, *more: str, env: Mapping[str, str] | None = None) -> AgentProcess:
    return AgentProcess(("--config", str(place.config), *QUIET, *more), env or {})


def wait_for_row(place: Place, query: str, *values: object, what: str) -> None:
    wait_until(
        lambda: place.database.exists() and rows(place.database, query, *values),
        what,
        timeout_s=300,
    )


def helper_of(agent_pid: int) -> int:
    """The pid of the agent's child that compiles; 0 while there is none."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            parent = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes()
            if int(parent) == agent_pid and b"agent.sources.bpf.compiler" in command:
                return int(entry.name)
    return 0


def look_at(helper: int, loaded: set[int]) -> bool:
    """Whether the process is there; what programs it holds is added to `loaded`."""
    try:
        loaded.update(program_ids(helper))
    except OSError:
        return False
    return True


def what_a_life_costs_s(boxes: containers.Containers, program: Path) -> float:
    """By the kernel's own counter: a second's burn, and what runc spends in the cgroup before."""
    shell = ("sh", "-c", "/storm/storm burn 1000 && exec sleep 600")
    box = boxes.run(containers.ALPINE, shell, options=("-v", f"{program.parent}:/storm:ro"))
    first = containers.first_pid(box)
    wait_until(lambda: b"sleep" in Path(f"/proc/{first}/cmdline").read_bytes()[:6], "it has burnt")
    return cgroup_usage_ns(cgroup_of(first), first) / 10**9


class BpfAgentCases:
    """One agent a test."""

    words: tuple[str, ...] = ()

    def test_the_first_tick_does_not_wait_and_later_rows_agree(
        self, place: Place, two: tuple[Storm, Storm]
    ) -> None:
        with agent(place, "--interval", "3", *self.words) as one:
            one.wait_for_tick(1)
            first = rows(place.database, "SELECT verified FROM container_stats ORDER BY id")
            assert {row["verified"] for row in first} == {"unverified"}
            one.wait_for("bpf=ready")
            wait_for_row(
                place, "SELECT 1 FROM attribution_checks WHERE agree > 0", what="rows that agree"
            )
            last = rows(
                place.database,
                "SELECT pid, container_id, verified, basis FROM container_stats"
                " WHERE timestamp = (SELECT MAX(timestamp) FROM container_stats)",
            )
            for box in two:
                mine = [row for row in last if row["container_id"] == box.container[:12]]
                assert {row["pid"] for row in mine} == {box.pid}
                assert {(row["verified"], row["basis"]) for row in mine} == {("agree", "cgroup")}
            one.signal(signal.SIGINT)
            assert one.wait_end() == 0, one.output

    def test_starts_exits_and_cpu_add_up_over_the_ticks(
        self, place: Place, two: tuple[Storm, Storm]
    ) -> None:
        box, number = two[0], 2000
        with agent(place, "--interval", "3", *self.words) as one:
            one.wait_for("bpf=ready")
            identity = box.container[:12]
            known = "SELECT 1 FROM container_totals WHERE container_id = ? AND starts IS NOT NULL"
            wait_for_row(place, known, identity, what="an account of the container")
            usage = box.usage_ns()
            box.do("fork", number)
            box.do("burn", 1000)
            spent = (box.usage_ns() - usage) / 1e9
            summed = (
                "SELECT SUM(starts) AS starts, SUM(exits) AS exits FROM container_totals"
                " WHERE container_id = ?"
            )
            wanted = {"starts": number + 1, "exits": number + 1}
            wait_until(
                lambda: rows(place.database, summed, identity) == [wanted],
                "all starts and exits are in the table",
                timeout_s=120,
            )
            ticks = rows(
                place.database,
                "SELECT timestamp, cpu_usage, cpu_short_lived, cpu_unexplained"
                " FROM container_totals WHERE container_id = ? ORDER BY timestamp",
                identity,
            )
            commands = rows(
                place.database,
                "SELECT parent_name, process_name, count, cpu_ms, peak_rss_mb FROM short_lived"
                " WHERE container_id = ?",
                identity,
            )
            one.signal(signal.SIGTERM)
            assert one.wait_end() == 0, one.output
        cpu = short = unexplained = 0.0
        for before, after in pairwise(ticks):
            if after["cpu_unexplained"] is not None:
                interval_s = (after["timestamp"] - before["timestamp"]) / 1000
                cpu += after["cpu_usage"] / 100 * interval_s
                short += after["cpu_short_lived"] / 100 * interval_s
                unexplained += after["cpu_unexplained"] / 100 * interval_s
        print(
            f"\nCPU {spent:.3f} s by the cgroup; stored {cpu:.3f}, of it short-lived {short:.3f}, "
            f"unexplained {unexplained:+.3f}"
        )
        named = [row for row in commands if row["process_name"] == "storm"]
        # Some were there when a snapshot was taken, and are in that.
        assert 0.95 * number < sum(row["count"] for row in named) <= number + 1
        assert {row["parent_name"] for row in named} == {"storm"}
        assert all(row["peak_rss_mb"] > 0 for row in named)
        assert sum(row["count"] for row in commands if row not in named) == 0
        named_s = sum(row["cpu_ms"] for row in commands) / 1000
        assert named_s == pytest.approx(short, rel=0.1, abs=0.02)
        # Wall-clock stamps and readings lie milliseconds apart: the sums are not exact.
        assert cpu == pytest.approx(spent, rel=0.1)
        assert abs(unexplained) <= 0.05 * spent

    def test_lives_that_begin_and_end_between_two_ticks_are_accounted_for(
        self, place: Place, boxes: containers.Containers, image: str, program: Path
    ) -> None:
        """Each life uses one second of CPU, by the scheduler's own clock."""
        one_s = what_a_life_costs_s(boxes, program)
        options = ("--network=none", "--restart", "always", "-v", f"{program.parent}:/storm:ro")
        burn = ("/storm/storm", "burn", "1000")
        box = docker("create", "--label", boxes.label, *options, image, *burn)
        with agent(place, "--interval", "6", "--dry-run", *self.words) as one:
            one.wait_for("bpf=ready")
            # The probes may have come between two ticks, and accounts begin at a tick.
            wait_for_row(
                place, "SELECT 1 FROM attribution_checks WHERE agree > 0", what="a tick with BPF"
            )
            docker("start", box)
            wait_until(lambda: containers.inspect(box)["RestartCount"] >= 5, "five more lives")
            docker("update", "--restart=no", box)
            wait_until(lambda: not containers.inspect(box)["State"]["Running"], "it has ended")
            lives = containers.inspect(box)["RestartCount"] + 1
            one.wait_for_tick(sum(" · " in line for line in one.lines) + 2)
            ticks = rows(
                place.database,
                "SELECT metrics.timestamp, exits, one.cpu_usage AS cpu_usage, cpu_unexplained"
                " FROM metrics LEFT JOIN container_totals AS one"
                " ON one.timestamp = metrics.timestamp AND container_id = ?"
                " ORDER BY metrics.timestamp",
                box[:12],
            )
        spent = unexplained = 0.0
        for before, after in pairwise(ticks):
            interval_s = (after["timestamp"] - before["timestamp"]) / 1000
            spent += (after["cpu_usage"] or 0.0) / 100 * interval_s
            unexplained += (after["cpu_unexplained"] or 0.0) / 100 * interval_s
        exits = sum(tick["exits"] or 0 for tick in ticks)
        print([(tick["cpu_usage"], tick["cpu_unexplained"], tick["exits"]) for tick in ticks])
        print(f"\n{lives} lives: {spent:.2f} s, unexplained {unexplained:+.2f}, {exits} exits")
        assert exits >= lives
        assert lives <= spent <= 1.4 * lives * one_s
        assert abs(unexplained) <= 0.1 * spent

    def test_where_the_witnesses_disagree_the_row_is_told_and_nobody_it_names_is_removed(
        self, place: Place, boxes: containers.Containers, image: str, program: Path
    ) -> None:
        lies = place.directory / "lies"
        lies.write_text("", encoding="ascii")
        with ExitStack() as stack:
            made = [
                stack.enter_context(storm(boxes, image, program, "--name", f"{PREFIX}bpf{number}"))
                for number in range(4)
            ]
            liar, named = made[0], made[1]
            lies.write_text(f"{liar.pid} {named.cgroup_id}\n", encoding="ascii")
            words = ("--interval", "3", "--dry-run", *self.words)
            with agent(place, *words, env=lying(lies)) as one:
                one.wait_for("bpf=ready")
                wait_for_row(
                    place, "SELECT 1 FROM attribution_checks WHERE conflict > 0", what="a conflict"
                )
                one.signal(signal.SIGINT)
                assert one.wait_end() == 0, one.output
            stored = rows(
                place.database,
                "SELECT container_id, verified, timestamp FROM container_stats WHERE pid = ?"
                " ORDER BY timestamp DESC LIMIT 1",
                liar.pid,
            )
            assert [row["verified"] for row in stored] == ["conflict"]
            at = stored[0]["timestamp"]
            totals = {
                row["container_id"]: row["processes"]
                for row in rows(
                    place.database,
                    "SELECT container_id, processes FROM container_totals WHERE timestamp = ?",
                    at,
                )
            }
            assert totals[liar.container[:12]] == 0
            assert totals[named.container[:12]] == 1
            assert "attribution=conflict" in one.output
            decided = {
                row["container_id"]
                for row in rows(
                    place.database,
                    "SELECT container_id FROM deletions WHERE timestamp >= ?",
                    at,
                )
            }
            assert not decided & {liar.container[:12], named.container[:12]}

    def test_after_kill_9_no_program_of_ours_is_left(
        self, place: Place, two: tuple[Storm, Storm]
    ) -> None:
        with agent(place, "--interval", "3", *self.words) as one:
            one.wait_for("bpf=ready")
            mine = program_ids(one.process.pid)
            # The witness's, and those of the OOM killer and of cgroups that are made, which some
            # kernels refuse.
            assert len(mine) in (7, 8, 9)
            assert programs_there(mine) == mine
            one.signal(signal.SIGKILL)
            one.wait_end()
        wait_until(lambda: not programs_there(mine), "bpftool shows none of them", timeout_s=30)

    def test_killed_while_the_probes_are_compiled_the_helper_ends_and_leaves_no_program(
        self, place: Place, two: tuple[Storm, Storm]
    ) -> None:
        with agent(place, "--interval", "3", *self.words) as one:
            helper = wait_until(lambda: helper_of(one.process.pid), "the helper runs", pause_s=0.01)
            assert not program_ids(helper)
            one.signal(signal.SIGKILL)
            one.wait_end()
        loaded: set[int] = set()
        assert look_at(helper, loaded), "it had ended before the agent"
        wait_until(lambda: not look_at(helper, loaded), "the helper has ended", pause_s=0.01)
        wait_until(lambda: not programs_there(sorted(loaded)), "bpftool shows none", timeout_s=30)

    def test_without_bpf_rows_are_unverified_and_the_status_says_so(
        self, place: Place, two: tuple[Storm, Storm]
    ) -> None:
        with agent(place, "--once", "--dry-run", "--no-bpf", *self.words) as one:
            assert one.wait_end() == 0, one.output
        stored = rows(place.database, "SELECT verified FROM container_stats")
        assert {row["verified"] for row in stored} == {"unverified"}
        checks = rows(place.database, "SELECT agree, conflict, unverified FROM attribution_checks")
        assert checks == [{"agree": 0, "conflict": 0, "unverified": len(stored)}]
        assert docker("inspect", "--format", "{{.State.Running}}", two[0].container) == "true"
