"""Many removals at a time: how many, in which order, and that none is lost or repeated at once."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from agent.actions import removal
from agent.actions.remover import MAX_PARALLEL, Remover
from agent.model.removal import Decision, Outcome
from tests.unit.actions.removal_engine import ID, Answer, RemovalEngine, decision


class FrozenClock:
    def __init__(self) -> None:
        self.now_ns = 0

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns


def test_at_most_so_many_removals_run_at_once_and_none_is_lost(
    engine: RemovalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = threading.Semaphore(0)
    release = threading.Event()

    def hold(_: int) -> Answer:
        inside.release()
        release.wait(30)
        return (404, {"message": "gone"})

    engine.kinds["look"] = hold
    many = [decision(f"{n:064x}", rank=n) for n in range(3 * MAX_PARALLEL)]
    remover = Remover(engine.host, FrozenClock(), grace_s=0)
    monkeypatch.setattr(removal, "CALL_TIMEOUT_S", 60.0)
    assert remover.remove(many, deadline_ns=0) == ()
    for _ in range(MAX_PARALLEL):
        assert inside.acquire(timeout=30)
    assert not inside.acquire(timeout=0.2)
    release.set()
    ended = [*remover.remove([], deadline_ns=0)]
    deadline = time.monotonic() + 30
    while len(ended) < len(many) and time.monotonic() < deadline:
        ended += remover.collect()
    assert sorted(one.decision.rank for one in ended) == list(range(3 * MAX_PARALLEL))


def test_what_was_never_begun_is_told_when_the_agent_stops(engine: RemovalEngine) -> None:
    release = threading.Event()

    def hold(_: int) -> Answer:
        release.wait(30)
        return (404, {"message": "gone"})

    engine.kinds["look"] = hold
    remover = Remover(engine.host, FrozenClock(), grace_s=0)
    many = [decision(f"{n:064x}", rank=n) for n in range(MAX_PARALLEL + 2)]
    remover.remove(many, deadline_ns=0)
    told = remover.close(0)
    release.set()
    assert {one.outcome for one in told} == {Outcome.FAILED}
    assert len(told) == len(many)
    assert remover.remove(many, deadline_ns=0) == ()
    assert len(remover.not_attempted) == len(many)


def test_an_error_inside_the_agent_is_a_failure_and_loses_no_decision(
    engine: RemovalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(one: Decision, _: object) -> bool:
        if one.rank == 1:
            raise LookupError("a bug")
        return True

    clock = FrozenClock()
    remover = Remover(engine.host, clock, 0, still_allowed=broken)
    for _ in range(2 * MAX_PARALLEL):
        clock.now_ns += 3600 * 10**9
        (told,) = remover.remove([decision()], clock.now_ns + 60 * 10**9)
        assert told.outcome is Outcome.FAILED
        assert "inside the agent" in told.error
    assert "a bug" in caplog.text
    assert engine.count("delete") == 0
    clock.now_ns += 3600 * 10**9
    (told,) = remover.remove([decision(rank=2)], clock.now_ns + 60 * 10**9)
    assert told.outcome is Outcome.REMOVED


def test_one_that_is_never_what_was_decided_on_is_looked_at_ever_more_seldom(
    engine: RemovalEngine,
) -> None:
    """The first time it may go at once as it is now; again and again it is a fault of ours."""
    clock = FrozenClock()
    remover = Remover(engine.host, clock, 0, lambda _decision, _now: False)
    outcomes = []
    for _ in range(40):
        outcomes += [one.outcome for one in remover.remove([decision()], clock.now_ns + 60 * 10**9)]
        clock.now_ns += 20 * 10**9
    assert set(outcomes) == {Outcome.GONE}
    assert 2 <= len(outcomes) <= 8


def test_what_is_announced_is_what_is_attempted(engine: RemovalEngine) -> None:
    """A decision's id is logged where a row will have it; one that waits out its pause has none."""
    engine.kinds["look"] = lambda _: (500, {"message": "no"})
    clock = FrozenClock()
    remover = Remover(engine.host, clock, grace_s=0)
    announced: list[str] = []
    ended: list[str] = []
    for number in range(3):
        clock.now_ns += 10**9
        one = replace(decision(), id=f"decision {number}")
        done = remover.remove(
            [one], clock.now_ns + 60 * 10**9, lambda said: announced.append(said.id)
        )
        ended += [removal.decision.id for removal in done]
    assert announced == ended == ["decision 0"]


def test_a_host_without_threads_to_give_fails_the_removals_and_they_are_made_later(
    engine: RemovalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    clock = FrozenClock()
    remover = Remover(engine.host, clock, grace_s=0)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        (told,) = remover.remove([decision()], clock.now_ns + 60 * 10**9)
    assert told.outcome is Outcome.FAILED
    assert "can't start new thread" in told.error
    (told,) = remover.remove([decision()], clock.now_ns + 60 * 10**9)
    assert told.outcome is Outcome.REMOVED


def test_a_removal_that_was_begun_is_waited_for_at_the_stop_and_then_reported_as_not_done(
    engine: RemovalEngine,
) -> None:
    reached, release = threading.Event(), threading.Event()

    def hold(_: int) -> Answer:
        reached.set()
        release.wait(60)
        return (404, {"message": "gone"})

    engine.kinds["look"] = hold
    remover = Remover(engine.host, FrozenClock(), grace_s=0)
    remover.remove([decision()], deadline_ns=0)
    assert reached.wait(30)
    (told,) = remover.close(0)
    release.set()
    assert (told.outcome, told.error) == (Outcome.FAILED, "not done when the agent stopped")
    assert remover.collect() == ()


def test_one_that_is_under_way_is_not_begun_a_second_time(engine: RemovalEngine) -> None:
    reached, release = threading.Event(), threading.Event()

    def hold(_: int) -> Answer:
        reached.set()
        release.wait(60)
        return (404, {"message": "gone"})

    engine.kinds["look"] = hold
    remover = Remover(engine.host, FrozenClock(), grace_s=0)
    remover.remove([decision()], deadline_ns=0)
    assert reached.wait(30)
    assert remover.remove([decision()], deadline_ns=0) == ()
    assert [one.container_id for one in remover.not_attempted] == [ID]
    release.set()
    (told,) = remover.close(30)
    assert told.outcome is Outcome.GONE
    assert engine.count("look") == 1


def test_who_waits_for_a_removal_stops_waiting_where_something_is_more_urgent(
    engine: RemovalEngine,
) -> None:
    """And the removal goes on."""
    release = threading.Event()

    def hold(_: int) -> Answer:
        release.wait(30)
        return (404, {"message": "gone"})

    engine.kinds["look"] = hold
    remover = Remover(engine.host, FrozenClock(), grace_s=0)
    asked: list[int] = []

    def hurry() -> bool:
        asked.append(1)
        return len(asked) == 2

    remover.hurry = hurry
    assert remover.remove([decision()], deadline_ns=10**18) == ()
    assert len(asked) == 2
    release.set()
    (ended,) = remover.close(30)
    assert ended.outcome is Outcome.GONE
