"""`agent policy check` and `agent policy show`: no running agent, no root."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest

from agent import __main__ as entry
from agent.cli.app import app
from agent.cli.commands import policy
from agent.config import decode_config
from agent.sources import memory_pressure
from agent.sources.memory_pressure import MissingPressure

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
[policy]
[[policy.rule]]
name = "ci"
match = { image = ["registry.example/ci/*"], label = "a=\\"b\\"" }
when = { pressure = { memory = 90, for = "10m" }, idle = "1h" }
action = "stop"
step = [ { after = "1h", action = "remove" } ]
"""
BROKEN = RULES.replace('"1h", action', '"0s", action')


def agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["agent", "policy", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(RULES)
    return path


def test_check_counts_the_rules_and_names_what_is_never_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    monkeypatch.setattr("agent.sources.activity.host_io_problem", lambda: "no I/O is counted")
    monkeypatch.setattr(memory_pressure, "why_missing", lambda _proc: None)
    monkeypatch.setattr(memory_pressure, "why_no_trigger", lambda _proc: "")
    status, out, err = agent(monkeypatch, capsys, "check", file)
    assert (status, err) == (0, "")
    assert "1 rules of your own, 3 built-in" in out
    assert 'rule "ci": idle is never met: no I/O is counted' in out
    status, out, _ = agent(monkeypatch, capsys, "check", "--json", file)
    value = json.loads(out)
    assert (status, value["ok"], value["problems"]) == (0, True, [])
    assert [note.split(": ")[1] for note in value["notes"]] == [
        "idle is never met",
        "the step after stop never comes",
    ]


def test_check_names_every_fault_and_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    file.write_text(BROKEN)
    status, out, err = agent(monkeypatch, capsys, "check", file)
    assert (status, out) == (2, "")
    assert 'rule "ci" (line 3): the steps' in err
    status, out, err = agent(monkeypatch, capsys, "check", "--json", file)
    assert (status, json.loads(out)["ok"], err) == (2, False, "")


def test_show_prints_all_rules_as_they_would_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    status, out, _ = agent(monkeypatch, capsys, "show", "--config", file)
    assert status == 0
    own = out.split("# The built-in set:")[0]
    assert decode_config(own, "x").policy.rule == decode_config(RULES, "x").policy.rule
    names = [one["name"] for one in tomllib.loads(out)["policy"]["rule"]]
    assert names == ["ci", "original-exited", "original-low", "original-high"]
    _, out, _ = agent(monkeypatch, capsys, "show", "--json", "--config", file)
    value = json.loads(out)
    assert [one["built_in"] for one in value["rules"]] == [False, True, True, True]
    assert value["built_in_reach"] == "managed"


def test_show_says_where_no_rule_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    file.write_text('[policy]\nrules = "none"\n')
    assert "nothing is done" in agent(monkeypatch, capsys, "show", "--config", file)[1]


def test_there_is_a_command_for_each_question_about_the_rules() -> None:
    named = {one.callback.__name__ for one in policy.app.registered_commands if one.callback}
    assert named == {"check", "show", "why", "plan", "apply", "replay", "disarm", "arm"}
    whole = {one.callback.__name__ for one in app.registered_commands if one.callback}
    assert {"reload", "stop"} <= whole


@pytest.mark.parametrize(
    ("missing", "no_trigger", "said"),
    [
        (
            MissingPressure("it is turned off (psi=0)", "Take it away."),
            "",
            "(psi=0). Take it away.",
        ),
        (MissingPressure("this kernel is built without PSI", "Use another."), "", "without PSI."),
        (None, "the right CAP_SYS_RESOURCE is missing", "read each second"),
    ],
)
def test_check_says_why_pressure_is_not_what_the_rule_thinks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    missing: MissingPressure | None,
    no_trigger: str,
    said: str,
) -> None:
    monkeypatch.setattr(memory_pressure, "why_missing", lambda _proc: missing)
    monkeypatch.setattr(memory_pressure, "why_no_trigger", lambda _proc: no_trigger)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    file.write_text(
        '[[policy.rule]]\nname = "x"\nmatch.name = "x"\nwhen.pressure = { memory = 20 }\n'
    )
    status, out, _ = agent(monkeypatch, capsys, "check", file)
    assert status == 0
    assert said in out
