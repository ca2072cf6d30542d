"""Rules of the host's memory in a whole agent, on this machine's kernel and a real engine.

Nothing is short here: the bound is set a little below what this machine has, and the eater stops
long before it hurts anybody. The oracle is Docker's events. The interval is ten minutes.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.agent_process import AgentProcess, rows
from tests.containers import wait_until
from tests.docker.private_engine import PrivateEngine

pytestmark = pytest.mark.oom_kill

BELOW_MB = 500
MOST_MB = 1500
EATS = f"""
n=0
while [ $n -lt {MOST_MB // 10} ]; do
    dd if=/dev/zero of=/dev/shm/$n bs=10M count=1 2>/dev/null
    n=$((n + 1))
    usleep 100000
done
sleep infinity
"""
"""100 MB a second."""


def available_mb() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s*(\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1024


def agent(engine: PrivateEngine, directory: Path, *more: str) -> AgentProcess:
    (directory / "agent.toml").write_text(
        f"""
interval_s = 600
source = "psutil"
docker_host = "{engine.host}"
[paths]
run = "{directory}/run"
database = "{directory}/data/metrics.db"
[cron]
enabled = false
[grafana]
enabled = false
[bpf]
enabled = false
[[policy.rule]]
name = "before-oom"
match = {{ name = "job-*" }}
when = {{ available_mb = {available_mb() - BELOW_MB} }}
action = "remove"
""",
        encoding="utf-8",
    )
    return AgentProcess(("--config", str(directory / "agent.toml"), *more))


def decided(directory: Path) -> list[tuple[str, str]]:
    found = rows(directory / "data/metrics.db", "SELECT container_name, outcome FROM deletions")
    return [(row["container_name"], row["outcome"]) for row in found]


def is_gone(engine: PrivateEngine, container: str) -> bool:
    return not engine.exists(container)


def test_the_eater_goes_long_before_the_next_tick_and_its_neighbour_stays(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    innocent = engine.run("--name", "db")
    with agent(engine, tmp_path) as running:
        running.wait_for_tick(1)
        since = engine.now()
        eater = engine.run("--shm-size=2g", "--name", "job-eater", command=["sh", "-c", EATS])
        wait_until(lambda: is_gone(engine, eater), "the eater is gone", timeout_s=60)
        wait_until(lambda: decided(tmp_path), "the row")
        assert decided(tmp_path) == [("job-eater", "removed")]
        assert engine.inspect(innocent)["State"]["Running"]
        kinds = [kind for kind, which in engine.events(since, "kill", "stop", "destroy")]
        assert kinds == ["kill", "destroy"], "killed at once, without a grace"
        assert running.process.poll() is None
        running.wait_for("Memory is short: 1 acted on at once", timeout_s=30)


@pytest.mark.full
def test_while_an_engine_hangs_one_removal_is_begun_and_it_ends_once_it_is_back(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    """The list of containers is of before it hung."""
    jobs = [engine.run("--name", f"job-{number}") for number in range(2)]
    go = tmp_path / "go"
    go.mkdir()
    wait = "until [ -e /go/now ]; do usleep 100000; done\n"
    options = ("--shm-size=2g", "-v", f"{go}:/go:ro", "--name", "job-eater")
    eater = engine.run(*options, command=["sh", "-c", wait + EATS])
    with agent(engine, tmp_path) as running:
        running.wait_for_tick(1)
        engine.pause_daemon()
        try:
            (go / "now").touch()
            running.wait_for("decision=", timeout_s=60)
            # So long a second one could have been begun: the bound stays passed.
            wait_until(lambda: available_mb() < bound_mb(tmp_path) - 300, "it eats on")
            time.sleep(2)
            assert running.output.count("action=remove") == 1
        finally:
            engine.resume_daemon()
        wait_until(lambda: is_gone(engine, eater), "the eater is gone", timeout_s=60)
        assert all(engine.inspect(one)["State"]["Running"] for one in jobs)
        assert running.process.poll() is None


def bound_mb(directory: Path) -> int:
    found = re.search(r"available_mb = (\d+)", (directory / "agent.toml").read_text())
    assert found is not None
    return int(found[1])
