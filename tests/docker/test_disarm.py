"""Figures that are made to be wrong, in an agent on a real engine with BPF: nothing is removed.

The oracle is `docker ps` and SQLite. `tests/liar` changes what BPF says.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Config
from agent.config_outlets import ProofSettings
from agent.daemon.canary_runs import CanaryRuns
from tests.agent_process import AgentProcess, rows
from tests.bpf_support import LIAR
from tests.containers import HOST, STRESS, wait_until
from tests.docker.private_engine import PrivateEngine, private_engine
from tests.docker.test_bpf_native import image
from tests.unit.store.builders import SECOND_NS, FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["image"]
PROJECT = LIAR.parents[1]


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        yield engine


@dataclass
class Town:
    """An agent that is to remove all `job-*` but one, and what its witness is made to say."""

    directory: Path
    engine: PrivateEngine

    def __post_init__(self) -> None:
        self.database = self.directory / "data/metrics.db"
        self.lies, self.lost = self.directory / "lies", self.directory / "lost"
        for file in (self.lies, self.lost):
            file.write_text("")
        self.config = self.directory / "agent.toml"
        self.config.write_text(
            f'interval_s = 1\nsource = "psutil"\ndocker_host = "{self.engine.host}"\n'
            "[grafana]\nenabled = false\n[cron]\nenabled = false\n"
            '[[policy.rule]]\nname = "jobs"\nmatch = { name = "job-*" }\nkeep = 1\n'
            'action = "remove"\ngrace_s = 0\n'
            f'[paths]\nrun = "{self.directory}/run"\nlog = "{self.directory}/log"\n'
            f'database = "{self.database}"\nbpf = "{self.directory}/bpf"\n'
        )

    @contextmanager
    def agent(self) -> Iterator[AgentProcess]:
        env = {
            "PYTHONPATH": f"{LIAR}{os.pathsep}{PROJECT}",
            "SO1_TEST_BPF_DISAGREE": str(self.lies),
            "SO1_TEST_BPF_LOST": str(self.lost),
        }
        with AgentProcess(("--config", str(self.config)), env) as one:
            wait_until(self.agrees, "the witnesses agree")
            yield one

    def ask(self, query: str) -> list[dict[str, Any]]:
        return rows(self.database, query)

    def agrees(self) -> bool:
        if not self.database.exists():
            return False
        tables = {one["name"] for one in self.ask("SELECT name FROM sqlite_master")}
        if "policy_arming" not in tables:
            return False
        last = self.ask("SELECT agree, conflict FROM attribution_checks ORDER BY id DESC LIMIT 1")
        return bool(last) and last[0]["agree"] >= 3 and not last[0]["conflict"]

    def armings(self) -> list[bool]:
        return [bool(one["armed"]) for one in self.ask("SELECT armed FROM policy_arming")]

    def ticks(self) -> int:
        return int(self.ask("SELECT count(*) AS n FROM metrics")[0]["n"])

    def start(self, *names: str) -> list[str]:
        return [self.engine.run("--name", name) for name in names]

    def jobs(self) -> set[str]:
        return {one for one in self.engine.names() if one.startswith("job-")}

    def assert_withheld_then_done(self, first_bad: int) -> None:
        """Disarmed in two ticks; what would go is said and stays; all of it by itself again."""
        wait_until(lambda: self.armings() == [False], "disarmed")
        bad = self.ask(
            f"SELECT count(*) AS n FROM metrics WHERE id > {first_bad} AND timestamp <="
            " (SELECT timestamp FROM policy_arming ORDER BY id LIMIT 1)"
        )
        assert bad[0]["n"] <= 2
        self.start("job-1", "job-2", "job-3")
        wait_until(lambda: len(self.ask("SELECT * FROM deletions")) == 2, "what was withheld")
        told = self.ticks()
        wait_until(lambda: self.ticks() > told + 3, "more ticks")
        assert self.jobs() == {"job-1", "job-2", "job-3"}
        told_rows = self.ask("SELECT action, outcome, error FROM deletions")
        assert [(one["action"], one["outcome"]) for one in told_rows] == [
            ("remove", "notified")
        ] * 2
        assert all("the policy is disarmed: the budget" in one["error"] for one in told_rows)

    def assert_it_arms_itself(self) -> None:
        wait_until(lambda: self.armings() == [False, True], "armed", timeout_s=120)
        wait_until(lambda: len(self.jobs()) == 1, "and it acts")
        removed = "SELECT container_name FROM deletions WHERE outcome = 'removed'"
        wait_until(lambda: len(self.ask(removed)) == 2, "the rows of it")


@pytest.fixture
def town(tmp_path: Path, engine: PrivateEngine) -> Iterator[Town]:
    try:
        yield Town(tmp_path, engine)
    finally:
        engine.clear()


@pytest.mark.usefixtures("image")
def test_witnesses_that_disagree_disarm_within_two_ticks_and_it_recovers(town: Town) -> None:
    boxes = town.start("web-1", "web-2", "web-3")
    with town.agent():
        pids = [town.engine.inspect(one)["State"]["Pid"] for one in boxes]
        before = town.ticks()
        town.lies.write_text("".join(f"{pid} 1\n" for pid in pids))
        town.assert_withheld_then_done(before)
        town.lies.write_text("")
        town.assert_it_arms_itself()
        assert {"web-1", "web-2", "web-3"} <= town.engine.names()


@pytest.mark.usefixtures("image")
def test_records_that_are_lost_disarm_within_two_ticks_and_it_recovers(town: Town) -> None:
    town.start("web-1", "web-2", "web-3")
    with town.agent():
        before = town.ticks()
        lost = 0
        while town.armings() != [False]:
            # More at each tick: what was lost once is no loss of the next.
            lost += 100_000
            town.lost.write_text(str(lost))
            seen = town.ticks()
            wait_until(lambda: town.ticks() > seen, "a tick")  # noqa: B023 - called at once
        town.assert_withheld_then_done(before)
        town.assert_it_arms_itself()


@pytest.mark.usefixtures("image")
def test_the_scheduled_canary_runs_beside_the_loop_and_proves_the_figures(tmp_path: Path) -> None:
    """On the engine that the tests were given, which has its image."""
    settings = tmp_path / "agent.toml"
    settings.write_text(f'docker_host = "{HOST}"\n')
    clock = FakeClock()
    runs = CanaryRuns(Config(proof=ProofSettings(canary_hours=24)), settings, clock, None)
    try:
        clock.pass_time(120 * SECOND_NS)

        def done() -> bool:
            runs.look()
            assert runs.problem == ""
            return runs.result is not None

        wait_until(done, "the canary's result", timeout_s=300)
        assert runs.result is not None
        assert runs.result.error == 0, runs.result
    finally:
        runs.close()


@pytest.mark.full
@pytest.mark.usefixtures("image")
def test_nothing_disarms_an_hour_of_load_and_churn(town: Town) -> None:
    """`SO1_TEST_SOAK_S` for another length. Prints how much of each budget was used."""
    seconds = float(os.environ.get("SO1_TEST_SOAK_S", "3600"))
    town.start("web-1", "web-2", "web-3")
    town.engine.docker(
        *("run", "-d", "--network=none", "--name", "burner", STRESS),
        *("stress", "--cpu", "1", "--timeout", f"{seconds:.0f}"),
    )
    most: dict[str, float] = {}
    rounds = 0
    with town.agent() as agent:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rounds += 1
            town.engine.run("--rm", command=("sh", "-c", _CHURN))
            town.start(f"job-{rounds}")
            seen = town.ticks()
            wait_until(lambda: town.ticks() > seen, "a tick")  # noqa: B023 - called at once
            status = json.loads((town.directory / "run/status.json").read_text())
            for name, used in status["budgets"].items():
                most[name] = max(most.get(name, 0.0), used)
        assert "Traceback" not in agent.output
        assert "proof=over" not in agent.output
    ticks = town.ticks()
    checks = town.ask(
        "SELECT sum(agree) AS agree, sum(conflict) AS conflict, sum(events_lost) AS lost"
        " FROM attribution_checks"
    )
    print(f"\n{ticks} ticks, {rounds} rounds, {checks[0]}, most used: {most}")
    assert town.armings() == []
    assert set(most) >= {"agreement", "loss", "unexplained"}
    removed = town.ask("SELECT count(*) AS n FROM deletions WHERE outcome = 'removed'")
    assert removed[0]["n"] > 0


_CHURN = "for n in $(seq 300); do /bin/true; done; sleep 2"
