"""Removals on a real engine: the right container, once, in time, and nothing that took its place.

The oracle is `docker events` and `docker inspect` through the command line, on an engine that has
only this module's containers.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.actions.remover import Remover, remove_installation
from agent.clock import SystemClock
from agent.errors import EngineUnavailableError
from agent.model.container import Container, Tier
from agent.model.removal import Decision, Outcome, Reason
from tests.containers import wait_until
from tests.docker.removals import IGNORES_TERM, OURS, decision, outcomes, remover, soon, unremovable

if TYPE_CHECKING:
    from tests.docker.private_engine import PrivateEngine

__all__ = ["remover"]

LONG_NS = 60 * 10**9


class MovableClock:
    """The boot clock, and as much more as a test wants to have passed."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def wall_ns(self) -> int:
        return time.time_ns()

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.ahead_ns


def test_exactly_the_chosen_ones_are_stopped_and_destroyed(
    engine: PrivateEngine, remover: Remover
) -> None:
    chosen = [engine.run(), engine.run()]
    other = engine.run()
    decisions = [decision(engine, one) for one in chosen]
    since = engine.now()
    removals = remover.remove(decisions, soon())
    assert outcomes(removals) == dict.fromkeys(chosen, Outcome.REMOVED)
    assert all(one.error == "" and one.duration_ms > 0 for one in removals)
    assert {which for _, which in engine.events(since, "destroy")} == set(chosen)
    assert {which for _, which in engine.events(since, "stop")} == set(chosen)
    assert engine.inspect(other)["State"]["Running"]
    assert remover.collect() == ()


def test_one_that_ends_on_its_stop_signal_is_given_the_time(
    engine: PrivateEngine, remover: Remover
) -> None:
    polite = engine.run(command=("sh", "-c", "trap 'exit 7' TERM; sleep infinity & wait"))
    since = engine.now()
    remover.remove([decision(engine, polite)], soon())
    assert [action for action, _ in engine.events(since, "kill", "die", "destroy")] == [
        "kill",
        "die",
        "destroy",
    ]


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda engine, one: None, id="ignores SIGTERM"),
        pytest.param(lambda engine, one: engine.docker("pause", one), id="paused"),
    ],
)
def test_one_that_will_not_end_is_killed_after_the_grace(
    engine: PrivateEngine, remover: Remover, prepare: object
) -> None:
    stubborn = engine.run(command=IGNORES_TERM)
    prepare(engine, stubborn)  # type: ignore[operator]
    removals = remover.remove([decision(engine, stubborn)], soon())
    assert outcomes(removals) == {stubborn: Outcome.REMOVED}
    assert not engine.exists(stubborn)


def test_one_that_docker_restarts_is_removed_for_good(
    engine: PrivateEngine, remover: Remover
) -> None:
    loop = engine.run("--restart", "always", command=("sh", "-c", "sleep 0.3; exit 1"))
    wait_until(lambda: engine.inspect(loop)["RestartCount"] > 0, "it was restarted")
    removals = remover.remove([decision(engine, loop)], soon())
    assert outcomes(removals) == {loop: Outcome.REMOVED}
    assert not engine.exists(loop)


def test_one_that_is_gone_already_is_gone_and_not_failed(
    engine: PrivateEngine, remover: Remover
) -> None:
    vanished = decision(engine, engine.run())
    engine.docker("rm", "-f", vanished.container_id)
    assert outcomes(remover.remove([vanished], soon())) == {vanished.container_id: Outcome.GONE}


def test_one_that_docker_itself_removes_when_it_ends_is_gone(
    engine: PrivateEngine, remover: Remover
) -> None:
    auto = engine.run("--rm")
    since = engine.now()
    removals = remover.remove([decision(engine, auto)], soon())
    assert outcomes(removals) in ({auto: Outcome.GONE}, {auto: Outcome.REMOVED})
    wait_until(lambda: not engine.exists(auto), "it is gone")
    assert engine.events(since, "destroy") == [("destroy", auto)]


def test_several_that_remove_one_at_once_all_come_to_an_end(
    engine: PrivateEngine, remover: Remover
) -> None:
    wanted = [decision(engine, engine.run(command=IGNORES_TERM)) for _ in range(3)]
    ids = [one.container_id for one in wanted]
    rival = threading.Thread(target=lambda: engine.docker("rm", "-f", *ids, check=False))
    rival.start()
    removals = remover.remove(wanted, soon())
    rival.join()
    assert set(outcomes(removals)) == set(ids)
    assert set(outcomes(removals).values()) <= {Outcome.REMOVED, Outcome.GONE}


