"""`agent policy why` and `agent policy plan`: what the rules say now, from outside the agent."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli.commands import policy_apply, policy_look
from agent.daemon.composition import Options, start
from agent.errors import StoreError
from agent.model.removal import Action, Outcome, Removal
from agent.sources.engine.inventory import Listing
from agent.store import handover
from agent.store.queries import History
from agent.store.under_way import UnderWay
from tests.unit.agent_scene import Host, alpine
from tests.unit.cli.test_policy import agent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.model.container import Container
    from agent.model.removal import Decision

RULES = """
[paths]
database = "{database}"
[[policy.rule]]
name = "large"
match = {{ name = "job-*" }}
when = {{ held_mb = 2, unhealthy = "5m" }}
action = "stop"
[[policy.rule]]
name = "many"
match = {{ name = "web-*" }}
keep = 1
"""


def container(number: int, name: str, **changed: Any) -> Container:
    """One whose short id is its own, as the history has no other."""
    return replace(alpine(number), name=name, id=f"{number:x}" * 64, **changed)


class Agent:
    """An installation whose agent ran for one tick, and the engine as it is now."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.host = Host(directory)
        self.containers: list[Container] = [
            container(1, "job-1", health="unhealthy"),
            container(2, "web-2"),
            container(3, "web-3"),
            container(4, "spared", labels={"so1.protect": ""}),
        ]
        self.host.docker.run(*self.containers)
        self.database = directory / "data/metrics.db"
        self.config = directory / "agent.toml"
        self.config.write_text(RULES.format(database=self.database))

        engine = SimpleNamespace(
            list=lambda: Listing(tuple(self.containers), 0, 0), close=lambda: None
        )
        monkeypatch.setattr(policy_look, "engine_of", lambda *_, **__: engine)
        monkeypatch.setattr("agent.sources.host_metrics.require_root", lambda _: None)
        outside = self.host.outside()
        start(outside.config, Options(once=True), outside.clock, outside.say, outside)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        return agent(self._monkeypatch, self._capsys, *words, "--config", self.config)


@pytest.fixture
def installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Agent:
    return Agent(tmp_path, monkeypatch, capsys)


def test_why_holds_every_rule_against_the_container_with_value_and_threshold(
    installed: Agent,
) -> None:
    status, out, _ = installed("why", "job-1")
    assert status == 0
    lines = [line.strip() for line in out.splitlines()]
    assert 'rule "large" (stop) claims it' in lines
    assert "held_mb: 1.0; at least 2: not met" in lines
    assert "unhealthy: unhealthy for 0s; for 5m: not met" in lines
    assert any(line.startswith('rule "many" (notify) does not match: name') for line in lines)
    assert "The last tick is" in out, "its wall clock is the scene's"


def test_why_says_what_protects_and_what_no_rule_claims(installed: Agent) -> None:
    assert "protected: label so1.protect" in installed("why", "spared")[1]
    installed.containers.append(container(9, "database"))
    _, out, _ = installed("why", "database", "--json")
    told = json.loads(out)["container"]
    assert (told["acts"], told["why"]) == (False, "no rule claims it")
    assert [one["rule"] for one in told["rules"]][:2] == ["large", "many"]


def test_why_takes_the_beginning_of_an_id_and_refuses_what_is_nobody_or_several(
    installed: Agent,
) -> None:
    installed.containers.append(replace(installed.containers[0], id="2222" + "0" * 60))
    assert "web-3" in installed("why", "3333")[1]
    assert "No container" in installed("why", "nobody")[2]
    assert "No container" in installed("why", "333")[2]
    assert "Several containers" in installed("why", "2222")[2]
    # A whole name is nobody else's id, however that begins.
    installed.containers.append(container(5, "3333"))
    assert installed("why", "3333")[1].startswith("3333 (555555555555)")


def test_a_plan_has_what_would_be_done_in_order_and_touches_nothing(installed: Agent) -> None:
    status, out, _ = installed("plan", "--json")
    assert status == 0
    (one,) = json.loads(out)["decisions"]
    # The scene's cgroups hold more the later their name comes.
    assert (one["action"], one["rule"], one["container_name"]) == ("notify", "many", "web-3")
    assert "web-3" in installed("plan")[1]
    assert installed.host.docker.removed == installed.host.docker.acted == []


def test_one_that_no_tick_has_seen_is_in_doubt_and_holds_a_place(installed: Agent) -> None:
    installed.containers.append(container(9, "web-9"))
    (one,) = json.loads(installed("plan", "--json")[1])["decisions"]
    assert one["container_name"] == "web-3"
    installed.containers = [one for one in installed.containers if one.name != "web-2"]
    assert json.loads(installed("plan", "--json")[1])["decisions"] == []


def test_one_that_the_agent_is_at_goes_and_no_other_in_its_place(
    installed: Agent, remover: Remover
) -> None:
    file = planned(installed)
    assert [one["container_name"] for one in json.loads(file.read_text())["decisions"]] == [
        "job-1",
        "web-3",
    ]
    agent = UnderWay(installed.database.parent)
    # Of the two it is the one that holds less.
    agent.say([one.key for one in installed.containers if one.name in {"job-1", "web-2"}])
    assert json.loads(installed("plan", "--json")[1])["decisions"] == []
    assert "The agent is at job-1, web-2 already." in installed("plan")[1]
    assert "the agent is at it already" in installed("why", "web-2")[1]
    assert "within the 1 that stay" in installed("why", "web-3")[1]
    status, _, err = installed("plan", "--free", "1M")
    assert status == 1
    assert "All that may go, 0 of 4 containers" in err
    status, out, _ = installed("apply", str(file))
    assert (status, remover.done) == (0, [])
    assert "job-1: left, the agent is at it already" in out
    assert "web-3: left, within the 1 that stay" in out

    agent.say(())
    assert installed("apply", str(file))[0] == 0
    assert {one.container_name for one in remover.done} == {"job-1"}


