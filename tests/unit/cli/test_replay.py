"""`agent policy replay` over what a running agent left, on a host made of values."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from agent.daemon.composition import Options, start
from tests.unit.agent_parts import WALL_NS
from tests.unit.agent_scene import Host, alpine, signal_self
from tests.unit.cli.test_policy import agent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Replays:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.host = Host(directory)
        self.host.memory.available_mb = lambda: 4000.0
        self.config = directory / "agent.toml"

    def run(self, text: str, rules: list[dict[str, Any]], seconds: float, **more: Any) -> None:
        """The agent for so long, under the same rules as `text`."""
        interval_s = more.get("interval_s", 20)
        paths = f'[paths]\ndatabase = "{self.host.directory}/data/metrics.db"\n'
        self.config.write_text(f"interval_s = {interval_s}\n{paths}{text}")
        self.host.time.at(seconds, signal_self)
        dry_run = more.pop("dry_run", False)
        outside = self.host.outside(policy__rule=rules, **more)
        start(outside.config, Options(dry_run=dry_run), outside.clock, outside.say, outside)
        self._monkeypatch.setattr("time.time_ns", lambda: WALL_NS + int((seconds + 60) * 10**9))

    def __call__(self, *words: str) -> tuple[int, str, str]:
        return agent(self._monkeypatch, self._capsys, "replay", *words, "--config", self.config)

    def found(self, *words: str) -> dict[str, Any]:
        status, out, err = self(*words, "--json")
        assert (status, err) == (0, "")
        told: dict[str, Any] = json.loads(out)["replay"]
        return told


@pytest.fixture
def replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Replays:
    return Replays(tmp_path, monkeypatch, capsys)


JOBS = '[[policy.rule]]\nname = "jobs"\nmatch = { name = "job-*" }\n'
MATCH = {"name": "jobs", "match": {"name": "job-*"}}


def jobs(host: Host, count: int = 3) -> None:
    made = (alpine(n, name=f"job-{n}") for n in range(1, count + 1))
    host.docker.run(*(replace(one, id=one.name[-1] * 64) for one in made))


def away(host: Host) -> None:
    host.docker.away = True
    host.time.at(30, lambda: setattr(host.docker, "away", False))


def short(host: Host) -> None:
    """Memory goes from the 10th second on, and each job that goes gives some back."""

    def available() -> float:
        eaten = max(0.0, host.time.passed_s - 10) * 100
        return 2000.0 - eaten + 300 * len(host.docker.removed)

    host.memory.available_mb = available


def more_come(host: Host) -> None:
    """Others are created while the agent runs, and one whose removal fails."""
    host.time.at(50, lambda: jobs(host, 5))


def pressed(host: Host) -> None:
    host.memory.pressure = lambda: 55.0 if host.time.passed_s > 20 else 1.0


CASES: dict[str, tuple[str, dict[str, Any], Callable[[Host], None] | None, dict[str, Any]]] = {
    "a removal beyond keep": (
        'keep = 1\naction = "remove"',
        {"keep": 1, "action": "remove"},
        None,
        {},
    ),
    "a dry run": (
        'keep = 1\naction = "stop"',
        {"keep": 1, "action": "stop"},
        None,
        {"dry_run": True},
    ),
    "a report and its step": (
        'keep = 2\nstep = [{ after = "1m", action = "stop" }]',
        {"keep": 2, "step": [{"after": "1m", "action": "stop"}]},
        None,
        {},
    ),
    "an engine that was away": (
        'keep = 1\naction = "pause"',
        {"keep": 1, "action": "pause"},
        away,
        {},
    ),
    "memory that ran short between two ticks": (
        'when = { available_mb = 400 }\naction = "remove"',
        {"when": {"available_mb": 400}, "action": "remove"},
        short,
        {"interval_s": 60.0},
    ),
    "pressure that lasts": (
        'when = { pressure = { memory = 20, for = "3s" } }\naction = "stop"',
        {"when": {"pressure": {"memory": 20, "for": "3s"}}, "action": "stop"},
        pressed,
        {"interval_s": 60.0},
    ),
    "more that come later": (
        'keep = 2\naction = "remove"',
        {"keep": 2, "action": "remove"},
        more_come,
        {},
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_every_decision_of_a_running_agent_is_reproduced(replays: Replays, what: str) -> None:
    text, more, prepare, settings = CASES[what]
    jobs(replays.host)
    if prepare:
        prepare(replays.host)
    replays.run(JOBS + text, [MATCH | more], 130, **settings)
    recorded = replays.host.rows(
        "SELECT count(*) FROM deletions WHERE reason <> 'stop' AND rule <> ''"
    )
    found = replays.found()
    assert found["differences"] == []
    assert (found["recorded"],) == recorded[0]
    assert found["reproduced"] == found["recorded"] > 0
    passes = replays.host.rows("SELECT count(DISTINCT timestamp) FROM pass_containers")
    assert (passes[0][0] > 0) == ("memory that ran short" in what)


def test_the_built_in_set_is_reproduced_over_a_restart_of_the_agent(replays: Replays) -> None:
    names = [f"so1_contenedor_{n}" for n in range(1, 8)]
    made = [replace(alpine(n), id=f"{n:x}" * 64, name=name) for n, name in enumerate(names, 1)]
    replays.host.docker.run(*made[:5])
    replays.run("", [], 70)
    replays.host.docker.run(*made)
    replays.run("", [], 160)
    found = replays.found()
    assert found["differences"] == []
    assert found["reproduced"] == found["recorded"] > 0


def test_a_pass_that_holds_the_limit_between_two_ticks_is_reproduced(replays: Replays) -> None:
    def burst() -> None:
        made = [alpine(n, name=f"so1_contenedor_{n}") for n in range(1, 13)]
        replays.host.docker.run(*(replace(one, id=f"{n:x}" * 64) for n, one in enumerate(made, 1)))
        replays.host.send("start")

    replays.host.time.at(25, burst)
    replays.run("", [], 70)
    assert replays.host.rows(
        "SELECT count(*) FROM deletions WHERE timestamp NOT IN (SELECT timestamp FROM metrics)"
    ) == [(9,)]
    found = replays.found()
    assert found["differences"] == []
    assert (found["recorded"], found["reproduced"]) == (9, 9)


def test_decisions_are_made_by_the_rules_of_then_whatever_the_file_says_now(
    replays: Replays,
) -> None:
    jobs(replays.host)
    replays.run("", [MATCH | {"keep": 1, "action": "stop"}], 90)
    found = replays.found()
    assert found["differences"] == []
    assert found["recorded"] == found["reproduced"] == 2
    assert found["rules_since_ms"] <= found["from_ms"]
    assert "stored from" not in replays()[1]


def test_the_output_says_since_when_it_can_tell(replays: Replays) -> None:
    jobs(replays.host)
    replays.run(JOBS + "keep = 5\n", [MATCH | {"keep": 5}], 90)
    ticks = replays.host.rows("SELECT timestamp FROM metrics ORDER BY id")
    with closing(sqlite3.connect(replays.host.directory / "data/metrics.db")) as connection:
        connection.execute("UPDATE container_states SET timestamp = ?", ticks[2])
        connection.execute("DELETE FROM policy_rules")
        connection.commit()
    found = replays.found()
    assert (found["from_ms"], found["states_since_ms"]) == (*ticks[0], *ticks[2])
    assert found["rules_since_ms"] is None
    text = replays()[1]
    since = datetime.fromtimestamp(ticks[2][0] // 1000).astimezone().isoformat(" ")
    assert f"In which state each container is, and since when, is stored from: {since}." in text
    assert "By which rules it was decided is stored from: none of them." in text


def test_other_rules_tell_what_would_have_gone_and_change_nothing(replays: Replays) -> None:
    jobs(replays.host)
    replays.run("", [], 90)
    other = replays.config.with_name("other.toml")
    other.write_text(JOBS + 'when = { held_mb = 1 }\naction = "remove"\n')
    found = replays.found("--with", str(other))
    assert sorted({one["container_name"] for one in found["actions"]}) == [
        "job-1",
        "job-2",
        "job-3",
    ]
    assert all(one["unsure"] for one in found["actions"])
    text = replays("--with", str(other))[1]
    assert 'remove job-3 (333333333333): rule "jobs"' in text
    assert replays.host.rows("SELECT count(*) FROM deletions") == [(0,)]


def test_without_a_tick_in_the_span_there_is_one_sentence(replays: Replays) -> None:
    jobs(replays.host)
    replays.run("", [], 30)
    assert "of 0 recorded decisions reproduced" in replays()[1]
    status, _, err = replays("--since", "30s")
    assert status == 1
    assert "no tick of the last 30s" in err
    assert replays("--since", "soon")[0] == 2


def test_a_history_of_before_these_tables_is_one_sentence(replays: Replays) -> None:
    jobs(replays.host)
    replays.run("", [], 30)
    with closing(sqlite3.connect(replays.host.directory / "data/metrics.db")) as connection:
        connection.execute("DROP TABLE pass_containers")
    status, _, err = replays()
    assert status != 0
    assert "another shape" in err
    assert "Traceback" not in err
