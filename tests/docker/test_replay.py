"""`agent policy replay` over a history that a whole agent left on a real engine, with BPF.

Everything that makes decisions is in it: rules with several actions and steps, the built-in set,
passes between two ticks for the limit and for the host's memory, witnesses that are made to
disagree (`tests/liar`), containers that are restarted, an agent that is killed and started again,
rules that are reloaded. The oracle is the history itself: each recorded decision, and SQLite.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agent.sources.bpf.support import probe_support
from tests.agent_process import AgentProcess, rows, run_agent
from tests.bpf_support import lying
from tests.containers import wait_until
from tests.docker.private_engine import PrivateEngine
from tests.docker.test_before_oom import EATS, available_mb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BELOW_MB = 400
"""So much an eater takes before its rule acts."""
RULES = """
[[policy.rule]]
name = "jobs"
match = { name = "job-*" }
keep = KEEP
action = "remove"
grace_s = 0
[[policy.rule]]
name = "batch"
match = { name = "batch-*", state = "running" }
when = { age = "4s" }
action = "stop"
grace_s = 0
[[policy.rule]]
name = "ended"
match = { name = "batch-*", state = "exited" }
when = { exited = "3s" }
action = "remove"
[[policy.rule]]
name = "service"
match = { name = "svc-*" }
when = { age = "3s" }
action = "notify"
step = [ { after = "4s", action = "pause" } ]
[[policy.rule]]
name = "flapping"
match = { name = "flap-*" }
when = { age = "6s" }
action = "restart"
grace_s = 0
[[policy.rule]]
name = "busy"
match = { name = "busy-*" }
when = { cpu = { above = 1, for = "4s" } }
action = "notify"
[[policy.rule]]
name = "before-oom"
match = { name = "eater-*" }
when = { available_mb = BOUND }
action = "remove"
"""


@dataclass
class Lab:
    """An agent and what happens to it. A method for each thing that may happen."""

    directory: Path
    engine: PrivateEngine
    numbers: dict[str, int] = field(default_factory=dict)
    agents: list[AgentProcess] = field(default_factory=list)
    keep: int = 2

    def __post_init__(self) -> None:
        self.database = self.directory / "data/metrics.db"
        self.lies = self.directory / "lies"
        self.lies.write_text("")
        self.config = self.directory / "agent.toml"
        self.bound_mb = available_mb() - BELOW_MB
        self.write()

    def write(self) -> None:
        rules = RULES.replace("KEEP", str(self.keep)).replace("BOUND", str(self.bound_mb))
        self.config.write_text(
            f'interval_s = 1.5\nsource = "psutil"\ndocker_host = "{self.engine.host}"\n'
            f"[grafana]\nenabled = false\n[cron]\nenabled = false\n{rules}"
            f'[paths]\nrun = "{self.directory}/run"\nlog = "{self.directory}/log"\n'
            f'database = "{self.database}"\nbpf = "{self.directory}/bpf"\n'
        )

    def ask(self, query: str) -> list[dict[str, Any]]:
        return rows(self.database, query)

    def one(self, query: str) -> Any:
        return next(iter(self.ask(query)[0].values()))

    def begin(self, stack: ExitStack) -> None:
        """An agent whose witnesses agree."""
        before = self.ticks() if self.database.exists() else 0
        agent = AgentProcess(("--config", str(self.config)), lying(self.lies))
        self.agents.append(stack.enter_context(agent))
        agent.wait_for_tick(1)
        wait_until(
            lambda: self.ask("SELECT agree FROM attribution_checks ORDER BY id DESC")[0]["agree"],
            "the witnesses agree",
        )
        self.more_ticks(2, before)

    def ticks(self) -> int:
        return int(self.one("SELECT count(*) FROM metrics"))

    def more_ticks(self, number: int, since: int | None = None) -> None:
        since = self.ticks() if since is None else since
        wait_until(lambda: self.ticks() >= since + number, f"{number} ticks more")

    def start(self, kind: str, count: int = 1, *options: str, command: Any = ()) -> list[str]:
        made = []
        for _ in range(count):
            number = self.numbers[kind] = self.numbers.get(kind, 0) + 1
            made.append(self.engine.run("--name", f"{kind}{number}", *options, command=command))
        return made

    def outcomes(self, rule: str) -> int:
        return int(self.one(f"SELECT count(*) FROM deletions WHERE rule = '{rule}'"))

    def wait_for_more(self, rule: str, do: Callable[[], object]) -> None:
        """Does something, and waits until the rule has decided because of it."""
        before = self.outcomes(rule)
        do()
        wait_until(lambda: self.outcomes(rule) > before, f"a decision of {rule}")

    # What may happen.

    def jobs_come(self) -> None:
        self.wait_for_more("jobs", lambda: self.start("job-", self.keep + 1))

    def a_batch_ends(self) -> None:
        self.wait_for_more("batch", lambda: self.start("batch-"))
        wait_until(lambda: self.outcomes("ended"), "what was stopped is removed")

    def a_service_comes(self) -> None:
        self.wait_for_more("service", lambda: self.start("svc-"))

    def one_flaps(self) -> None:
        self.wait_for_more("flapping", lambda: self.start("flap-"))
        self.engine.docker("rm", "-f", f"flap-{self.numbers['flap-']}")

    def one_is_busy(self) -> None:
        burns = ("sh", "-c", "while :; do :; done")
        self.wait_for_more("busy", lambda: self.start("busy-", command=burns))
        self.engine.docker("rm", "-f", f"busy-{self.numbers['busy-']}")

    def too_many_come_at_once(self) -> None:
        """More than `max_containers`, between two ticks as often as not."""
        self.wait_for_more("original-low", lambda: self.start("so1_contenedor_", 12))

    def memory_runs_short(self) -> None:
        """By so much less than there is now: others' memory comes and goes as well."""
        self.bound_mb = available_mb() - BELOW_MB
        self.reload()
        eats = ("sh", "-c", EATS)
        self.wait_for_more(
            "before-oom", lambda: self.start("eater-", 1, "--shm-size=2g", command=eats)
        )
        eater = f"eater-{self.numbers['eater-']}"
        wait_until(lambda: eater not in self.engine.names("-a"), "the eater is gone")

    def memory_runs_short_between_ticks(self) -> None:
        """Where a tick is the first to see it, no pass has to: then another one eats."""
        for _ in range(5):
            self.memory_runs_short()
            if self.one("SELECT count(*) FROM pass_containers WHERE rule = 'before-oom'"):
                return

    def witnesses_disagree(self) -> None:
        """On one job, while there is one too many: it is spared, and no other goes for it."""
        boxes = self.start("web-", 3)
        (job,) = self.start("job-")
        pid = self.engine.inspect(job)["State"]["Pid"]
        before = self.one("SELECT count(*) FROM attribution_checks WHERE conflict > 0")
        self.lies.write_text(f"{pid} 1\n")
        query = "SELECT count(*) FROM attribution_checks WHERE conflict > 0"
        wait_until(lambda: self.one(query) >= before + 2, "conflicts")
        self.lies.write_text("")
        self.more_ticks(2)
        self.engine.docker("rm", "-f", *boxes)

    def containers_restart(self) -> None:
        running = sorted(one for one in self.engine.names() if one.startswith(("job-", "svc-")))
        for one in running[:2]:
            # Its rule may take it first.
            self.engine.docker("restart", "-t", "0", one, check=False)
        self.more_ticks(1)

    def the_agent_is_killed(self, stack: ExitStack) -> None:
        agent = self.agents[-1]
        agent.signal(signal.SIGKILL)
        agent.wait_end()
        self.start("job-")
        self.begin(stack)

    def the_agent_restarts(self, stack: ExitStack) -> None:
        agent = self.agents[-1]
        agent.signal(signal.SIGTERM)
        assert agent.wait_end() == 0
        self.begin(stack)

    def rules_are_reloaded(self) -> None:
        self.keep = 3 - self.keep
        self.reload()
        self.more_ticks(1)

    def reload(self) -> None:
        self.write()
        told = run_agent("reload", "--config", str(self.config))
        assert told.returncode == 0, told.stderr

    def assert_all_is_reproduced(self) -> dict[str, Any]:
        told = run_agent(
            "policy", "replay", "--since", "1d", "--json", "--config", str(self.config)
        )
        assert told.returncode == 0, told.stderr
        found: dict[str, Any] = json.loads(told.stdout)["replay"]
        decided = "SELECT count(*) FROM deletions WHERE reason <> 'stop' AND rule <> ''"
        assert found["recorded"] == self.one(decided) > 0
        missing = [one for one in found["differences"] if one["recorded"]]
        assert missing == [], json.dumps(missing, indent=1)
        assert found["reproduced"] == found["recorded"]
        return found

    def actions(self) -> set[tuple[str, str]]:
        query = "SELECT DISTINCT action, outcome FROM deletions"
        return {(one["action"], one["outcome"]) for one in self.ask(query)}


