"""`agent reload` from the outside: what the running agent answers is what the command says."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from agent.cli.commands import control
from agent.config import Config, with_overrides
from agent.daemon import status as status_file
from agent.errors import AgentError
from tests.unit import builders

if TYPE_CHECKING:
    from pathlib import Path


class Running:
    """An agent that answers a signal by its status file."""

    def __init__(self, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_dir = run_dir
        self.signals: list[int] = []
        self.problems: list[str] = []
        self.answers = self.there = True
        status_file.write(run_dir, builders.status(reloads=4))
        monkeypatch.setattr(control, "signal_agent", self._signal)
        monkeypatch.setattr(control, "agent_is_running", lambda _: self.there)
        monkeypatch.setattr(control, "_RELOAD_WAIT_S", 0.05)

    def _signal(self, run_dir: Path, number: int) -> int:
        assert run_dir == self.run_dir
        self.signals.append(number)
        if self.there and self.answers:
            status_file.write(run_dir, builders.status(reloads=5, problems=self.problems))
        return 4242 if self.there else 0


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    return Running(tmp_path, monkeypatch)


def reload(running: Running) -> int:
    return control.reload(with_overrides(Config(), paths__run=str(running.run_dir)))


def test_it_waits_for_the_agent_to_go_by_its_rules(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reload(running) == 0
    # An agent of before the rules ignores this one; it would end by any other.
    assert running.signals == [signal.SIGURG]
    assert "goes by the rules as they are now" in capsys.readouterr().out


def test_rules_that_the_agent_does_not_take_are_its_sentence(running: Running) -> None:
    running.problems = ["docker: away", "rules: The rules are those of before: no."]
    with pytest.raises(AgentError, match=r"^The rules are those of before: no\."):
        reload(running)


def test_an_agent_that_does_not_answer_is_one_sentence(running: Running) -> None:
    running.answers = False
    with pytest.raises(AgentError, match="has not read its rules"):
        reload(running)


def test_without_an_agent_the_status_is_3(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    running.there = False
    assert reload(running) == 3
    assert "No agent is running" in capsys.readouterr().out
