"""Rules of the host's memory in a running agent, on a host made of values, with virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.model.container import ContainerState
from tests.unit.agent_parts import FullDisk
from tests.unit.agent_scene import Host, alpine, status

if TYPE_CHECKING:
    from collections.abc import Callable
from tests.unit.daemon.short_memory import deletions, host, jobs, moments_s, rule, run

__all__ = ["host"]

SHORT = {"available_mb": 400}


def eats(host: Host, mb_per_s: float, from_s: float, per_job_mb: float = 300) -> None:
    """From then on memory goes, and each job that goes gives some back."""
    at_begin = 2000.0

    def available() -> float:
        gone = 300 * len(host.docker.removed)
        eaten = max(0.0, host.time.passed_s - from_s) * mb_per_s
        return at_begin - eaten + gone / 300 * per_job_mb

    host.memory.available_mb = available


def test_a_bound_is_seen_within_a_quarter_of_a_second_whatever_the_interval(host: Host) -> None:
    jobs(host, 2)
    eats(host, 100, from_s=10)  # below 400 MB from 26 s on
    host.time.at(27, lambda: setattr(host.memory, "available_mb", lambda: 4000.0))
    run(host, rule(SHORT))
    assert deletions(host) == [("job-1", "before-oom", "removed")]
    (moment_s,) = moments_s(host)
    assert 26 <= moment_s <= 26.5


def test_without_a_rule_of_the_host_its_memory_is_never_looked_at(host: Host) -> None:
    run(host, {"name": "jobs", "match": {"name": "job-*"}, "keep": 1})
    assert host.memory.read_s == []
    assert host.memory.triggers == []
    assert "survives" not in host.did


def test_the_agent_makes_itself_last_and_tells_what_it_could_not_do(host: Host) -> None:
    host.unprotected = ("its memory is not locked: Cannot allocate memory",)
    seen: list[Any] = []
    host.time.at(30, lambda: seen.extend(status(host)["problems"]))
    run(host, rule(SHORT))
    assert host.did.count("survives") == 1
    assert "before-oom: its memory is not locked: Cannot allocate memory." in seen


def test_memory_is_read_four_times_a_second(host: Host) -> None:
    run(host, rule(SHORT), seconds=20)
    first = [one for one in host.memory.read_s if 5 <= one < 10]
    assert len(first) == 20


def test_one_container_goes_at_a_time_and_the_next_on_a_fresh_sample(host: Host) -> None:
    """Each gives 300 MB back; the eater beside them goes on."""
    jobs(host, 4)
    eats(host, 100, from_s=10)
    run(host, rule(SHORT), seconds=34)
    assert [row[0] for row in deletions(host)] == ["job-3", "job-2", "job-1"]
    first, second, third = moments_s(host)
    assert 26 <= first <= 26.5
    assert second - first == pytest.approx(3, abs=0.5), "once its 300 MB were eaten too"
    assert third - second == pytest.approx(3, abs=0.5)


def test_memory_that_is_back_once_one_is_gone_costs_no_second(host: Host) -> None:
    jobs(host, 4)
    host.time.at(20, lambda: setattr(host.memory, "available_mb", freed_by_one(host)))
    run(host, rule(SHORT))
    assert [row[0] for row in deletions(host)] == ["job-3"]


def freed_by_one(host: Host) -> Callable[[], float]:
    return lambda: 4000.0 if host.docker.removed else 100.0


@pytest.mark.parametrize(("action", "outcome"), [("pause", "paused"), ("restart", "restarted")])
def test_one_that_is_there_still_after_its_action_does_not_keep_the_next_from_its_turn(
    host: Host, action: str, outcome: str
) -> None:
    jobs(host, 3)
    host.memory.available_mb = lambda: 4000.0 if host.time.passed_s < 20 else 100.0
    run(host, rule(SHORT, action=action), seconds=40)
    assert host.docker.acted == [(outcome, f"job-{number}") for number in (2, 1, 0)]
    first, second, third = moments_s(host)
    assert second - first == third - second == pytest.approx(0.25, abs=0.8)


def test_while_an_engine_hangs_in_a_removal_no_second_one_is_begun(host: Host) -> None:
    """The killed one may hold nothing any more, so that another is the largest."""
    jobs(host, 3)
    host.docker.slow = True
    host.time.at(20, lambda: setattr(host.memory, "available_mb", freed_by_one(host)))
    host.time.at(25, lambda: host.docker.run(alpine(9, name="job-9")))
    begun: list[int] = []
    host.time.at(49, lambda: begun.append(len(host.docker._pending)))
    host.time.at(50, host.docker.finish)
    run(host, rule(SHORT), seconds=55)
    assert begun == [1]
    assert host.docker.removed == ["job-2"]
    assert moments_s(host) == [pytest.approx(50, abs=0.5)], "noted without a tick"


def test_where_the_first_that_went_was_not_enough_the_next_goes_after_it_ended(host: Host) -> None:
    jobs(host, 3)
    host.docker.slow = True
    host.memory.available_mb = lambda: 4000.0 if host.time.passed_s < 20 else 100.0
    for moment_s in (30, 40):
        host.time.at(moment_s, host.docker.finish)
    run(host, rule(SHORT), seconds=45)
    assert host.docker.removed[:2] == ["job-2", "job-1"]
    assert moments_s(host)[:2] == [pytest.approx(30, abs=0.5), pytest.approx(40, abs=0.5)]


def test_a_bound_that_is_passed_during_a_tick_gets_its_pass_right_after_it(host: Host) -> None:
    jobs(host, 2)

    def busy() -> None:
        """The tick at 60 s has read its processes and is busy with the rest for four seconds."""
        if host.time.passed_s >= 60 and host.memory.available_mb() > 400:
            host.memory.available_mb = freed_by_one(host)
            host.time.sleep(4)

    host.memory.pressure = busy  # it gives None, as without PSI
    run(host, rule(SHORT), seconds=70)
    assert deletions(host) == [("job-1", "before-oom", "removed")]
    assert moments_s(host) == [pytest.approx(64, abs=0.3)]


def test_a_rule_that_only_reports_holds_up_no_remedy(host: Host) -> None:
    jobs(host, 2)
    host.docker.run(alpine(7, name="web"))
    told = {**rule(SHORT), "name": "tell", "match": {"name": "web"}, "action": "notify"}
    host.time.at(20, lambda: setattr(host.memory, "available_mb", freed_by_one(host)))
    run(host, told, rule(SHORT))
    assert sorted(deletions(host)) == [
        ("job-1", "before-oom", "removed"),
        ("web", "tell", "notified"),
    ]


def test_a_pass_for_the_host_does_what_other_rules_want_at_the_next_tick_only(host: Host) -> None:
    jobs(host, 1)
    excess = {"name": "ci", "match": {"name": "ci-*"}, "keep": 0, "action": "remove"}
    host.time.at(20, lambda: setattr(host.memory, "available_mb", freed_by_one(host)))
    host.time.at(10, lambda: host.docker.run(alpine(8, name="ci-1")))
    run(host, rule(SHORT), excess, seconds=70)
    assert [row[0] for row in deletions(host)] == ["job-0", "ci-1"]
    assert moments_s(host) == [pytest.approx(20, abs=0.5), pytest.approx(60, abs=0.5)]


def test_memory_that_stays_short_with_nothing_to_do_is_looked_at_less_often(host: Host) -> None:
    host.docker.run(alpine(1, name="web"))
    host.memory.available_mb = lambda: 100.0
    looked: list[float] = []

    def pids() -> tuple[int, ...]:
        looked.append(host.time.passed_s)
        return (7,)

    host.pids = pids
    run(host, rule(SHORT), seconds=59)
    assert deletions(host) == []
    assert len(looked) < 12, "the tick, and passes up to eight seconds apart"


def test_a_container_that_starts_while_memory_is_short_goes_within_two_seconds(host: Host) -> None:
    host.memory.available_mb = lambda: 100.0

    def starts() -> None:
        jobs(host, 1)
        host.send("start")

    host.time.at(45, starts)
    run(host, rule(SHORT), seconds=59)
    assert host.docker.removed == ["job-0"]
    assert moments_s(host) == [pytest.approx(46, abs=1)]


def test_an_engine_that_is_back_gets_its_whole_tick_at_once_and_then_one_goes(host: Host) -> None:
    """Not only at the next tick, 40 s later: by then the kernel has killed one."""
    jobs(host, 2)
    host.time.at(10, lambda: host.send("resync"))
    host.time.at(20, lambda: setattr(host.memory, "available_mb", freed_by_one(host)))
    run(host, rule(SHORT), seconds=59)
    assert deletions(host) == [("job-1", "before-oom", "removed")]
    assert moments_s(host) == [pytest.approx(20.5, abs=0.6)]
    assert host.ticks == 2, "the first, and the one before anything was decided"


def test_while_the_engine_is_away_nothing_goes_and_no_tick_is_made_for_it(host: Host) -> None:
    jobs(host, 1)
    host.time.at(15, lambda: setattr(host.docker, "away", True))
    host.time.at(20, lambda: setattr(host.memory, "available_mb", lambda: 100.0))
    host.time.at(40, lambda: setattr(host.docker, "away", False))
    ticks: list[int] = []
    host.time.at(39, lambda: ticks.append(host.ticks))
    run(host, rule(SHORT), seconds=55)
    assert ticks == [1]
    assert host.docker.removed == ["job-0"]
    assert moments_s(host)[0] == pytest.approx(44.5, abs=5)


def test_a_dry_run_records_who_would_go_once_and_touches_nobody(host: Host) -> None:
    jobs(host, 2)
    host.time.at(20, lambda: setattr(host.memory, "available_mb", lambda: 100.0))
    run(host, rule(SHORT), dry_run=True)
    assert deletions(host) == [("job-1", "before-oom", "dry-run")]
    assert host.docker.removed == []


@pytest.mark.parametrize("spared", ["protected", "paused-rule", "not-matched"])
def test_who_is_spared_elsewhere_is_spared_here(host: Host, spared: str) -> None:
    if spared == "protected":
        host.docker.run(alpine(1, name="job-1", labels={"so1.protect": "true"}))
    elif spared == "paused-rule":
        host.docker.run(alpine(1, name="job-1", state=ContainerState.EXITED))
    else:
        host.docker.run(alpine(1, name="db"))
    host.memory.available_mb = lambda: 100.0
    run(host, rule(SHORT), policy__rules="none")
    assert host.docker.removed == []


def test_a_rule_without_a_grace_has_none_here(host: Host) -> None:
    jobs(host, 1)
    graces: list[int | None] = []
    real = host.docker.remove

    def remove(decisions: Any, *more: Any) -> Any:
        graces.extend(one.grace_s for one in decisions)
        return real(decisions, *more)

    host.docker.remove = remove  # type: ignore[method-assign, assignment]
    host.time.at(20, lambda: setattr(host.memory, "available_mb", freed_by_one(host)))
    run(host, rule(SHORT))
    assert graces == [0]


def test_what_a_pass_rested_on_is_stored_with_its_run_up_and_whom_it_chose_of(host: Host) -> None:
    jobs(host, 2)
    host.docker.run(alpine(7, name="db"), alpine(5))
    eats(host, 100, from_s=10)  # below 800 MB from 22 s on, below 400 from 26 s on
    host.time.at(26.4, lambda: setattr(host.memory, "available_mb", lambda: 4000.0))
    run(host, rule(SHORT))
    tables = ("host_samples", "pass_containers")
    assert {one for one in tables if host.rows(f"SELECT 1 FROM {one}")} == {
        "host_samples",
        "pass_containers",
    }
    query = "SELECT before_ms, available_mb, psi_memory FROM host_samples ORDER BY id"
    names = ("before_ms", "available_mb", "psi_memory")
    samples = [dict(zip(names, row, strict=True)) for row in host.rows(query)]
    assert samples[-1]["before_ms"] == 0
    assert 395 >= samples[-1]["available_mb"] >= 370
    before_ms = [one["before_ms"] for one in samples[:-1]]
    assert before_ms == sorted(before_ms, reverse=True)
    assert 3000 <= before_ms[0] <= 5000, "from twice the bound on"
    assert {one["psi_memory"] for one in samples} == {None}, "no rule asks for it"
    chosen = host.rows(
        "SELECT container_name, rule, state, held_mb, disputed FROM pass_containers ORDER BY id"
    )
    assert set(chosen) == {
        ("job-0", "before-oom", "running", 2.0, 0),
        ("job-1", "before-oom", "running", 3.0, 0),
        ("so1_contenedor_5", "original-low", "running", 4.0, 0),
    }
    ((decided,),) = host.rows("SELECT decision FROM deletions")
    assert host.rows("SELECT container_name FROM pass_containers WHERE decision <> ''") == [
        ("job-1",)
    ]
    assert host.rows("SELECT decision FROM pass_containers WHERE decision <> ''") == [(decided,)]


def test_a_full_disk_holds_up_no_remedy(host: Host) -> None:
    jobs(host, 1)
    host.disk = FullDisk()
    host.time.at(19, lambda: setattr(host.disk, "full", True))
    host.time.at(20, lambda: setattr(host.memory, "available_mb", freed_by_one(host)))
    run(host, rule(SHORT), seconds=30)
    assert host.docker.removed == ["job-0"]
