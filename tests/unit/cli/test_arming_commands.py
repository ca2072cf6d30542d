"""`agent policy disarm | arm` and `agent notify test`, called as people do."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.app import run
from agent.daemon import status as status_file
from agent.daemon.lock import AGENT_LOCK
from agent.daemon.trust import word_on_disk
from agent.errors import AgentError, PrivilegeError
from agent.model.proof import ARMED, ArmingWord, ProofState
from agent.store import proof_state
from tests.unit.actions.receiver import receiving, status
from tests.unit.builders import status as a_status
from tests.unit.store.builders import a_tick, open_store

KEY = "0123456789abcdef-not-to-be-seen"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("agent.sources.host_metrics.require_root", lambda _: None)
    path = tmp_path / "agent.toml"
    path.write_text(f'[paths]\ndatabase = "{tmp_path}/data/metrics.db"\nrun = "{tmp_path}/run"\n')
    path.chmod(0o600)
    return path


def database(config: Path) -> Path:
    return config.with_name("data") / "metrics.db"


def call(config: Path, *words: str) -> int:
    return run([*words, "--config", str(config)])


def test_what_is_wanted_by_hand_is_known_without_an_agent(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word_on_disk(database(config)) == ARMED
    before = time.time_ns() // 10**6
    assert call(config, "policy", "disarm", "until\x1b[2J Monday") == 0
    assert "no container is touched until" in capsys.readouterr().out
    word = word_on_disk(database(config))
    assert not word.armed
    assert word.since_ms >= before
    assert word.why.startswith("by hand: until")
    assert word.why.isprintable()
    assert call(config, "policy", "arm") == 0
    assert word_on_disk(database(config)).armed


def test_arming_by_hand_ends_what_a_budget_did(config: Path) -> None:
    spent = ProofState(disarmed=True, since_ms=1000, why="the budget loss is spent")
    with open_store(database(config)) as store:
        store.kept.append(
            proof_state.ProofRows(lambda: (spent, ArmingWord(False, 1000, spent.why)))
        )
        store.write_tick(a_tick())
    assert word_on_disk(database(config)) == ArmingWord(False, 1000, "the budget loss is spent")
    call(config, "policy", "arm")
    assert word_on_disk(database(config)).armed


def test_a_plan_is_not_carried_out_while_disarmed(config: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"id": "x", "decisions": []}')
    call(config, "policy", "disarm", "not now")
    with pytest.raises(AgentError, match=r"disarmed \(by hand: not now\)"):
        call(config, "policy", "apply", str(plan))


def test_a_directory_that_others_may_write_is_refused(config: Path) -> None:
    database(config).parent.mkdir(mode=0o777)
    database(config).parent.chmod(0o777)
    with pytest.raises(AgentError):
        call(config, "policy", "disarm")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_only_root_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("")
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    for words in (("policy", "disarm"), ("policy", "arm"), ("notify", "test")):
        with pytest.raises(PrivilegeError):
            call(path, *words)


@pytest.fixture
def running(config: Path) -> Iterator[str]:
    """The database of an agent that runs."""
    run_dir = config.with_name("run")
    run_dir.mkdir(mode=0o750)
    its = f"{config.parent}/elsewhere/metrics.db"
    status_file.write(run_dir, a_status(database=its))
    lock = os.open(run_dir / AGENT_LOCK, os.O_RDWR | os.O_CREAT, 0o640)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield its
    os.close(lock)


@pytest.mark.skipif(os.geteuid() != 0, reason="the lock is root's")
@pytest.mark.parametrize("word", ["disarm", "arm"])
def test_another_database_than_the_running_agent_s_is_refused(
    config: Path, running: str, word: str
) -> None:
    with pytest.raises(AgentError) as caught:
        call(config, "policy", word)
    assert running in caught.value.message
    assert str(database(config)) in caught.value.message
    assert not database(config).parent.exists()
    Path(running).parent.mkdir(mode=0o750)
    assert call(config, "policy", word, "--database", running) == 0
    assert word_on_disk(Path(running)).armed is (word == "arm")


def test_a_database_that_nobody_has_is_refused_and_not_made(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "typo" / "metrics.db"
    with pytest.raises(AgentError, match=f"no directory {other.parent}"):
        call(config, "policy", "disarm", "--database", str(other))
    assert not other.parent.exists()


def hooked(config: Path, url: str) -> None:
    key = config.with_name("key")
    key.write_text(KEY)
    key.chmod(0o600)
    with config.open("a") as file:
        file.write(f'[notify.webhook]\nurl = "{url}/T0KEN"\nkey_file = "{key}"\n')


def test_each_receivers_answer_is_printed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with receiving() as receiver:
        hooked(config, receiver.url)
        assert call(config, "notify", "test", "--summary", "hello") == 0
        told = capsys.readouterr().out
        assert told.split() == ["webhook", f"127.0.0.1:{receiver.port}", "has", "it"]
        sent = json.loads(receiver.requests[0].body)
        assert (sent["event"], sent["summary"]) == ("test", "hello")
        receiver.answer = status("403 Forbidden", body="bad key")
        assert call(config, "notify", "test", "--json") == 1
        document = json.loads(capsys.readouterr().out)
    (one,) = document["receivers"]
    assert one["problem"] == f"127.0.0.1:{receiver.port} answered with status 403: bad key."
    assert one["where"] == f"127.0.0.1:{receiver.port}"
    for text in (told, json.dumps(document)):
        assert KEY not in text
        assert "T0KEN" not in text


def test_without_a_receiver_it_says_how_to_set_one(config: Path) -> None:
    with pytest.raises(AgentError, match="No receiver is set") as caught:
        call(config, "notify", "test")
    assert "[notify]" in caught.value.hint
