"""One removal, where the engine refuses, hangs or talks nonsense: reported, bounded, never wrong.

The real engine is met in the docker layer.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from agent.actions import removal
from agent.model.removal import Outcome, Reason
from tests.unit.actions.removal_engine import Answer, RemovalEngine, about, decision


def attempt(engine: RemovalEngine, reason: Reason = Reason.EXCESS_LOW) -> removal.Ending:
    return removal.attempt(engine.host, decision(reason=reason), grace_s=0)


def test_the_ordinary_case_looks_stops_and_deletes(engine: RemovalEngine) -> None:
    assert attempt(engine).outcome is Outcome.REMOVED
    assert engine.order == ["look", "stop", "delete"]


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        json.dumps(about(Id=7)),
        json.dumps(about(Created="yesterday")),
        json.dumps(about(Created=None)),
        json.dumps(about(State=[])),
        json.dumps(about(Config={"Labels": {"a": []}})),
        json.dumps(about(Config={"Labels": ["so1.protect"]})),
    ],
)
def test_an_answer_that_is_no_container_removes_nothing(engine: RemovalEngine, body: str) -> None:
    engine.kinds["look"] = lambda n: (200, body)
    ending = attempt(engine)
    assert ending.outcome is Outcome.FAILED
    assert ending.error
    assert engine.order == ["look"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((404, {"message": "No such container"}), id="absent"),
        pytest.param((200, about(Id="cd" * 32)), id="another id"),
        pytest.param((200, about(Created="2026-11-24T15:35:10Z")), id="another creation time"),
    ],
)
def test_what_is_not_the_one_decided_on_is_gone_and_untouched(
    engine: RemovalEngine, answer: Answer
) -> None:
    engine.kinds["look"] = lambda n: answer
    assert attempt(engine).outcome is Outcome.GONE
    assert engine.order == ["look"]


def test_a_refusal_is_failed_with_dockers_words_short_and_printable(engine: RemovalEngine) -> None:
    engine.kinds["delete"] = lambda n: (500, {"message": "\x1b[31mdriver failed " + "x" * 5000})
    ending = attempt(engine)
    assert ending.outcome is Outcome.FAILED
    assert ending.error.startswith("\\x1b[31mdriver failed")
    assert len(ending.error) < 400


def test_a_stop_that_fails_is_no_reason_not_to_delete(engine: RemovalEngine) -> None:
    engine.kinds["stop"] = lambda n: (500, {"message": "cannot stop"})
    assert attempt(engine).outcome is Outcome.REMOVED


def test_one_that_vanishes_before_its_deletion_is_gone(engine: RemovalEngine) -> None:
    engine.kinds["delete"] = lambda n: (404, {"message": "No such container"})
    assert attempt(engine).outcome is Outcome.GONE


def test_a_removal_by_somebody_else_is_waited_for(engine: RemovalEngine) -> None:
    engine.kinds["delete"] = lambda n: (409, {"message": "removal is already in progress"})
    engine.kinds["look"] = lambda n: (200, about()) if n < 3 else (404, {"message": "gone"})
    assert attempt(engine).outcome is Outcome.GONE


def test_a_removal_by_somebody_else_that_never_ends_is_failed(
    engine: RemovalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "GONE_TIMEOUT_S", 0.1)
    engine.kinds["look"] = lambda n: (200, about("removing"))
    ending = attempt(engine)
    assert (ending.outcome, ending.error) == (Outcome.FAILED, "is being removed")
    assert "delete" not in engine.order


@pytest.mark.usefixtures("impatient")
def test_a_deletion_without_an_answer_counts_once_the_container_is_absent(
    engine: RemovalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(_: int) -> Answer:
        release.wait(30)
        return (204, None)

    engine.kinds["delete"] = hang
    engine.kinds["look"] = lambda n: (200, about()) if n < 2 else (404, {"message": "gone"})
    with monkeypatch.context() as patient:
        # Only the deletion has no answer: a busy machine's late one to a look is not what is meant.
        patient.setattr(removal, "CALL_TIMEOUT_S", 2.0)
        patient.setattr(removal, "POLL_TIMEOUT_S", 10.0)
        patient.setattr(removal, "GONE_TIMEOUT_S", 30.0)
        assert attempt(engine).outcome is Outcome.REMOVED
    engine.kinds["look"] = lambda n: (200, about())
    ending = attempt(engine)
    assert ending.outcome is Outcome.FAILED
    assert "does not answer in time" in ending.error
    release.set()


def test_one_that_was_started_again_while_it_was_deleted_as_exited_is_left(
    engine: RemovalEngine,
) -> None:
    engine.kinds["look"] = lambda n: (200, about("exited"))
    engine.kinds["delete"] = lambda n: (409, {"message": "You cannot remove a running container"})
    ending = attempt(engine, Reason.EXITED)
    assert (ending.outcome, ending.error) == (Outcome.GONE, "it runs again")
    assert "stop" not in engine.order


def test_a_rule_that_gives_no_time_costs_one_request_less(engine: RemovalEngine) -> None:
    hurried = replace(decision(), grace_s=0)
    assert removal.attempt(engine.host, hurried, grace_s=1).outcome is Outcome.REMOVED
    assert engine.order == ["look", "delete"]