@pytest.fixture
def lab(tmp_path: Path, engine: PrivateEngine) -> Iterator[Lab]:
    if problem := probe_support().problem:
        pytest.skip(f"needs BPF: {problem[0]}")
    yield Lab(tmp_path, engine)


def test_every_decision_of_a_lively_history_is_reproduced(lab: Lab) -> None:
    with ExitStack() as stack:
        lab.begin(stack)
        lab.jobs_come()
        lab.a_batch_ends()
        lab.a_service_comes()
        lab.one_flaps()
        lab.one_is_busy()
        lab.too_many_come_at_once()
        lab.memory_runs_short_between_ticks()
        lab.the_agent_is_killed(stack)
        lab.witnesses_disagree()
        lab.rules_are_reloaded()
        lab.jobs_come()
        lab.containers_restart()
        lab.the_agent_restarts(stack)
        lab.jobs_come()
        wait_until(lambda: ("pause", "paused") in lab.actions(), "the service is paused")
    assert lab.actions() >= {
        ("remove", "removed"),
        ("stop", "stopped"),
        ("restart", "restarted"),
        ("pause", "paused"),
        ("notify", "notified"),
    }
    assert lab.one("SELECT count(DISTINCT timestamp) FROM host_samples") >= 1
    assert lab.one("SELECT count(*) FROM pass_containers WHERE rule = 'before-oom'") >= 1
    assert lab.one("SELECT count(*) FROM container_states WHERE disputed") >= 1
    assert lab.one("SELECT count(*) FROM policy_rules") >= 3
    found = lab.assert_all_is_reproduced()
    print(f"\n{found['ticks']} ticks, {found['recorded']} decisions, {found['reasons']}")


