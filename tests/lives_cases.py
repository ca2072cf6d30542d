"""A container that ends and starts again between two ticks: its figures against Docker's events.

The whole agent as its user runs it. Collected through a subclass that says which sources it has, in
a module with the fixtures `engine` and `agent`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.agent_process import AgentProcess, rows
from tests.bpf_cases import KEPT
from tests.containers import STRESS, DockerCommandError, cgroup_directory, wait_until
from tests.docker.private_engine import PrivateEngine

_MUCH = ("stress", "--vm", "1", "--vm-bytes", "64M", "--vm-keep")
_LITTLE = ("-m", "24m", "--memory-swap", "24m")


@pytest.fixture
def agent(
    request: pytest.FixtureRequest, engine: PrivateEngine, tmp_path: Path
) -> Iterator[AgentProcess]:
    """An agent that removes nothing, with the sources of the test's class, BPF ready."""
    cases: LivesCases = request.instance
    file = tmp_path / "agent.toml"
    file.write_text(
        f'docker_host = "{engine.host}"\ninterval_s = {cases.interval_s}\n[paths]\n'
        f'run = "{tmp_path}/run"\nlog = "{tmp_path}/log"\ndatabase = "{tmp_path}/db/metrics.db"\n'
        f'bpf = "{KEPT}"\n',
        encoding="utf-8",
    )
    words = ("--config", str(file), "--no-cron", "--no-grafana", "--dry-run", *cases.words)
    with AgentProcess(words) as made:
        if cases.has_bpf:
            made.wait_for("bpf=ready")
        wait_for_ticks(made, 1)
        yield made
    engine.clear()


def wait_for_ticks(agent: AgentProcess, number: int) -> None:
    """So many whole ones from now on, after the one that may be under way."""
    agent.wait_for_tick(sum("tick " in line and " · " in line for line in agent.lines) + 1 + number)


def totals(tmp_path: Path, container: str) -> list[dict[str, Any]]:
    """Its rows, oldest first."""
    return rows(
        tmp_path / "db/metrics.db",
        "SELECT * FROM container_totals WHERE container_id = ? ORDER BY id",
        container[:12],
    )


def oom_kills_of(engine: PrivateEngine, container: str) -> int:
    """The kernel's own count, of the life that the container has now."""
    directory = cgroup_directory(engine.inspect(container)["State"]["Pid"])
    for name in ("memory.events", "memory.oom_control"):
        if (directory / name).exists():
            lines = (directory / name).read_text(encoding="ascii").splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    raise AssertionError(f"{directory} does not tell what was killed in it")


def total_of(found: list[dict[str, Any]], name: str) -> int:
    return sum(one[name] or 0 for one in found)


def short_lived(tmp_path: Path, name: str) -> dict[str, int]:
    """How many processes of a name no tick saw, by container."""
    found = rows(
        tmp_path / "db/metrics.db",
        "SELECT container_id, sum(count) AS count FROM short_lived WHERE process_name = ?"
        " GROUP BY container_id",
        name,
    )
    return {one["container_id"]: one["count"] for one in found}


def seconds(word: str) -> float:
    """What the shell's `times` prints: 0m0.240s."""
    minutes, _, rest = word.partition("m")
    return 60 * int(minutes) + float(rest.removesuffix("s"))


def cpu_s_of(engine: PrivateEngine, container: str) -> float:
    """The kernel's own count, of the life that the container has now."""
    pid = engine.inspect(container)["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            text = Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage").read_text(encoding="ascii")
            return int(text) / 1e9
    stat = (cgroup_directory(pid) / "cpu.stat").read_text(encoding="ascii").split()
    return int(stat[stat.index("usage_usec") + 1]) / 1e6


def not_again(engine: PrivateEngine, container: str) -> bool:
    """Whether Docker will let it end; 26.1 cannot be told so just between two lives."""
    with suppress(DockerCommandError):
        engine.docker("update", "--restart=no", container)
    return bool(engine.inspect(container)["HostConfig"]["RestartPolicy"]["Name"] == "no")


