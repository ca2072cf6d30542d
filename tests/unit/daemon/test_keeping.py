"""`agent stop --keep`: the word reaches the one agent that it is for, and its containers stay."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.cli import app
from agent.cli.commands import control
from agent.config import decode_config
from agent.daemon import keeping, lock
from agent.errors import AgentError
from tests.unit.agent_scene import Host, run, signal_self

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="locks are root's")
FREED = ["cron removed", "grafana cancelled", "bpf closed", "modules unloaded"]


def leave_word(host: Host) -> None:
    """What another `agent stop --keep` does while this agent runs, signal included."""
    path = host.directory / "run" / "agent.lock"
    record = json.loads(path.read_text())
    assert record["keeps"] is True
    text = json.dumps({"pid": record["pid"], "started_wall_ns": record["started_wall_ns"]})
    (host.directory / "run" / "keep").write_text(text)
    signal_self(signal.SIGTERM)


def test_containers_and_grafana_stay_and_all_else_is_taken_down(host: Host) -> None:
    host.time.at(30, lambda: leave_word(host))
    assert run(host) == 0
    assert [one for one in host.did if one in FREED] == FREED
    assert "containers removed" not in host.did
    assert "grafana down" not in host.did
    assert "The containers stay, as `agent stop --keep` has it." in host.said
    assert not (host.directory / "run" / "keep").exists()


@pytest.mark.parametrize(
    "word",
    [
        '{"pid": 1, "started_wall_ns": 1}',
        json.dumps({"pid": os.getpid(), "started_wall_ns": 1}),
        "",
        "[]",
        '{"pid": "\\ud800", "started_wall_ns": {}}',
    ],
    ids=["another's", "an earlier agent's of this pid", "empty", "a list", "nonsense"],
)
def test_a_word_that_is_for_nobody_living_keeps_nothing(host: Host, word: str) -> None:
    (host.directory / "run").mkdir(parents=True)
    (host.directory / "run" / "keep").write_text(word)
    host.time.at(30, lambda: signal_self(signal.SIGTERM))
    assert run(host) == 0
    assert "containers removed" in host.did
    assert "grafana down" in host.did
    assert not (host.directory / "run" / "keep").exists()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(f'[paths]\nrun = "{tmp_path}/run"\n')
    (tmp_path / "run").mkdir(mode=0o755)
    return path


@pytest.fixture
def holding(file: Path, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """This process is the agent; what the word says when the SIGTERM comes, which ends the hold."""
    lock = os.open(file.parent / "run/agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    record = {"pid": os.getpid(), "started_wall_ns": 77, "role": "agent"} | request.param
    os.write(lock, json.dumps(record).encode())
    words: list[str] = []

    def end(number: int, frame: object) -> None:
        keep = file.parent / "run/keep"
        words.append(keep.read_text() if keep.exists() else "")
        fcntl.flock(lock, fcntl.LOCK_UN)

    before = signal.signal(signal.SIGTERM, end)
    yield words
    signal.signal(signal.SIGTERM, before)
    os.close(lock)


@pytest.mark.parametrize("holding", [{"keeps": True}], indirect=True)
def test_the_word_is_there_before_the_signal(file: Path, holding: list[str]) -> None:
    assert app.run(["stop", "--keep", "--config", str(file)]) == 0
    (word,) = holding
    assert json.loads(word) == {"pid": os.getpid(), "started_wall_ns": 77}


@pytest.mark.parametrize("holding", [{"keeps": True}], indirect=True)
def test_a_plain_stop_leaves_no_word(file: Path, holding: list[str]) -> None:
    assert app.run(["stop", "--config", str(file)]) == 0
    assert holding == [""]


@pytest.mark.parametrize("holding", [{}], indirect=True)
def test_an_agent_that_would_not_heed_it_is_not_stopped(file: Path, holding: list[str]) -> None:
    config = decode_config(file.read_text(), str(file))
    with pytest.raises(AgentError, match="does not know `--keep`") as raised:
        control.stop(config, keep=True)
    assert f"kill -9 {os.getpid()}" in raised.value.hint
    assert holding == []


def test_without_an_agent_there_is_nothing_to_keep(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["stop", "--keep", "--config", str(file)]) == 0
    assert capsys.readouterr().out == "No agent is running.\n"
    assert not (file.parent / "run/keep").exists()


@pytest.mark.parametrize("holding", [{"pid": os.getppid()}], indirect=True)
def test_a_record_of_the_run_before_is_nobody_to_kill(
    file: Path, holding: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "named_holder", partial(lock.named_holder, wait_s=0))
    config = decode_config(file.read_text(), str(file))
    with pytest.raises(AgentError, match="does not say which") as raised:
        control.stop(config, keep=True)
    assert "kill" not in str(raised.value)
    assert holding == []
    assert not (file.parent / "run/keep").exists()
