"""Faults of Docker under a running agent: killed again and again, or answering nonsense.

While it cannot be trusted system rows are stored, nothing is removed, and the agent says once that
it is away. Afterwards everything is as before, without a word from anybody.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import run_agent
from tests.containers import inspect, wait_until
from tests.vm.faults import support
from tests.vm.faults.docker_proxy import DockerProxy, Mode
from tests.vm.faults.support import Agent, assert_books_close, assert_no_leak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.containers import Containers
    from tests.docker.private_engine import PrivateEngine
    from tests.vm.faults.support import Town

    Record = Callable[[str, object], None]

ALL_THERE = " · 7 containers · "
"""Those of the town that run, Grafana not counted."""
AWAY = "containers unknown"


@pytest.mark.full
@pytest.mark.parametrize("rounds", [3, 20])
def test_an_engine_that_is_killed_again_and_again_costs_no_container_and_no_row(
    config: Path,
    database: Path,
    engine: PrivateEngine,
    town: Town,
    record: Record,
    rounds: int,
) -> None:
    with Agent(config) as agent:
        agent.warm()
        for number in range(rounds):
            if number == rounds // 2:
                record("figures_halfway", support.Figures.of(agent.pid))
                print(f"\nhalfway: {support.Figures.of(agent.pid)}")
            engine.kill_daemon()
            try:
                agent.more_ticks(1, AWAY)
            finally:
                engine.start_daemon()
            wait_until(town.is_whole, "the containers are back")
            agent.more_ticks(3, ALL_THERE)
            town.assert_unharmed()
            print(f"{number + 1} of {rounds} kills survived, {agent.tick_lines[-1]}", flush=True)
        assert agent.count("docker=away") == rounds
        assert agent.count("docker=back") == rounds
        assert_no_leak(agent, record)
        agent.end()
    assert_books_close(database, [agent])
    assert agent.count("not stored") == 0
    unknown = [row for row in support.metrics(database) if row["container_count"] is None]
    assert len(unknown) == agent.count(AWAY)
    assert [row for row in support.removed(database) if row["outcome"] == "removed"] == []
    town.assert_none_decided_on(database)


@pytest.fixture
def proxy(place: Path, engine: PrivateEngine) -> Iterator[DockerProxy]:
    with DockerProxy(place / "docker.sock", engine.host) as made:
        yield made


SPOILT = [
    Mode.GARBAGE,
    Mode.NOT_JSON,
    Mode.LIE,
    Mode.HALF,
    Mode.FAIL,
    Mode.CUT,
    Mode.DRIP,
    Mode.HANG,
]


@pytest.mark.full
@pytest.mark.parametrize(
    "modes",
    [[Mode.GARBAGE, Mode.HALF], SPOILT],
    ids=["two ways", "every way"],
)
def test_an_engine_that_answers_nonsense_is_away_and_nothing_goes_until_it_is_back(
    place: Path,
    database: Path,
    proxy: DockerProxy,
    town: Town,
    mine: Containers,
    record: Record,
    modes: list[Mode],
) -> None:
    with Agent(support.settings(place, proxy.host)) as agent:
        agent.warm()
        for number, mode in enumerate(modes):
            surplus = begin_nonsense(agent, proxy, mode, mine, 100 + 20 * number)
            agent.more_ticks(2, AWAY)
            assert all(inspect(one)["State"]["Running"] for one in surplus), mode
            proxy.mode = Mode.PASS
            support.wait_gone(surplus)
            agent.more_ticks(2, ALL_THERE)
            town.assert_unharmed()
        assert agent.count("docker=away") == agent.count("docker=back") == len(modes)
        assert_no_leak(agent, record)
        agent.end()
    assert_books_close(database, [agent])
    town.assert_none_decided_on(database)
    outcomes = [row["outcome"] for row in support.removed(database)]
    assert outcomes == ["removed"] * 2 * len(modes)


def begin_nonsense(
    agent: Agent, proxy: DockerProxy, mode: Mode, mine: Containers, first: int
) -> list[str]:
    """Has the engine away before anything exceeds; the full ids of what then does."""
    proxy.mode = mode
    agent.more_ticks(1, AWAY)
    return support.surplus(mine, 2, first)


@pytest.mark.full
def test_a_removal_whose_answer_is_lost_is_found_out_and_told_as_what_it_was(
    place: Path, database: Path, proxy: DockerProxy, town: Town, mine: Containers, record: Record
) -> None:
    """The engine carries out what it is asked, but the agent never hears of it."""
    with Agent(support.settings(place, proxy.host)) as agent:
        agent.warm()
        gone = support.surplus(mine, 2)
        wait_until(lambda: agent.count("decision="), "the removals begin", pause_s=0.005)
        proxy.mode = Mode.HANG
        agent.more_ticks(2, AWAY)
        proxy.mode = Mode.PASS
        proxy.cut()
        support.wait_gone(gone)
        wait_until(
            lambda: sum(row["outcome"] in ("removed", "gone") for row in removals(database)) >= 2,
            "both are told",
        )
        agent.more_ticks(2, ALL_THERE)
        assert_no_leak(agent, record)
        agent.end()
    assert_books_close(database, [agent])
    town.assert_none_decided_on(database)
    town.assert_unharmed()


def removals(database: Path) -> list[dict[str, object]]:
    return support.removed(database)


@pytest.mark.full
def test_a_stop_while_docker_hangs_ends_and_says_what_mends_the_rest(
    place: Path, database: Path, proxy: DockerProxy, town: Town
) -> None:
    config = support.settings(place, proxy.host)
    with Agent(config) as agent:
        agent.warm()
        proxy.mode = Mode.HANG
        agent.more_ticks(1, AWAY)
        agent.signal(signal.SIGINT)
        status = agent.wait_end()
    assert "Traceback" not in agent.output
    assert status == 1, agent.output
    assert "Run `sudo agent cleanup`." in agent.output
    assert_books_close(database, [agent])
    assert support.agents_left(place) == []
    proxy.mode = Mode.PASS
    cleaned = run_agent("cleanup", "--config", str(config))
    assert cleaned.returncode == 0, cleaned.stderr
    town.assert_unharmed()
