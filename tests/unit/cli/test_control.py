"""`agent stop` and `agent cleanup`: whom the signal reaches, and what is left afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.actions import cron, kernel_modules
from agent.actions.grafana import Grafana
from agent.cli import app
from agent.cli.commands import control
from agent.config import Config, decode_config
from agent.errors import AgentError, LockedError, ModulesError
from tests.unit.sources.engine.fake_engine import FakeEngine, reply

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="locks and cron files are root's")
INSTALLATION = "0123456789abcdef" * 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration all of whose places are a test's own."""
    (tmp_path / "cron.d").mkdir()
    path = tmp_path / "agent.toml"
    path.write_text(
        f'docker_host = "unix://{tmp_path}/docker.sock"\n[cron]\ndirectory = "{tmp_path}/cron.d"\n'
        f'[paths]\nrun = "{tmp_path}/run"\ndatabase = "{tmp_path}/db/metrics.db"\n'
    )
    return path


@pytest.fixture
def config(file: Path) -> Config:
    return decode_config(file.read_text(), str(file))


@pytest.fixture
def run_dir(config: Config) -> Path:
    path = Path(config.paths.run)
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def lock(run_dir: Path) -> Iterator[int]:
    """This process holds the agent's lock and says so, as an agent does."""
    held = os.open(run_dir / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.write(held, json.dumps({"pid": os.getpid(), "started_wall_ns": 1, "role": "agent"}).encode())
    yield held
    fcntl.flock(held, fcntl.LOCK_UN)
    os.close(held)


@pytest.fixture
def terms(lock: int) -> Iterator[list[int]]:
    """The SIGTERMs that this process got; each ends the lock's hold, as an agent's stop does."""
    got: list[int] = []

    def end(number: int, _: object) -> None:
        got.append(number)
        fcntl.flock(lock, fcntl.LOCK_UN)

    before = signal.signal(signal.SIGTERM, end)
    yield got
    signal.signal(signal.SIGTERM, before)


def test_a_stop_without_an_agent_says_so_and_is_no_error(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["stop", "--config", str(file)]) == 0
    assert capsys.readouterr().out == "No agent is running.\n"


def test_a_stop_signals_the_holder_once_and_ends_when_the_lock_is_free(
    file: Path, terms: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["stop", "--config", str(file)]) == 0
    assert terms == [signal.SIGTERM]
    assert capsys.readouterr().out.splitlines() == [
        f"Stopping the agent (pid {os.getpid()}) …",
        "Stopped.",
    ]


def test_an_agent_that_does_not_end_is_named_with_how_to_end_it_by_force(
    config: Config, lock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.set())
    monkeypatch.setattr(control, "_STOP_WAIT_S", 0.0)
    try:
        with pytest.raises(AgentError, match="has not ended") as raised:
            control.stop(config)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert arrived.is_set()
    assert f"sudo kill -9 {os.getpid()}" in raised.value.hint


@pytest.fixture
def leftovers(
    config: Config, monkeypatch: pytest.MonkeyPatch, run_dir: Path
) -> dict[str, list[object]]:
    """What a killed agent left behind, and what of it the clean-up touched, in its order."""
    touched: dict[str, list[object]] = {"order": []}
    (run_dir / "status.json").write_text("{}")
    (Path(config.cron.directory) / cron.FILE_NAME).write_text(cron.MARKER + "\n")
    database = Path(config.paths.database)
    database.parent.mkdir(mode=0o750)
    (database.parent / "installation").write_text(INSTALLATION + "\n")
    (database.parent / "installation").chmod(0o600)

    def unload() -> tuple[str, ...]:
        touched["order"].append("modules")
        return ("sysinfo", "continfo")

    def down(_: Grafana) -> None:
        touched["order"].append("grafana")

    monkeypatch.setattr(kernel_modules, "unload", unload)
    monkeypatch.setattr(Grafana, "is_ours", lambda _: True)
    monkeypatch.setattr(Grafana, "down", down)
    return touched


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(tmp_path)
    fake.answers["/containers/json"] = []
    yield fake
    fake.stop()


def left(config: Config) -> set[str]:
    cron_file = Path(config.cron.directory) / cron.FILE_NAME
    status = Path(config.paths.run) / "status.json"
    return {path.name for path in (cron_file, status) if path.exists()}


def test_a_cleanup_takes_everything_down_in_the_order_of_a_stop(
    file: Path,
    config: Config,
    leftovers: dict[str, list[object]],
    engine: FakeEngine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app.run(["cleanup", "--config", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Removed the cron file.",
        "Took down Grafana; its volume stays.",
        "Removed the kernel modules: sysinfo, continfo.",
        "Clean.",
    ]
    assert leftovers["order"] == ["grafana", "modules"]
    assert left(config) == set()
    listed = [one for one in engine.requests if "/containers/json" in one]
    assert listed and all("all=1" in one for one in listed), engine.requests
    assert (Path(config.paths.database).parent / "installation").exists()


def test_a_second_cleanup_finds_nothing_and_says_only_that(
    file: Path,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(kernel_modules, "unload", lambda: ())
    monkeypatch.setattr(Grafana, "is_ours", lambda _: False)
    monkeypatch.setattr(Grafana, "down", lambda _: pytest.fail("another's Grafana"))
    assert app.run(["cleanup", "--config", str(file)]) == 0
    assert capsys.readouterr().out == "Clean.\n"


def test_a_cleanup_beside_a_live_agent_is_refused_and_touches_nothing(
    file: Path, config: Config, leftovers: dict[str, list[object]], lock: int
) -> None:
    with pytest.raises(LockedError, match="Another agent already runs"):
        app.run(["cleanup", "--config", str(file)])
    assert leftovers["order"] == []
    assert left(config) == {cron.FILE_NAME, "status.json"}


def broken_modules(_: FakeEngine, patched: pytest.MonkeyPatch) -> None:
    def unload() -> tuple[str, ...]:
        raise ModulesError("The kernel module sysinfo stays loaded: in use")

    patched.setattr(kernel_modules, "unload", unload)


def refused_list(engine: FakeEngine, _: pytest.MonkeyPatch) -> None:
    engine.answers["/containers/json"] = reply({"message": "no"}, "500 No")


@pytest.mark.parametrize(
    ("breaks", "named"),
    [(broken_modules, "stays loaded"), (refused_list, "Docker")],
    ids=["modules", "docker"],
)
def test_one_step_of_a_cleanup_that_fails_is_named_and_keeps_no_other_from_its_turn(
    file: Path,
    config: Config,
    leftovers: dict[str, list[object]],
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[FakeEngine, pytest.MonkeyPatch], None],
    named: str,
) -> None:
    breaks(engine, monkeypatch)
    with pytest.raises(AgentError, match="Not everything could be removed") as raised:
        app.run(["cleanup", "--config", str(file)])
    assert named in raised.value.message
    assert left(config) == set()
    assert "grafana" in leftovers["order"]


def test_on_a_host_without_docker_a_cleanup_misses_none(
    file: Path, config: Config, leftovers: dict[str, list[object]]
) -> None:
    text = file.read_text().replace(f'"{config.docker_host}"', '""', 1)
    file.write_text(f'{text}[[engine]]\nname = "podman"\nsocket = "unix:///nowhere.sock"\n')
    assert app.run(["cleanup", "--config", str(file)]) == 0
    assert left(config) == set()
    assert "grafana" not in leftovers["order"]
