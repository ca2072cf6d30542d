"""`agent reload` from the outside: what the running agent answers is what the command says."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agent.cli.commands import control
from agent.cli.commands.settings_of import settings_of
from agent.config import Config, with_overrides
from agent.daemon import status as status_file
from agent.errors import AgentError, ConfigError
from tests.unit import builders


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
        self.file: Path | None = None
        monkeypatch.setattr(control, "settings_of", lambda pid: (pid == 4242 and self.file) or None)

    def _signal(self, run_dir: Path, number: int) -> int:
        assert run_dir == self.run_dir
        self.signals.append(number)
        if self.there and self.answers:
            status_file.write(
                run_dir, builders.status(reloads=4 + len(self.signals), problems=self.problems)
            )
        return 4242 if self.there else 0


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    return Running(tmp_path, monkeypatch)


def reload(running: Running, file: Path | None = None) -> int:
    return control.reload(with_overrides(Config(), paths__run=str(running.run_dir)), file)


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


def test_the_file_that_the_agent_reads_is_named(
    running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    running.file = tmp_path / "own.toml"
    running.file.write_text("")
    (tmp_path / "link.toml").symlink_to(running.file)
    assert reload(running) == reload(running, running.file) == 0
    assert reload(running, tmp_path / "link.toml") == 0
    assert capsys.readouterr().out.count(f"as they are now, those of {running.file}.") == 3


def test_another_file_than_the_agent_s_is_refused_and_nothing_is_sent(
    running: Running, tmp_path: Path
) -> None:
    running.file = tmp_path / "own.toml"
    other = tmp_path / "other.toml"
    with pytest.raises(ConfigError, match=f"reads {running.file}, not {other}"):
        reload(running, other)
    assert running.signals == []


def test_without_config_it_is_the_agent_s_own_file_that_is_checked(
    running: Running, tmp_path: Path
) -> None:
    running.file = tmp_path / "own.toml"
    running.file.write_text("intervall_s = 3")
    with pytest.raises(ConfigError, match="intervall_s"):
        reload(running)
    assert running.signals == []


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("python3 /opt/so1/bin/agent start", "/etc/so1/agent.toml"),
        ("agent start --config /x/a.toml --no-bpf", "/x/a.toml"),
        ("agent start --once --config=b.toml", "/here/b.toml"),
        ("agent status --config /x/a.toml", None),
        ("agent start --config a --config c", "/here/c"),
    ],
)
def test_an_agent_s_file_is_that_of_its_command_line(
    words: str, file: str | None, tmp_path: Path
) -> None:
    about = tmp_path / "7"
    about.mkdir()
    (about / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words.split()))
    (about / "cwd").symlink_to("/here")
    assert settings_of(7, tmp_path) == (file and Path(file))
    assert settings_of(8, tmp_path) is None


def test_without_an_agent_the_status_is_3(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    running.there = False
    assert reload(running) == 3
    assert "No agent is running" in capsys.readouterr().out
