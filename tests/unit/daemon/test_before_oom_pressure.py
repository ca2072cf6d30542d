"""Rules of the host's memory that go by pressure, in a running agent with virtual time."""

from __future__ import annotations

import pytest

from agent.config import decode_config
from agent.daemon.composition import Options, start
from agent.daemon.signals import RELOAD
from agent.errors import SourceError
from tests.unit.agent_parts import ShortMemory
from tests.unit.agent_scene import Host, signal_self, status
from tests.unit.daemon.short_memory import deletions, host, jobs, moments_s, rule, run

__all__ = ["host"]

PRESSED = {"pressure": {"memory": 20, "for": "3s"}}


def stall(host: Host, from_s: float) -> None:
    """From then on somebody always waits for memory, until one is gone."""

    def pressure() -> float:
        if host.docker.removed:
            return 60.0  # avg10 decays for half a minute
        return 0.0 if host.time.passed_s < from_s else 60.0

    def stalled() -> float:
        return 0.0 if host.docker.removed else max(0.0, host.time.passed_s - from_s)

    host.memory.pressure = pressure
    host.memory.stalled_s = stalled


def test_a_trigger_wakes_the_agent_and_pressure_acts_after_its_time(host: Host) -> None:
    jobs(host, 2)
    stall(host, 20)
    host.time.at(20.5, lambda: setattr(host.stopper, "fired", frozenset({ShortMemory.TRIGGER})))
    run(host, rule(PRESSED), seconds=40)
    assert host.memory.triggers == [10.0], "at half of the bound"
    assert deletions(host) == [("job-1", "before-oom", "removed")]
    assert moments_s(host) == [pytest.approx(24, abs=1)]
    assert [one for one in host.memory.read_s if 5 < one < 20] == []


def test_without_a_trigger_pressure_is_read_each_second_and_that_is_told(host: Host) -> None:
    jobs(host, 2)
    stall(host, 20)
    host.memory.refusal = SourceError("the right CAP_SYS_RESOURCE is missing.", "Give it.")
    seen: list[str] = []
    host.time.at(10, lambda: seen.extend(status(host)["problems"]))
    run(host, rule(PRESSED), seconds=40)
    assert "pressure: the right CAP_SYS_RESOURCE is missing. Give it." in seen
    assert deletions(host) == [("job-1", "before-oom", "removed")]
    assert moments_s(host) == [pytest.approx(24, abs=1)]


def test_pressure_of_before_one_went_costs_no_second_at_a_tick_either(host: Host) -> None:
    jobs(host, 3)
    stall(host, 20)
    run(host, rule(PRESSED), seconds=45, interval_s=5.0)
    assert host.docker.removed == ["job-2"]


def test_without_pressure_in_the_kernel_nothing_happens_and_it_is_told(host: Host) -> None:
    jobs(host, 2)
    host.memory.refusal = SourceError("it is turned off (psi=0).", "Take it away.")
    seen: list[str] = []
    host.time.at(10, lambda: seen.extend(status(host)["problems"]))
    run(host, rule(PRESSED))
    assert deletions(host) == []
    assert "pressure: it is turned off (psi=0). Take it away." in seen


def test_everything_that_was_opened_is_closed_at_the_end(host: Host) -> None:
    run(host, rule(PRESSED), seconds=10)
    assert host.memory.closed == 2, "the files, and the trigger"


def test_a_reload_begins_and_ends_the_watching(host: Host) -> None:
    """Triggers too: each is set and let go with the rule that wants it."""
    jobs(host, 1)
    host.memory.pressure = lambda: 0.0
    texts = iter(
        (
            '[[policy.rule]]\nname = "x"\nmatch.name = "job-*"\nwhen.pressure = { memory = 20 }',
            '[[policy.rule]]\nname = "x"\nmatch.name = "job-*"\nkeep = 1',
        )
    )
    for moment_s in (10, 30):
        host.time.at(moment_s, lambda: signal_self(RELOAD))
    host.time.at(50, signal_self)
    outside = host.outside(interval_s=60.0)
    options = Options(read_again=lambda: decode_config(next(texts), "agent.toml"))
    start(outside.config, options, outside.clock, outside.say, outside)
    assert host.memory.triggers == [10.0]
    assert all(10 <= one < 30 for one in host.memory.read_s)
    assert host.memory.read_s, "once, to know where it begins"
    assert host.memory.closed == 2
