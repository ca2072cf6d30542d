"""`agent status`: each source stands alone, and what is still there is not told as removed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.cli.commands import control
from agent.config import Config
from agent.daemon import status as status_file
from agent.daemon.lock import AGENT_LOCK
from agent.model.proof import ByHand
from agent.store import by_hand
from tests.unit.builders import status as a_status
from tests.unit.builders import tick_status
from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import Plan

NOISE = bytes(range(1, 256)) * 17


@pytest.fixture
def config(tmp_path: Path) -> Config:
    run = tmp_path / "run"
    run.mkdir(mode=0o750)
    paths = msgspec.structs.replace(
        Config().paths, run=str(run), database=str(tmp_path / "metrics.db")
    )
    return msgspec.structs.replace(Config(), paths=paths)


@pytest.fixture
def held(config: Config) -> Iterator[Path]:
    """The directory of an agent that holds its lock and has written its status."""
    run = Path(config.paths.run)
    lock = os.open(run / AGENT_LOCK, os.O_RDWR | os.O_CREAT, 0o640)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, json.dumps({"pid": os.getpid(), "started_wall_ns": 1}).encode())
    status_file.write(run, a_status(tick=tick_status(number=41)))
    yield run
    os.close(lock)


def told(config: Config, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = control.status(config, as_json=False)
    return code, capsys.readouterr().out


def told_as_json(config: Config, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    control.status(config, as_json=True)
    value: dict[str, object] = json.loads(capsys.readouterr().out)
    return value


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the lock is root's")


@needs_root
def test_a_damaged_database_hides_nothing_of_the_agent_s_state(
    config: Config, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(config.paths.database).write_bytes(NOISE)

    code, text = told(config, capsys)
    value = told_as_json(config, capsys)

    assert code == 0
    assert "number 41" in text
    assert "damaged" in text
    assert "with sudo" not in text
    assert value["running"] is True
    assert value["status"] is not None
    assert [config.paths.database in one for one in value["problems"]] == [True]  # type: ignore[attr-defined]


@needs_root
def test_a_damaged_status_file_hides_nothing_of_the_history(
    config: Config, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path(config.paths.database), Plan(hours=0.5, processes=5, incidents=False))
    (held / status_file.FILE_NAME).write_bytes(b"{")

    code, text = told(config, capsys)

    assert code == 0
    assert "running" in text
    assert "not readable" in text
    assert text.count("\nremoved ") == 5


@needs_root
def test_a_lock_that_cannot_be_read_hides_nothing_and_is_the_exit_status(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path(config.paths.database), Plan(hours=0.5, processes=5, incidents=False))
    (Path(config.paths.run) / AGENT_LOCK).mkdir()

    code, text = told(config, capsys)

    assert code not in (0, control.NOT_RUNNING)
    assert "running or not" in text
    assert text.count("\nremoved ") == 5


@needs_root
def test_without_an_agent_the_status_is_3_whatever_the_database_is(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(config.paths.database).write_bytes(NOISE)
    code, text = told(config, capsys)
    assert code == control.NOT_RUNNING
    assert "not running" in text


ENDINGS = {
    ("removed", ""): "removed",
    ("gone", ""): "removed",
    ("gone", "it runs again"): "not removed",
    ("gone", "not governed any more"): "not removed",
    ("failed", "device or resource busy"): "not removed",
    ("dry-run", ""): "not removed",
}


@needs_root
@pytest.mark.parametrize(("outcome", "error"), ENDINGS)
def test_only_what_is_away_is_told_as_removed(
    config: Config, capsys: pytest.CaptureFixture[str], outcome: str, error: str
) -> None:
    path = Path(config.paths.database)
    make(path, Plan(hours=0.5, processes=5, incidents=False))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE deletions SET outcome = ?, error = ?", (outcome, error))

    _, text = told(config, capsys)

    lines = [line for line in text.splitlines() if "MB held" in line]
    assert len(lines) == 5
    for line in lines:
        assert line.startswith(ENDINGS[outcome, error] + "  ")
        assert error in line
        assert not error or " gone" not in line


@needs_root
def test_on_a_terminal_the_same_rows_are_a_table_that_no_name_can_steer(
    config: Config,
    held: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(Path(config.paths.database), Plan(hours=0.5, processes=5, incidents=False))
    _, plain = told(config, capsys)
    monkeypatch.setattr(control, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "400")
    _, table = told(config, capsys)
    assert "\x1b[2J" not in table

    def words(text: str) -> list[str]:
        return [" ".join(line.split()) for line in text.splitlines() if "not running" not in line]

    assert [line.partition(" ")[0] for line in words(table)] == [
        line.partition(" ")[0] for line in words(plain)
    ]
    assert "number 41" in table


@needs_root
def test_an_agent_whose_first_tick_is_not_done_says_so(
    config: Config, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path(config.paths.database), Plan(hours=0.5, processes=5, incidents=False))
    (held / status_file.FILE_NAME).unlink()
    code, text = told(config, capsys)
    assert code == 0
    assert "running, its first tick is not done yet" in text


@needs_root
def test_a_word_by_hand_is_told_before_the_agent_s_next_tick(
    config: Config, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(config.paths.database).parent
    status_file.write(held, a_status(database=config.paths.database))
    by_hand.write(data, ByHand(armed=False, at_ms=9, why="migration", id="a"))
    assert "DISARMED" in told(config, capsys)[1]
    value = told_as_json(config, capsys)["status"]
    assert isinstance(value, dict)
    assert (value["armed"], value["disarmed_why"]) == (False, "by hand: migration")
    disarmed = a_status(
        database=config.paths.database, armed=False, disarmed_since_ms=9, disarmed_why="by hand"
    )
    status_file.write(held, disarmed)
    by_hand.write(data, ByHand(armed=True, at_ms=10, id="b"))
    assert "DISARMED" not in told(config, capsys)[1]
    by_hand.write(data, ByHand(armed=True, at_ms=8, id="c"))
    assert "DISARMED" in told(config, capsys)[1], "a budget did after that word"