class LivesCases:
    """One agent a test."""

    words: tuple[str, ...] = ()
    has_bpf = False
    interval_s = 6

    def test_a_container_that_is_restarted_after_a_tick_shows_the_cpu_of_its_new_life(
        self, engine: PrivateEngine, agent: AgentProcess, tmp_path: Path
    ) -> None:
        box = engine.run(image=STRESS, command=("stress", "--cpu", "1"))
        wait_for_ticks(agent, 2)
        before = totals(tmp_path, box)[-1]["timestamp"]
        engine.docker("restart", "-t", "0", box)
        wait_for_ticks(agent, 1)
        spent = cpu_s_of(engine, box)
        looked_ms = time.time() * 1000
        found = [one for one in totals(tmp_path, box) if one["timestamp"] <= looked_ms]
        # One CPU at most since the last of them; a look may come late on a busy machine.
        stored_by_then = spent - (looked_ms - found[-1]["timestamp"]) / 1000
        cpu = [one["cpu_usage"] for one in found]
        unexplained = [one["cpu_unexplained"] for one in found]
        stored = sum(
            (one["cpu_usage"] or 0.0) / 100 * (one["timestamp"] - earlier["timestamp"]) / 1000
            for earlier, one in pairwise(found)
            if one["timestamp"] > before
        )
        print(f"\ncpu_usage {cpu}, cpu_unexplained {unexplained}")
        print(f"the second life's {spent:.2f} s, by the last row {stored_by_then:.2f},")
        print(f"stored {stored:.2f}")
        # The rest of the first life is in it too, where BPF tells of that.
        assert stored >= 0.8 * stored_by_then > 0
        if self.has_bpf:
            told = [one for one in unexplained if one is not None]
            assert told
            assert max(abs(one) for one in told) <= max(5, 0.1 * max(filter(None, cpu))), (
                unexplained
            )

    def test_an_oom_kill_in_each_of_two_lives_is_two(
        self, engine: PrivateEngine, agent: AgentProcess, tmp_path: Path
    ) -> None:
        command = ("sh", "-c", f"{' '.join(_MUCH)}; exec sleep infinity")
        box = engine.run(*_LITTLE, image=STRESS, command=command)

        def has_killed() -> bool:
            pid = engine.inspect(box)["State"]["Pid"]
            return Path(f"/proc/{pid}/comm").read_text(encoding="ascii") == "sleep\n"

        wait_until(has_killed, "its first life has had its kill")
        killed = oom_kills_of(engine, box)
        wait_for_ticks(agent, 1)
        engine.docker("restart", "-t", "0", box)
        wait_until(has_killed, "its second life has had its kill")
        killed += oom_kills_of(engine, box)
        wait_for_ticks(agent, 1)
        counted = [one["oom_kills"] for one in totals(tmp_path, box)]
        print(f"\noom_kills {counted}, the kernel's {killed}")
        assert killed >= 2
        assert sum(one or 0 for one in counted) == killed, counted

    def test_every_oom_kill_of_a_container_that_docker_starts_again_and_again_is_counted(
        self, engine: PrivateEngine, agent: AgentProcess, tmp_path: Path
    ) -> None:
        # What a container that goes on living shows is the runtime's own: it forks, in the cgroup.
        control = engine.run(image=STRESS, command=("sleep", "600"))
        since = engine.now()
        box = engine.run("--restart", "always", *_LITTLE, image=STRESS, command=_MUCH)
        wait_until(lambda: len(engine.events(since, "oom")) >= 5, "it has died five times")
        wait_until(lambda: not_again(engine, box), "Docker does not start it again")
        wait_until(lambda: engine.inspect(box)["State"]["Status"] == "exited", "it has ended")
        wait_for_ticks(agent, 1)
        told = len(engine.events(since, "oom"))
        found = totals(tmp_path, box)
        counted = [one["oom_kills"] for one in found]
        starts, exits = ([one[name] for one in found] for name in ("starts", "exits"))
        lives = len(engine.events(since, "die"))
        print(f"\noom_kills {counted}, events {told}, lives {lives}, {starts=}, {exits=}")
        # A life ends by one kill; without BPF Docker's word is all there is, and it may miss one.
        assert told <= lives
        assert sum(one or 0 for one in counted) == (lives if self.has_bpf else told), counted
        if not self.has_bpf:
            assert set(starts) == set(exits) == {None}
            return
        quiet = totals(tmp_path, control)
        own_starts, own_exits = (total_of(quiet, name) for name in ("starts", "exits"))
        # In each life stress forks the one that dies by OOM, and ends with it.
        assert total_of(found, "starts") == (own_starts + 1) * lives, (starts, own_starts)
        assert total_of(found, "exits") == (own_exits + 2) * lives, (exits, own_exits)
        named = short_lived(tmp_path, "stress")
        print(f"short-lived {named}")
        assert named.keys() == {box[:12]}
        # One that a tick met was seen, and is not among them.
        assert 2 * (lives - len(found)) <= named[box[:12]] <= 2 * lives

    def test_the_cpu_of_lives_between_two_ticks_is_their_container_s(
        self, engine: PrivateEngine, agent: AgentProcess, tmp_path: Path
    ) -> None:
        """The oracle: the clock of the shell that burns it, in the container's log."""
        burn = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; times"
        since = engine.now()
        box = engine.run("--restart", "always", command=("sh", "-c", burn))
        wait_until(lambda: len(engine.events(since, "die")) >= 5, "it has lived five times")
        wait_until(lambda: not_again(engine, box), "Docker does not start it again")
        wait_until(lambda: engine.inspect(box)["State"]["Status"] == "exited", "it has ended")
        wait_for_ticks(agent, 1)
        spent = sum(map(seconds, engine.docker("logs", box).split()))
        found = totals(tmp_path, box)
        first = rows(
            tmp_path / "db/metrics.db",
            "SELECT max(timestamp) AS at FROM metrics WHERE timestamp < ?",
            found[0]["timestamp"],
        )
        moments = [first[0]["at"], *(one["timestamp"] for one in found)]
        lengths = [(now - then) / 1000 for then, now in pairwise(moments)]
        lives = len(engine.events(since, "die"))
        stored = {
            name: sum((one[name] or 0.0) / 100 * s for one, s in zip(found, lengths, strict=True))
            for name in ("cpu_usage", "cpu_short_lived")
        }
        print(f"\n{lives} lives, {spent:.2f} s, stored {stored}")
        if not self.has_bpf:
            assert {one["cpu_short_lived"] for one in found} == {None}
            return
        # The runtime's own part, before the shell, is the container's too.
        assert stored["cpu_usage"] >= 0.9 * spent
        assert stored["cpu_short_lived"] >= 0.9 * spent * (lives - len(found)) / lives
        assert short_lived(tmp_path, "sh").keys() == {box[:12]}