class Remover:
    """Carries out everything but what it is told to refuse."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.hurry: Callable[[], bool] = lambda: False
        self.done: list[Decision] = []

    def remove(self, decisions: Sequence[Decision], deadline_ns: int) -> list[Removal]:
        del deadline_ns
        self.done += decisions
        return [
            Removal(one, Outcome.FAILED, 1, "no")
            if one.container_name == self.refused
            else Removal(one, Outcome.STOPPED, 1)
            for one in decisions
        ]

    def close(self, wait_s: float) -> list[Removal]:
        del wait_s
        return []


@pytest.fixture
def remover(monkeypatch: pytest.MonkeyPatch) -> Remover:
    made = Remover()
    monkeypatch.setattr(policy_apply, "Remover", lambda *_: made)
    monkeypatch.setattr(policy_look.Look, "is_stale", lambda *_: False)
    return made


def planned(installed: Agent) -> Path:
    """A plan in which both kinds of rule act."""
    text = installed.config.read_text().replace("held_mb = 2, unhealthy", "held_mb = 1, unhealthy")
    installed.config.write_text(text.replace('"5m"', '"0s"'))
    file = installed.config.with_name("plan.json")
    file.write_text(installed("plan", "--json")[1])
    return file


def test_apply_carries_out_what_still_holds_names_the_rest_and_leaves_rows(
    installed: Agent, remover: Remover
) -> None:
    file = planned(installed)
    installed.containers = [
        replace(one, name="renamed") if one.name == "web-3" else one for one in installed.containers
    ]
    status, out, _ = installed("apply", str(file))
    assert status == 0
    assert [(one.container_name, one.action) for one in remover.done] == [("job-1", Action.STOP)]
    assert "job-1: stopped" in out
    assert "web-3: left, renamed since" in out
    (done,) = handover.take(installed.database.parent)
    assert [one.outcome for one in done.removals] == [Outcome.STOPPED]


def test_apply_reports_without_touching_and_in_json(installed: Agent, remover: Remover) -> None:
    file = planned(installed)
    remover.refused = "job-1"
    status, out, _ = installed("apply", str(file), "--json")
    told = json.loads(out)
    assert status == 1
    assert told["plan"] == json.loads(file.read_text())["id"]
    assert sorted(one["outcome"] for one in told["done"]) == ["failed", "notified"]
    assert told["left"] == {}


def test_a_plan_is_not_applied_without_a_fresh_tick(installed: Agent) -> None:
    status, _, err = installed("apply", str(planned(installed)))
    assert status == 1
    assert "too old to tell" in err


def test_a_plan_to_free_memory_is_made_applied_and_says_what_came(
    installed: Agent, remover: Remover
) -> None:
    file = installed.config.with_name("plan.json")
    status, out, _ = installed("plan", "--free", "1M", "--json")
    assert status == 0
    file.write_text(out)
    made = json.loads(out)
    # Only `large` stops what it claims; `many` reports, and the third is protected.
    assert [(one["container_name"], one["action"]) for one in made["decisions"]] == [
        ("job-1", "stop")
    ]
    assert made["reclaim"]["target_mb"] == 1
    assert made["reclaim"]["earlier"]["passes"] == 0
    assert "1 MB asked for, 1 MB held, 1 MB predicted" in installed("plan", "--free", "1M")[1]
    status, out, _ = installed("apply", str(file))
    assert status == 0
    assert [one.container_name for one in remover.done] == ["job-1"]
    assert "Available memory: " in out
    assert "1 predicted" in out
    installed.containers[0] = replace(installed.containers[0], labels={"so1.protect": ""})
    told = json.loads(installed("apply", str(file), "--json")[1])
    assert told["done"] == []
    assert list(told["left"]) == [installed.containers[0].id]
    assert told["available_before_mb"] == told["available_after_mb"] > 0


def test_more_than_all_of_them_hold_is_refused_with_what_they_hold(installed: Agent) -> None:
    status, out, err = installed("plan", "--free", "4G", "--json")
    assert (status, out) == (1, "")
    assert "All that may go, 1 of 4 containers, hold 1 MB together, less than 4096 MB" in err
    status, _, err = installed("plan", "--free", "plenty")
    assert status == 2
    assert "no amount of memory" in err


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"id": "x", "decisions": []}', "\xff"])
def test_what_is_no_plan_is_one_sentence(installed: Agent, remover: Remover, text: str) -> None:
    file = installed.config.with_name("plan.json")
    file.write_text(text)
    status, _, err = installed("apply", str(file))
    assert status == 1
    assert "plan" in err
    assert "Traceback" not in err
    assert remover.done == []


def test_without_a_history_there_is_one_sentence(installed: Agent) -> None:
    for path in installed.database.parent.iterdir():
        path.unlink()
    status, _, err = installed("plan")
    assert status != 0
    assert "There is no history" in err


def test_a_history_of_before_the_rules_is_reported_with_its_remedy(installed: Agent) -> None:
    with closing(sqlite3.connect(installed.database)) as connection:
        connection.execute("ALTER TABLE deletions DROP COLUMN action")
        connection.execute("DROP TABLE policy_state")
    with History.open(installed.database) as history:
        assert history.policy_state() == ()
        with pytest.raises(StoreError, match="another shape") as old:
            history.last_deletions(5)
    assert "sudo agent start" in old.value.hint
