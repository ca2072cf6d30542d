"""Every safeguard of a removal holds for every other action on a container too."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.actions import removal
from agent.actions.remover import Remover
from agent.model.removal import Action, Decision, Outcome, Reason
from agent.policy import governance
from tests.unit.actions.removal_engine import CREATED_NS, RemovalEngine, about, decision
from tests.unit.actions.test_remover import FrozenClock

if TYPE_CHECKING:
    from tests.unit.actions.removal_engine import Answer

TOUCHING = [one for one in Action if one.is_destructive]
REQUEST = {
    Action.REMOVE: "delete",
    Action.STOP: "stop",
    Action.RESTART: "restart",
    Action.PAUSE: "pause",
}
DONE = {
    Action.REMOVE: Outcome.REMOVED,
    Action.STOP: Outcome.STOPPED,
    Action.RESTART: Outcome.RESTARTED,
    Action.PAUSE: Outcome.PAUSED,
}
each_action = pytest.mark.parametrize("action", TOUCHING)


def of(action: Action, reason: Reason = Reason.RULE) -> Decision:
    return replace(decision(reason=reason), action=action, rule="mine")


def attempt(engine: RemovalEngine, one: Decision) -> removal.Ending:
    return removal.attempt(engine.host, one, 1, governance.still_stands)


def changes(engine: RemovalEngine) -> list[str]:
    return [one for one in engine.order if one in {"stop", "restart", "pause", "delete"}]


@each_action
def test_it_is_carried_out_on_the_one_decided_on(engine: RemovalEngine, action: Action) -> None:
    assert attempt(engine, of(action)).outcome is DONE[action]
    assert changes(engine)[-1] == REQUEST[action]


NOT_THE_ONE: dict[str, Answer] = {
    "created at another time": (200, about(Created="2026-11-24T15:35:10.000000002Z")),
    "renamed": (200, about(Name="/db")),
    "protected since": (
        200,
        about(Config={"Image": "alpine", "Labels": {"so1.protect": "true"}}),
    ),
    "Grafana": (200, about(Config={"Image": "grafana/grafana", "Labels": None})),
    "another id": (200, about(Id="cd" * 32)),
    "gone": (404, {"message": "no such container"}),
}


@each_action
@pytest.mark.parametrize("what", NOT_THE_ONE)
def test_what_is_not_the_one_decided_on_any_more_is_left_alone(
    engine: RemovalEngine,
    action: Action,
    what: str,
) -> None:
    engine.kinds["look"] = lambda _: NOT_THE_ONE[what]
    assert attempt(engine, of(action)).outcome is Outcome.GONE
    assert changes(engine) == []


@each_action
def test_one_decided_on_as_ended_that_runs_again_is_left_alone(
    engine: RemovalEngine,
    action: Action,
) -> None:
    ending = attempt(engine, of(action, Reason.EXITED))
    assert (ending.outcome, ending.error) == (Outcome.GONE, "it runs again")
    assert changes(engine) == []


@pytest.mark.parametrize(
    ("action", "state", "said"),
    [
        (Action.STOP, "exited", "it does not run any more"),
        (Action.PAUSE, "exited", "it does not run any more"),
        (Action.RESTART, "exited", "it does not run any more"),
        (Action.PAUSE, "paused", "it is paused already"),
    ],
)
def test_one_that_is_so_already_is_left_alone(
    engine: RemovalEngine,
    action: Action,
    state: str,
    said: str,
) -> None:
    now = {"Status": state, "Running": state == "paused", "Pid": 7}
    engine.kinds["look"] = lambda _: (200, about(State=now))
    ending = attempt(engine, of(action))
    assert (ending.outcome, ending.error) == (Outcome.GONE, said)
    assert changes(engine) == []


def test_a_restart_decided_on_an_ended_one_starts_it(engine: RemovalEngine) -> None:
    engine.kinds["look"] = lambda _: (200, about("exited"))
    assert attempt(engine, of(Action.RESTART, Reason.EXITED)).outcome is Outcome.RESTARTED
    assert changes(engine) == ["restart"]


@each_action
@pytest.mark.usefixtures("impatient")
def test_a_refusal_of_docker_is_a_failure_with_its_words(
    engine: RemovalEngine,
    action: Action,
) -> None:
    engine.kinds[REQUEST[action]] = lambda _: (500, {"message": "device busy"})
    ending = attempt(engine, of(action))
    assert ending.outcome is Outcome.FAILED
    assert "device busy" in ending.error


AFTER = {
    Action.REMOVE: (404, {"message": "gone"}),
    Action.STOP: (200, about("exited")),
    Action.RESTART: (200, about(State={"Status": "running", "Running": True, "Pid": 8})),
    Action.PAUSE: (200, about(State={"Status": "paused", "Running": True, "Pid": 7})),
}


@each_action
def test_one_that_docker_does_not_answer_is_told_by_the_container_alone(
    engine: RemovalEngine,
    action: Action,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()

    def hang(_: int) -> Answer:
        release.wait(30)
        return (204, None)

    with monkeypatch.context() as patient:
        # A late answer of a busy machine to a look is not what is meant.
        patient.setattr(removal, "POLL_TIMEOUT_S", 10.0)
        patient.setattr(removal, "GONE_TIMEOUT_S", 30.0)
        engine.kinds[REQUEST[action]] = hang
        engine.kinds["look"] = lambda n: (200, about()) if n < 2 else AFTER[action]
        one = replace(of(action), grace_s=0)
        assert attempt(engine, one).outcome is DONE[action]
    engine.kinds["look"] = lambda _: (200, about())
    assert attempt(engine, one).outcome is Outcome.FAILED
    release.set()


@each_action
@pytest.mark.usefixtures("impatient")
def test_a_refusal_is_made_again_after_a_pause_and_no_other_in_its_place(
    engine: RemovalEngine,
    action: Action,
) -> None:
    engine.kinds[REQUEST[action]] = lambda _: (500, {"message": "no"})
    clock = FrozenClock()
    remover = Remover(engine.host, clock, grace_s=0)
    (first,) = remover.remove([of(action)], 60 * 10**9)
    assert first.outcome is Outcome.FAILED
    assert remover.remove([of(action)], 60 * 10**9) == ()
    assert [one.action for one in remover.not_attempted] == [action]
    clock.now_ns = 20 * 10**9
    engine.kinds[REQUEST[action]] = lambda _: (204, None)
    (second,) = remover.remove([of(action)], 80 * 10**9)
    assert second.outcome is DONE[action]


def test_a_decision_s_own_grace_wins_over_the_setting(
    engine: RemovalEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graces: list[int] = []
    monkeypatch.setattr(removal, "_stop", lambda api, key, grace_s: graces.append(grace_s))
    attempt(engine, of(Action.REMOVE))
    attempt(engine, replace(of(Action.REMOVE), grace_s=9))
    assert graces == [1, 9]
    assert of(Action.REMOVE).created_ns == CREATED_NS


def test_a_report_asks_docker_for_no_change(engine: RemovalEngine) -> None:
    assert attempt(engine, of(Action.NOTIFY)).outcome is Outcome.NOTIFIED
    assert changes(engine) == []


@each_action
def test_the_last_word_before_the_action_holds(engine: RemovalEngine, action: Action) -> None:
    """A decision that waited for a worker is asked about when its turn comes."""
    instead = removal.Ending(Outcome.NOTIFIED, "the policy is disarmed: by hand")
    remover = Remover(engine.host, FrozenClock(), 0, last_word=lambda _: instead)
    (one,) = remover.remove([of(action)], 60 * 10**9)
    assert (one.outcome, one.error) == (instead.outcome, instead.error)
    assert one.is_withheld
    assert changes(engine) == []