def test_a_container_that_took_the_name_in_between_is_left_alone(
    engine: PrivateEngine, remover: Remover
) -> None:
    first = engine.run("--name", "so1_contenedor_1")
    wanted = decision(engine, first)
    engine.docker("rm", "-f", first)
    second = engine.run("--name", "so1_contenedor_1")
    assert outcomes(remover.remove([wanted], soon())) == {first: Outcome.GONE}
    assert engine.inspect(second)["State"]["Running"]


def test_a_container_whose_name_is_the_id_that_was_decided_on_is_left_alone(
    engine: PrivateEngine, remover: Remover
) -> None:
    first = engine.run()
    wanted = decision(engine, first)
    engine.docker("rm", "-f", first)
    impostor = engine.run("--name", first)
    assert outcomes(remover.remove([wanted], soon())) == {first: Outcome.GONE}
    assert engine.inspect(impostor)["State"]["Running"]


def test_another_creation_time_is_another_container(
    engine: PrivateEngine, remover: Remover
) -> None:
    wanted = decision(engine, engine.run())
    (removal,) = remover.remove([replace(wanted, created_ns=wanted.created_ns + 1)], soon())
    assert (removal.outcome, removal.error) == (
        Outcome.GONE,
        "created at another time than the one decided on",
    )
    assert engine.exists(wanted.container_id)


def test_an_exited_one_that_runs_again_is_left_alone(
    engine: PrivateEngine, remover: Remover
) -> None:
    revived = engine.run(command=("sh", "-c", "test -e /again && sleep 600; touch /again"))
    wait_until(lambda: engine.inspect(revived)["State"]["Status"] == "exited", "it exited")
    wanted = decision(engine, revived, reason=Reason.EXITED)
    engine.docker("start", revived)
    (removal,) = remover.remove([wanted], soon())
    assert (removal.outcome, removal.error) == (Outcome.GONE, "it runs again")
    assert engine.inspect(revived)["State"]["Running"]


def test_an_exited_one_is_removed_without_a_signal(engine: PrivateEngine, remover: Remover) -> None:
    ended = engine.run(command=("true",))
    wait_until(lambda: engine.inspect(ended)["State"]["Status"] == "exited", "it exited")
    since = engine.now()
    removals = remover.remove([decision(engine, ended, reason=Reason.EXITED)], soon())
    assert outcomes(removals) == {ended: Outcome.REMOVED}
    assert engine.events(since, "kill", "stop", "destroy") == [("destroy", ended)]


def test_one_that_was_renamed_out_of_our_reach_is_left_alone(engine: PrivateEngine) -> None:
    def still_allowed(_: Decision, now: Container) -> bool:
        return now.name.startswith("so1_contenedor_")

    remover = Remover(engine.host, SystemClock(), 1, still_allowed)
    renamed = engine.run("--name", "so1_contenedor_1")
    wanted = decision(engine, renamed)
    engine.docker("rename", renamed, "grafana")
    (removal,) = remover.remove([wanted], soon())
    assert (removal.outcome, removal.error) == (Outcome.GONE, "not governed any more")
    assert engine.inspect(renamed)["State"]["Running"]


def test_anonymous_volumes_stay(engine: PrivateEngine, remover: Remover) -> None:
    keeper = engine.run("-v", "/data", command=("sh", "-c", "echo kept > /data/x; sleep 600"))
    (mount,) = engine.inspect(keeper)["Mounts"]
    written = Path(mount["Source"]) / "x"
    wait_until(lambda: written.exists() and written.read_text() == "kept\n", "it has written")
    removals = remover.remove([decision(engine, keeper)], soon())
    assert outcomes(removals) == {keeper: Outcome.REMOVED}
    assert written.read_text() == "kept\n"
    engine.docker("volume", "rm", mount["Name"])


