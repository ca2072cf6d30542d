"""A container that ends and starts again between two ticks: its figures against Docker's events.

The whole agent as its user runs it, without modules and BPF, on an engine of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent_process import AgentProcess, rows
from tests.containers import STRESS, wait_until
from tests.docker.private_engine import PrivateEngine, private_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as made:
        yield made


@pytest.fixture
def agent(engine: PrivateEngine, tmp_path: Path) -> Iterator[AgentProcess]:
    file = tmp_path / "agent.toml"
    file.write_text(
        f'docker_host = "{engine.host}"\nsource = "psutil"\ninterval_s = 6\n[paths]\n'
        f'run = "{tmp_path}/run"\nlog = "{tmp_path}/log"\ndatabase = "{tmp_path}/db/metrics.db"\n'
        f'build = "{tmp_path}/build"\n'
    )
    words = ("--config", str(file), "--no-bpf", "--no-cron", "--no-grafana", "--dry-run")
    with AgentProcess(words) as made:
        yield made
    engine.clear()


def totals(tmp_path: Path, container: str) -> list[dict[str, Any]]:
    """Its rows, oldest first."""
    return rows(
        tmp_path / "db/metrics.db",
        "SELECT * FROM container_totals WHERE container_id = ? ORDER BY id",
        container[:12],
    )


def test_a_container_that_is_restarted_after_a_tick_shows_the_cpu_of_its_new_life(
    engine: PrivateEngine, agent: AgentProcess, tmp_path: Path
) -> None:
    agent.wait_for_tick(1)
    box = engine.run(image=STRESS, command=("stress", "--cpu", "1"))
    agent.wait_for_tick(3)
    engine.docker("restart", "-t", "0", box)
    agent.wait_for_tick(5)
    found = [one["cpu_usage"] for one in totals(tmp_path, box)]
    assert len(found) >= 3
    assert min(found) > 0, found


def test_every_oom_kill_of_a_container_that_docker_starts_again_and_again_is_counted(
    engine: PrivateEngine, agent: AgentProcess, tmp_path: Path
) -> None:
    agent.wait_for_tick(1)
    since = engine.now()
    box = engine.run(
        *("--restart", "always", "-m", "24m", "--memory-swap", "24m"),
        image=STRESS,
        command=("stress", "--vm", "1", "--vm-bytes", "64M", "--vm-keep"),
    )
    wait_until(lambda: len(engine.events(since, "oom")) >= 5, "it has died five times")
    engine.docker("update", "--restart=no", box)
    wait_until(lambda: engine.inspect(box)["State"]["Status"] == "exited", "it has ended")
    ticks = sum("tick " in line and " · " in line for line in agent.lines)
    agent.wait_for_tick(ticks + 2)
    told = len(engine.events(since, "oom"))
    counted = [one["oom_kills"] for one in totals(tmp_path, box)]
    assert sum(one or 0 for one in counted) == told, counted
