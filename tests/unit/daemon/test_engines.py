"""Several engines in one agent: each has its rows, its outage and its part of the policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config import EngineKind, EngineSettings
from agent.daemon.composition import Options
from agent.daemon.engines import address_of, engine_of
from agent.engine_api.address import kind_of
from agent.model.container import Container
from agent.sources.engine.inventory import Engine
from tests.unit.agent_parts import Docker
from tests.unit.agent_scene import Host, alpine, run, status, stop_after
from tests.unit.sources.engine.fake_engine import Clock

QUIET = {"grafana__enabled": False, "cron__enabled": False, "bpf__enabled": False}
PODMAN = {"name": "podman", "kind": "podman", "socket": "unix:///run/podman.sock", "govern": True}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.others["podman"] = Docker(made.time)
    return made


def of_podman(number: int, **changed: Any) -> Container:
    return replace(alpine(number), engine="podman", **changed)


def start(host: Host, seconds: float, **settings: object) -> int:
    stop_after(host, seconds)
    return run(host, Options(), **({"engine": [PODMAN], "source": "psutil"} | QUIET | settings))


def test_rows_say_whose_container_they_are_also_where_short_ids_are_the_same(host: Host) -> None:
    host.docker.run(alpine(1))
    host.others["podman"].run(of_podman(2, name="theirs", pod="web"))
    assert start(host, 25) == 0
    assert set(
        host.rows("SELECT engine, container_id, container_name, pod FROM container_totals")
    ) == {
        ("docker", "0" * 12, "so1_contenedor_1", ""),
        ("podman", "0" * 12, "theirs", "web"),
    }


def test_an_engine_that_is_away_takes_its_own_rows_alone(host: Host) -> None:
    host.docker.run(alpine(1))
    host.others["podman"].run(of_podman(2))
    seen: list[dict[str, str]] = []
    host.time.at(10, lambda: setattr(host.others["podman"], "away", True))
    host.time.at(50, lambda: seen.append(status(host)["engines"]))
    host.time.at(50, lambda: setattr(host.others["podman"], "away", False))
    host.time.at(85, lambda: seen.append(status(host)["engines"]))
    assert start(host, 90) == 0
    rows = host.rows("SELECT engine, count(*) FROM container_totals GROUP BY engine")
    ticks = host.rows("SELECT count(*), sum(container_count IS NULL) FROM metrics")
    assert ticks == [(5, 0)]
    assert dict(rows) == {"docker": 5, "podman": 3}
    assert seen[0]["docker"] == seen[1]["docker"] == seen[1]["podman"] == "answers"
    assert seen[0]["podman"].startswith("away: Docker does not answer")


def test_the_policy_of_one_engine_goes_on_while_another_is_away(host: Host) -> None:
    host.others["podman"].run(*(of_podman(20 + number) for number in range(6)))
    host.others["podman"].away = True
    host.docker.run(*(alpine(number) for number in range(1, 6)))
    host.time.at(30, lambda: setattr(host.others["podman"], "away", False))
    host.time.at(45, lambda: host.did.append(f"{len(host.others['podman'].containers)} left"))
    assert start(host, 50, policy__scope="all") == 0
    # Docker's went at the first tick; podman's only after a whole tick with podman back.
    assert len(host.docker.removed) >= 2
    assert "6 left" in host.did


def test_one_that_is_observed_only_loses_no_container_under_any_scope(host: Host) -> None:
    why = "the engine podman is observed only"
    many = (of_podman(20 + number, observed_only=why) for number in range(12))
    host.others["podman"].run(*many)
    assert start(host, 50, policy__scope="all") == 0
    assert host.docker.removed == []
    rows = host.rows("SELECT DISTINCT engine, governed, tier FROM container_totals")
    assert rows == [("podman", 0, "none")]


def test_the_problem_of_an_engine_is_reported_once_under_its_name(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.others["podman"].away = True
    problems: list[str] = []
    host.time.at(45, lambda: problems.extend(status(host)["problems"]))
    assert start(host, 50) == 0
    assert [one for one in problems if one.startswith("podman: ")]
    assert not [one for one in problems if one.startswith("docker: ")]
    assert caplog.text.count("podman=away") == 1


def test_an_engine_that_lists_anothers_containers_has_none_of_them(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """As one whose socket is a link to the other's; also while that one is away."""
    both = [alpine(number) for number in range(1, 7)]
    host.docker.run(*both)
    host.others["podman"].run(*(replace(one, engine="podman") for one in both), of_podman(9))
    host.time.at(30, lambda: setattr(host.docker, "away", True))
    problems: list[str] = []
    host.time.at(95, lambda: problems.extend(status(host)["problems"]))
    assert start(host, 100, policy__scope="all", policy__keep_low=6) == 0
    rows = host.rows("SELECT DISTINCT container_name FROM container_totals WHERE engine = 'podman'")
    assert rows == [("so1_contenedor_9",)]
    assert (host.docker.removed, host.others["podman"].removed) == ([], [])
    assert any("6 entries of its list are odd" in one for one in problems)
    assert caplog.text.count("another engine has these ids") == 1


@pytest.mark.parametrize(
    ("settings", "kind", "observed"),
    [
        (EngineSettings(name="d", socket="unix:///d"), "docker", ""),
        (
            EngineSettings(name="p", socket="unix:///p", kind=EngineKind.PODMAN),
            "podman",
            "the engine p is observed only",
        ),
        (
            EngineSettings(name="p", socket="unix:///p", kind=EngineKind.PODMAN, govern=True),
            "podman",
            "",
        ),
    ],
)
def test_an_engine_is_asked_where_and_as_what_its_settings_say(
    settings: EngineSettings, kind: str, observed: str
) -> None:
    assert (address_of(settings), kind_of(address_of(settings))) == (settings.socket, kind)
    engine = engine_of(settings, Clock())
    assert isinstance(engine, Engine)
    assert engine._observed_only == observed