def test_one_that_cannot_be_removed_is_failed_and_tried_again_with_growing_pauses(
    engine: PrivateEngine,
) -> None:
    clock = MovableClock()
    remover = Remover(engine.host, clock, grace_s=0)
    fixed = engine.run("--name", "so1_contenedor_1")
    running = decision(engine, fixed)
    with unremovable(engine, fixed):
        (removal,) = remover.remove([running], clock.boot_ns() + LONG_NS)
        assert removal.outcome is Outcome.FAILED
        assert "operation not permitted" in removal.error
        # What is left of it: no process, and a state that the policy counts as ended.
        assert engine.docker("ps", "-a", "--format", "{{.State}}") == "removing"
        ended = decision(engine, fixed, reason=Reason.EXITED)
        for pause_s in (20, 40, 80):
            clock.ahead_ns += (pause_s - 5) * 10**9
            assert remover.remove([ended], clock.boot_ns() + LONG_NS) == ()
            assert remover.not_attempted == (ended,)
            clock.ahead_ns += 6 * 10**9
            (removal,) = remover.remove([ended], clock.boot_ns() + LONG_NS)
            assert removal.outcome is Outcome.FAILED
    clock.ahead_ns += 3600 * 10**9
    (removal,) = remover.remove([ended], clock.boot_ns() + LONG_NS)
    assert removal.outcome is Outcome.REMOVED
    assert not engine.exists(fixed)


def test_what_has_not_ended_at_the_deadline_is_told_later_and_begun_once(
    engine: PrivateEngine,
) -> None:
    remover = Remover(engine.host, SystemClock(), grace_s=3)
    slow = engine.run(command=IGNORES_TERM)
    quick = engine.run(command=("sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"))
    wanted = [decision(engine, one) for one in (slow, quick)]
    since = engine.now()
    told = list(remover.remove(wanted, soon(1)))
    assert slow not in outcomes(told)
    told += remover.remove(wanted[:1], soon(0))
    assert remover.not_attempted == (wanted[0],)

    def all_told() -> bool:
        told.extend(remover.collect())
        return len(told) == len(wanted)

    wait_until(all_told, "both have ended")
    assert outcomes(told) == {quick: Outcome.REMOVED, slow: Outcome.REMOVED}
    assert engine.events(since, "destroy").count(("destroy", slow)) == 1


def test_a_hung_docker_holds_nobody_past_the_deadline(engine: PrivateEngine) -> None:
    remover = Remover(engine.host, SystemClock(), grace_s=1)
    wanted = decision(engine, engine.run())
    engine.pause_daemon()
    began = time.monotonic()
    assert remover.remove([wanted], soon(0.5)) == ()
    (removal,) = remover.close(0.1)
    assert time.monotonic() - began < 30  # the limit of one call; a hang would be for ever
    assert removal.outcome is Outcome.FAILED
    engine.resume_daemon()
    wait_until(lambda: not engine.exists(wanted.container_id), "what was asked for is done")


def test_without_docker_every_decision_fails_with_the_reason(tmp_path: Path) -> None:
    remover = Remover(f"unix://{tmp_path}/none.sock", SystemClock(), grace_s=1)
    wanted = Decision("d", "a" * 64, "x", "alpine", 0, Tier.LOW, 1, Reason.EXCESS_LOW, 0.0, 0.0)
    (removal,) = remover.remove([wanted], soon())
    assert removal.outcome is Outcome.FAILED
    assert "No such file" in removal.error
    with pytest.raises(EngineUnavailableError):
        remove_installation(f"unix://{tmp_path}/none.sock", OURS, progress=print)


def test_side_by_side_takes_less_than_one_after_another(
    engine: PrivateEngine, remover: Remover, record_property: object
) -> None:
    """From nine to five: four containers that ignore SIGTERM, against `docker stop` in turn."""
    four = [engine.run(command=IGNORES_TERM) for _ in range(4)]
    decisions = [decision(engine, one) for one in four]
    began = time.monotonic()
    removals = remover.remove(decisions, soon())
    together_s = time.monotonic() - began
    assert outcomes(removals) == dict.fromkeys(four, Outcome.REMOVED)
    again = [engine.run(command=IGNORES_TERM) for _ in range(4)]
    began = time.monotonic()
    for one in again:
        engine.docker("stop", "-t", "1", one)
        engine.docker("rm", one)
    in_turn_s = time.monotonic() - began
    record_property("together_s", round(together_s, 2))  # type: ignore[operator]
    record_property("in_turn_s", round(in_turn_s, 2))  # type: ignore[operator]
    # Four graces of 1 s one after another cannot be shorter than 4 s; side by side they overlap.
    assert together_s < in_turn_s
