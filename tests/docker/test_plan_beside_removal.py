"""A plan that is made while the agent is removing one: what is going counts among what goes.

The oracle is `docker ps` and what the container itself says of its signal.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.agent_process import AgentProcess, rows, run_agent
from tests.containers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docker.private_engine import PrivateEngine

HELD_MB = {"job-a": 90, "job-b": 60, "job-c": 30}


def _held_mb(database: Path, name: str) -> float:
    """By the last tick; 0 where it has none."""
    found = rows(
        database,
        "SELECT held_mb FROM container_totals WHERE timestamp = (SELECT max(timestamp) "
        f"FROM container_totals) AND container_name = '{name}'",
    )
    return float(found[0]["held_mb"]) if found else 0.0


def test_one_that_is_going_and_holds_nothing_by_now_is_still_the_one_that_goes(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    database, config, told = (tmp_path / name for name in ("data/m.db", "agent.toml", "plan.json"))
    rule = (
        '[[policy.rule]]\nname = "jobs"\nmatch = {{ name = "job-*" }}\nkeep = {keep}\n'
        'action = "remove"\ngrace_s = 60\n'
    )
    settings = (
        f'interval_s = 1\nsource = "psutil"\ndocker_host = "{engine.host}"\n'
        "[grafana]\nenabled = false\n[cron]\nenabled = false\n[bpf]\nenabled = false\n"
        f'[paths]\nrun = "{tmp_path}/run"\nlog = "{tmp_path}/log"\ndatabase = "{database}"\n'
    )

    def asked(*words: str) -> dict[str, Any]:
        done = run_agent("policy", *words, "--json", "--config", str(config))
        assert done.returncode == 0, done.stderr
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def why(name: str) -> str:
        return str(asked("why", name)["container"]["why"])

    # Told to end, it gives its memory back, and lives on.
    ends = 'trap "rm /dev/shm/x; touch /tmp/asked" TERM'
    for name, mb in HELD_MB.items():
        fills = f"dd if=/dev/zero of=/dev/shm/x bs=1M count={mb} 2>/dev/null; touch /tmp/full"
        engine.run(
            *("--name", name, "--shm-size=1g"),
            command=("sh", "-c", f"{ends}; {fills}; while :; do sleep 0.2; done"),
        )
    for name in HELD_MB:
        wait_until(lambda: "full" in engine.docker("exec", name, "ls", "/tmp"), name)  # noqa: B023
    config.write_text(settings + rule.format(keep=2))
    with AgentProcess(("--config", str(config))):
        wait_until(lambda: "asked" in engine.docker("exec", "job-a", "ls", "/tmp"), "asked to end")
        wait_until(lambda: 0 < _held_mb(database, "job-a") < 20, "a tick after that")
        assert asked("plan")["decisions"] == []
        assert why("job-a") == 'rule "jobs": the agent is at it already'
        assert why("job-b") == 'rule "jobs": within the 2 that stay'
        freed = asked("plan", "--free", "80M")
        assert {one["container_name"] for one in freed["decisions"]} == {"job-b", "job-c"}

        # Somebody's plan of another keep: one more, and not the one that the agent is at.
        config.write_text(settings + rule.format(keep=1))
        planned = asked("plan")
        assert [one["container_name"] for one in planned["decisions"]] == ["job-b"]
        # Of one that was made before it began there is nothing left to do.
        config.write_text(settings + rule.format(keep=2))
        told.write_text(json.dumps(planned))
        applied = asked("apply", str(told))
        assert (applied["done"], set(applied["left"].values())) == ([], {"within the 2 that stay"})
        assert engine.names() == set(HELD_MB)

        engine.docker("kill", "--signal", "KILL", "job-a")
        wait_until(
            lambda: engine.names("-a") == {"job-b", "job-c"}, "the agent's removal has ended"
        )
        assert why("job-b") == 'rule "jobs": within the 2 that stay'
