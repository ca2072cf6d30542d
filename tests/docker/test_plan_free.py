"""`agent policy plan --free` on a real engine: what it predicts, and what comes.

All containers are in one cgroup of the test's own, so that what the kernel charges it is theirs
alone, whatever else this machine does. That and SQLite are the oracle.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent_process import AgentProcess, rows, run_agent
from tests.bpf_support import identifying_root, unified
from tests.containers import wait_until
from tests.docker.private_engine import PrivateEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD_MB = {"job-a": 300, "job-b": 200, "job-c": 90, "web": 400}
"""By container; the last one is no rule's."""
NOISE_MB = 12
"""Pages of the shell and the kernel's own, of two containers."""


class Memory:
    """Containers that hold what they were told to, and an agent that may remove the jobs."""

    def __init__(self, directory: Path, engine: PrivateEngine) -> None:
        self.engine = engine
        self.parent = f"/so1-test-{uuid.uuid4().hex[:8]}"
        self.cgroup = identifying_root() / self.parent.lstrip("/")
        self.database = directory / "data/metrics.db"
        self.plan = directory / "plan.json"
        self.config = directory / "agent.toml"
        self.config.write_text(
            f'interval_s = 2\nsource = "psutil"\ndocker_host = "{engine.host}"\n'
            "[grafana]\nenabled = false\n[cron]\nenabled = false\n[bpf]\nenabled = false\n"
            '[[policy.rule]]\nname = "jobs"\nmatch = { name = "job-*" }\nwhen = { age = "1d" }\n'
            'action = "remove"\ngrace_s = 0\n'
            f'[paths]\nrun = "{directory}/run"\nlog = "{directory}/log"\n'
            f'database = "{self.database}"\n'
        )

    def fill(self, *names: str) -> None:
        for name in names:
            fills = f"dd if=/dev/zero of=/dev/shm/x bs=1M count={HELD_MB[name]} 2>/dev/null"
            self.engine.run(
                *("--name", name, "--shm-size=1g", "--cgroup-parent", self.parent),
                command=("sh", "-c", f"{fills}; touch /tmp/full; sleep infinity"),
            )
        for name in names:
            wait_until(
                lambda: self.engine.docker("exec", name, "ls", "/tmp").strip() == "full",  # noqa: B023
                f"{name} is full",
            )

    def charged_mb(self) -> float:
        """What the kernel charges all of them."""
        file = "memory.current" if unified() else "memory.usage_in_bytes"
        return int((self.cgroup / file).read_text(encoding="ascii")) / 2**20

    def held_mb(self) -> dict[str, float]:
        """By the last tick."""
        found = rows(self.database, _LAST)
        return {one["container_name"]: one["held_mb"] for one in found}

    def run(self, *words: str) -> dict[str, Any]:
        told = run_agent("policy", *words, "--json", "--config", str(self.config))
        assert told.returncode == 0, told.stderr
        value: dict[str, Any] = json.loads(told.stdout)
        return value

    def planned(self, size: str) -> dict[str, Any]:
        made = self.run("plan", "--free", size)
        self.plan.write_text(json.dumps(made))
        return made

    def close(self) -> None:
        self.engine.clear()
        for directory in Path("/sys/fs/cgroup").glob(f"**{self.parent}"):
            directory.rmdir()


@pytest.fixture
def memory(tmp_path: Path, engine: PrivateEngine) -> Iterator[Memory]:
    memory = Memory(tmp_path, engine)
    yield memory
    memory.close()


def test_a_plan_to_free_memory_predicts_what_the_kernel_takes_back(memory: Memory) -> None:
    memory.fill(*HELD_MB)
    with AgentProcess(("--config", str(memory.config))) as agent:
        agent.wait_for_tick(1)
        for name, mb in HELD_MB.items():
            wait_until(lambda: memory.held_mb().get(name, 0) >= mb, f"{name} is seen")  # noqa: B023
        made = memory.planned("350M")
        chosen = [one["container_name"] for one in made["decisions"]]
        assert chosen == ["job-a", "job-c"], "the largest, and the smallest that is enough"
        predicted = made["reclaim"]["predicted_mb"]
        assert made["reclaim"]["earlier"]["passes"] == 0
        assert made["reclaim"]["held_mb"] == predicted

        before_mb = memory.charged_mb()
        applied = memory.run("apply", str(memory.plan))
        came_mb = before_mb - memory.charged_mb()
        assert [one["outcome"] for one in applied["done"]] == ["removed", "removed"]
        assert memory.engine.names("-a") == {"job-b", "web"}
        assert came_mb == pytest.approx(predicted, abs=NOISE_MB)
        assert came_mb >= 350

        # It is in the history now, and the next plan goes by it.
        wait_until(lambda: rows(memory.database, _PASS)[0]["n"] == 2, "the next tick has it")
        (done,) = rows(memory.database, _PASS)
        assert done["held"] == pytest.approx(predicted, abs=0.1)
        gave_back = done["after"] - done["before"]
        told = applied["available_after_mb"] - applied["available_before_mb"]
        assert gave_back == pytest.approx(told, abs=0.2)
        earlier = memory.planned("100M")["reclaim"]["earlier"]
        # A pass that took too long was measured before it ended, and is left out.
        if done["slowest_ms"] < 4000:
            assert earlier["passes"] == 1
            assert earlier["gave_back_mb"] == pytest.approx(gave_back, abs=0.2)
        else:
            assert earlier["passes"] == 0
        print(
            f"\n{predicted:.1f} MB predicted, {came_mb:.1f} MB by the kernel's account, "
            f"{gave_back:.1f} MB by the host's MemAvailable, beside whatever else it did"
        )


_LAST = """
    SELECT container_name, held_mb FROM container_totals
    WHERE timestamp = (SELECT max(timestamp) FROM container_totals)
"""
_PASS = """
    SELECT count(*) AS n, sum(held_mb) AS held, min(available_before_mb) AS before,
           max(available_after_mb) AS after, max(duration_ms) AS slowest_ms
    FROM deletions WHERE outcome = 'removed' AND decision LIKE 'free-%'
"""
