"""Flushes are started in time, beside the loop, and what becomes of them is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, PathSettings
from agent.config_outlets import FleetSettings
from agent.daemon.shipping import Shipping, ship_command
from agent.fleet.local import ShippingState, write_state
from agent.util.subprocess import CommandError
from tests.unit.store.builders import SECOND_NS, FakeClock

CONFIG = Config(
    fleet=FleetSettings(dsn="host=/x", flush_s=100, environment="/srv/fleet"),
    paths=PathSettings(database="/srv/metrics.db"),
)


class Process:
    def __init__(self) -> None:
        self.status: int | None = None
        self.killed = False

    def poll(self) -> int | None:
        return self.status


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    found: list[Process] = []

    def begin(*_words: object, **_settings: object) -> Process:
        found.append(Process())
        return found[-1]

    def kill(process: Any) -> None:
        process.killed = True

    monkeypatch.setattr("agent.daemon.shipping.begin", begin)
    monkeypatch.setattr("agent.daemon.shipping.kill_session", kill)
    return found


def shipping(clock: FakeClock) -> Shipping:
    return Shipping(CONFIG, None, clock, chance=lambda: 0.5)


def test_a_flush_has_the_settings_of_the_agent() -> None:
    words = ship_command(CONFIG, Path("/etc/other.toml"))
    assert words[3:] == [
        *("/srv/fleet/bin/python", "-I", "-m", "agent", "fleet", "ship"),
        *("--database", "/srv/metrics.db", "--config", "/etc/other.toml"),
    ]
    assert "--config" not in ship_command(CONFIG, None)


def test_flushes_come_one_after_another_and_never_two_at_once(started: list[Process]) -> None:
    clock = FakeClock()
    one = shipping(clock)
    one.look()
    assert started == []
    clock.pass_time(50 * SECOND_NS)
    one.look()
    assert len(started) == 1
    clock.pass_time(300 * SECOND_NS)
    one.look()
    assert len(started) == 1
    started[0].status = 0
    one.look()
    one.look()
    assert len(started) == 2
    assert one.problem == ""


def test_a_flush_that_failed_is_a_problem_until_one_works(started: list[Process]) -> None:
    clock = FakeClock()
    one = shipping(clock)
    for status, problem in ((9, "agent fleet status"), (0, "")):
        clock.pass_time(200 * SECOND_NS)
        one.look()
        started[-1].status = status
        one.look()
        assert (problem in one.problem) if problem else one.problem == ""


def test_a_flush_without_an_end_is_ended(started: list[Process]) -> None:
    clock = FakeClock()
    one = shipping(clock)
    clock.pass_time(100 * SECOND_NS)
    one.look()
    clock.pass_time(3600 * SECOND_NS)
    one.look()
    assert started[0].killed
    assert "longer than" in one.problem
    one.look()
    assert len(started) == 2


def test_a_stop_ends_the_flush_under_way(started: list[Process]) -> None:
    clock = FakeClock()
    one = shipping(clock)
    one.close()
    clock.pass_time(100 * SECOND_NS)
    one.look()
    one.close()
    assert started[0].killed


def test_an_environment_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(argv: list[str], **_settings: object) -> None:
        raise CommandError(f"{argv[0]} cannot be run: No such file or directory.", "")

    monkeypatch.setattr("agent.daemon.shipping.begin", begin)
    clock = FakeClock()
    one = shipping(clock)
    clock.pass_time(100 * SECOND_NS)
    one.look()
    assert "/srv/fleet cannot be used" in one.problem
    assert "fleet_environment.sh" in one.problem


def test_what_was_not_shipped_is_held(tmp_path: Path) -> None:
    config = Config(fleet=CONFIG.fleet, paths=PathSettings(database=str(tmp_path / "metrics.db")))
    one = Shipping(config, None, FakeClock())
    assert one.hold_ms() == 0
    write_state(tmp_path, ShippingState(epoch="e", safe_before_ms=17))
    assert one.hold_ms() == 17
    (tmp_path / "fleet.json").write_bytes(b"{")
    assert one.hold_ms() == 0


def test_hosts_that_start_together_do_not_flush_together() -> None:
    firsts = set()
    for number in range(10):
        one = Shipping(CONFIG, None, FakeClock(), chance=partial(float, number / 10))
        firsts.add(one._next_ns)
    assert len(firsts) == 10