@pytest.mark.full
def test_every_decision_of_a_long_and_random_history_is_reproduced(lab: Lab) -> None:
    """`SO1_TEST_REPLAY_S` for another length, `SO1_TEST_REPLAY_SEED` for another course."""
    seconds = float(os.environ.get("SO1_TEST_REPLAY_S", "900"))
    chance = random.Random(int(os.environ.get("SO1_TEST_REPLAY_SEED", "1")))
    happened: list[str] = []
    with ExitStack() as stack:
        lab.begin(stack)
        things: list[Callable[[], None]] = [
            lab.jobs_come,
            lab.a_batch_ends,
            lab.a_service_comes,
            lab.one_flaps,
            lab.one_is_busy,
            lab.too_many_come_at_once,
            lab.memory_runs_short,
            lab.witnesses_disagree,
            lab.containers_restart,
            lab.rules_are_reloaded,
            lambda: lab.the_agent_is_killed(stack),
            lambda: lab.the_agent_restarts(stack),
        ]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            thing = chance.choice(things)
            thing()
            happened.append(thing.__name__)
    found = lab.assert_all_is_reproduced()
    passes = lab.one("SELECT count(DISTINCT timestamp) FROM pass_containers")
    decided = {one["rule"]: one["n"] for one in lab.ask(_BY_RULE)}
    print(
        f"\n{found['ticks']} ticks, {len(happened)} happenings, {len(lab.agents)} agents,"
        f" {passes} passes between ticks, {found['recorded']} decisions: {decided};"
        f" decided here alone: {found['reasons']}"
    )


_BY_RULE = "SELECT rule, count(*) AS n FROM deletions GROUP BY rule"
