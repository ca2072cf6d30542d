"""Faults of the agent itself: killed at any moment, stopped for minutes, its clock moved.

A kill leaves whole ticks, no lock and no process; a stop costs the ticks of its length and no more;
and timestamps rise whatever the wall clock does.
"""

from __future__ import annotations

import random
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import run_agent
from tests.vm.faults import support
from tests.vm.faults.support import (
    INTERVAL_S,
    Agent,
    a_clock_put_back,
    assert_books_close,
    assert_no_leak,
    hold_for,
    set_clock,
    state_of,
    whole_ticks,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.containers import Containers
    from tests.vm.faults.support import Town

    Record = Callable[[str, object], None]

_HOUR_S = 3600


@pytest.mark.full
@pytest.mark.parametrize("kills", [20, 100])
def test_an_agent_killed_at_random_moments_leaves_whole_ticks_and_starts_again(
    config: Path, place: Path, database: Path, town: Town, record: Record, kills: int
) -> None:
    draw = random.Random(kills)
    with Agent(config) as agent:  # how long a start takes here
        began = time.monotonic()
        agent.wait_for_tick(3)
        span_s = time.monotonic() - began
        agent.signal(signal.SIGKILL)
        agent.wait_end()
    told, before_any, span_s = agent.stored_ticks, 0, 1.3 * span_s
    for _ in range(kills):
        with Agent(config) as agent:
            hold_for(draw.uniform(0, span_s), lambda: True, "")
            agent.signal(signal.SIGKILL)
            assert agent.wait_end() == -signal.SIGKILL, agent.output
        assert "Traceback" not in agent.output, agent.output
        told += agent.stored_ticks
        before_any += not agent.stored_ticks
        if database.exists():
            whole_ticks(database)
    assert support.agents_left(place) == []
    record("killed_before_their_first_tick", before_any)
    with Agent(config) as agent:
        agent.warm()
        assert_no_leak(agent, record)
        agent.end()
    found = len(whole_ticks(database))
    # What was written and not told yet when the kill came is there all the same.
    assert told + agent.stored_ticks <= found <= told + agent.stored_ticks + kills + 1
    print(f"\n{kills} kills, {before_any} of them before a first tick, {found} whole ticks")
    assert sorted(path.name for path in database.parent.iterdir()) == ["installation", "metrics.db"]
    assert support.removed(database) == []
    town.assert_unharmed()
    cleaned = run_agent("cleanup", "--config", str(config))
    assert cleaned.returncode == 0, cleaned.stderr


@pytest.mark.full
@pytest.mark.parametrize("seconds", [40, 300], ids=["40 s", "5 min"])
def test_an_agent_that_was_stopped_goes_on_at_once_and_makes_up_no_tick(
    config: Path,
    database: Path,
    town: Town,
    mine: Containers,
    record: Record,
    seconds: int,
) -> None:
    with Agent(config) as agent:
        agent.warm()
        with agent.frozen_between_ticks(database):
            before = agent.stored_ticks
            extra = support.surplus(mine, 8)  # events that nobody reads; more than ten run now
            hold_for(seconds, lambda: state_of(agent.pid) == "T", "the agent is not stopped")
        began = time.monotonic()
        agent.more_ticks(1)
        support.wait_gone(extra)
        agent.more_ticks(3)
        after = agent.stored_ticks - before
        most = (time.monotonic() - began) / INTERVAL_S + 2
        assert after <= most, f"{after} ticks where {most:.0f} were due"
        assert_no_leak(agent, record)
        agent.end()
    assert_books_close(database, [agent])
    assert agent.count("not stored") == 0
    stamps = [stamp for stamp, _ in whole_ticks(database)]
    gaps = [later - earlier for earlier, later in pairwise(stamps)]
    assert sum(gap >= seconds * 1000 for gap in gaps) == 1
    assert [row["outcome"] for row in support.removed(database)] == ["removed"] * 8
    town.assert_none_decided_on(database)
    town.assert_unharmed()


@pytest.mark.full
def test_timestamps_rise_though_the_clock_goes_an_hour_forward_and_back(
    only_guest: None, config: Path, database: Path, town: Town, record: Record
) -> None:
    with Agent(config) as agent, a_clock_put_back():
        agent.warm()
        set_clock(+_HOUR_S)
        agent.more_ticks(3)
        set_clock(-2 * _HOUR_S)
        agent.more_ticks(3)
        set_clock(+_HOUR_S)
        agent.more_ticks(3)
        assert_no_leak(agent, record)
        agent.end()
    assert agent.count("not stored") == 0
    assert_books_close(database, [agent])
    with Agent(config) as again:  # the newest row lies an hour ahead
        again.wait_for_tick(1)
        again.more_ticks(2)
        again.end()
    assert_books_close(database, [agent, again])
    assert support.removed(database) == []
    town.assert_unharmed()
