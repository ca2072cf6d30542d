"""The helper that asks by CRI: whatever it does is one sentence, and it is started again."""

from __future__ import annotations

import json
import socket
import sys
import threading
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.cri import helper as program
from agent.engine_api import cri
from agent.engine_api.cri import CriHelper
from agent.errors import EngineUnavailableError
from tests.unit.engine_api.fake_helper import (
    FakeHelpers,
    answers,
    cannot_start,
    ends,
    hangs,
    lines,
    sends,
)
from tests.unit.sources.engine.fake_engine import SECOND, Clock

SOCKET = "unix:///run/containerd/containerd.sock"
ONE = {"version": {"name": "containerd"}}


def helper_of(helpers: Any, clock: Clock | None = None) -> CriHelper:
    return CriHelper(SOCKET, "/opt/so1/cri", clock or Clock(), helpers)


def failure(helper: CriHelper, timeout_s: float = 10) -> EngineUnavailableError:
    with pytest.raises(EngineUnavailableError) as caught:
        helper.ask("list", timeout_s)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "cri_environment.sh"))
    return caught.value


def test_it_is_started_with_the_first_question_and_once() -> None:
    helpers = FakeHelpers(answers(ONE))
    helper = helper_of(helpers)
    assert helpers.started == []
    for _ in range(3):
        assert helper.ask("version", 10) == [ONE]
    (words,) = helpers.started
    assert list(words[:4]) == ["/opt/so1/cri/bin/python", "-I", "-m", "agent.cri.helper"]
    assert words[4] == "/run/containerd/containerd.sock"
    helper.close()
    helpers.living[0]._thread.join(10)
    assert not helpers.living[0]._thread.is_alive()


BROKEN = {
    "killed": (ends(-9), "ended by signal 9"),
    "ended": (ends(3), "ended with status 3"),
    "ended well": (ends(0), "ended with status 0"),
    "no JSON": (sends(b"Traceback (most recent call last):\n"), "what is not JSON"),
    "no object": (sends(b"[1]\n"), "no objects"),
    "escapes": (sends(b"\x1b[2J\xff\n"), "what is not JSON"),
    "more than the answer": (sends(lines({"end": True}, ONE)), "goes on after the end"),
    "an environment without grpc": (
        sends(lines({"error": "No module named 'grpc'", "kind": "environment"})),
        "is not whole: No module named 'grpc'",
    ),
    "deep": (sends(b"[" * 100_000 + b"\n"), "what is not JSON"),
    "a line without end": (sends(b"x" * (2 << 20)), "a line without end"),
    "an answer without end": (sends(lines({"x": "y" * 999}) * 40_000), "more than 32 MiB"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_helper_that_breaks_is_one_sentence_and_is_started_again(what: str) -> None:
    act, named = BROKEN[what]
    helpers, clock = FakeHelpers(act, answers(ONE)), Clock()
    helper = helper_of(helpers, clock)
    first, again = failure(helper), failure(helper)
    assert named in first.message
    assert str(again) == str(first)  # in the pause the same sentence
    assert again is not first
    assert len(helpers.started) == 1
    clock.now_ns += SECOND
    assert helper.ask("list", 10) == [ONE]
    helper.close()


def test_one_that_hangs_is_ended_at_the_deadline() -> None:
    helpers = FakeHelpers(hangs, answers(ONE))
    helper = helper_of(helpers)
    assert "not answered within 0.05 s" in failure(helper, 0.05).message
    helpers.living[0]._thread.join(10)
    assert not helpers.living[0]._thread.is_alive()


def test_pauses_grow_while_it_fails_and_begin_again_after_an_answer() -> None:
    helpers, clock = FakeHelpers(ends(1), ends(1), answers(ONE), ends(1)), Clock()
    helper = helper_of(helpers, clock)
    failure(helper)
    clock.now_ns += SECOND
    failure(helper)
    clock.now_ns += SECOND
    failure(helper)
    assert len(helpers.started) == 2
    clock.now_ns += SECOND
    assert helper.ask("list", 10) == [ONE]
    helper.close()
    failure(helper)
    clock.now_ns += SECOND
    failure(helper)
    assert len(helpers.started) == 5


def test_an_environment_that_is_not_there_says_what_makes_it() -> None:
    error = failure(helper_of(cannot_start))
    assert "/opt/so1/cri/bin/python cannot be run" in error.message
    assert error.hint.endswith("cri_environment.sh")


def test_one_that_ends_by_itself_may_have_lost_its_environment() -> None:
    assert failure(helper_of(FakeHelpers(ends(1)))).hint.endswith("cri_environment.sh")
    assert failure(helper_of(FakeHelpers(ends(-9)))).hint == "It is started again by itself."


RUNTIMES = {
    "socket": "Start it",
    "unavailable": "Start it",
    "deadline_exceeded": "does not answer in time",
    "unimplemented": "does not speak CRI v1",
    "resource_exhausted": "more than one answer may hold",
    "internal": "Look at",
    "": "Look at",
}


@pytest.mark.parametrize("kind", RUNTIMES)
def test_what_the_runtime_does_costs_no_helper(kind: str) -> None:
    broken = {"error": "what\x1b it said", "kind": kind}
    helpers = FakeHelpers(sends(lines(broken)))
    helper = helper_of(helpers)
    for _ in range(2):
        error = failure(helper)
        assert RUNTIMES[kind] in str(error)
        assert "\x1b" not in str(error)
    assert len(helpers.started) == 1
    helper.close()


def test_the_agent_has_no_grpc_of_its_own() -> None:
    assert "grpc" not in sys.modules
    assert cri.CriHelper is CriHelper


class Runtime(program.Asked):
    """Answers without gRPC."""

    def answer(self, what: str, seconds: float) -> Any:
        yield {"asked": [what, seconds]}


def exchange(asked: program.Asked, *questions: Any) -> list[Any]:
    """What the helper's program answers on its socket."""
    ours, its = socket.socketpair()
    thread = threading.Thread(target=program.serve, args=(asked, its), daemon=True)
    thread.start()
    with ours, ours.makefile("rwb") as stream:
        found = []
        for question in questions:
            stream.write(lines(question))
            stream.flush()
            while "end" not in (line := json.loads(stream.readline())) and "error" not in line:
                found.append(line)
            found.append(line)
    ours.close()
    thread.join(10)
    assert not thread.is_alive()
    return found


def test_the_program_answers_until_its_asker_is_gone() -> None:
    asked = [{"ask": "list", "seconds": 8}, {"ask": "version", "seconds": 1}]
    assert exchange(Runtime("/x"), *asked) == [
        {"asked": ["list", 8.0]},
        {"end": True},
        {"asked": ["version", 1.0]},
        {"end": True},
    ]


class RpcError(Exception):
    """gRPC's, with its two questions."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._name = name

    def code(self) -> Any:
        return getattr(StatusCode, self._name)

    def details(self) -> str:
        return f"it said {self._name}"


class StatusCode(Enum):
    NOT_FOUND = 5
    UNAVAILABLE = 14
    INTERNAL = 13


class Pods(program.Asked):
    """One sandbox with containers that run; each look is what a test says."""

    def __init__(self, place: Path, **looks: Any) -> None:
        (place / "c.sock").touch()
        super().__init__(str(place / "c.sock"))
        self.looks = looks
        self.asked: list[str] = []

    def _sandboxes(self, ends: float) -> Any:
        return []

    def _containers(self, ends: float) -> Any:
        return [("container", {"id": key, "running": key != "over"}) for key in self.looks]

    def _status(self, kind: str, key: str, ends: float) -> Any:
        self.asked.append(key)
        if isinstance(look := self.looks[key], Exception):
            raise look
        return look


@pytest.fixture
def grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(RpcError=RpcError, StatusCode=StatusCode)
    monkeypatch.setitem(sys.modules, "grpc", fake)


LIST = {"ask": "list", "seconds": 8}


@pytest.mark.usefixtures("grpc")
def test_the_program_looks_once_at_each_that_runs(tmp_path: Path) -> None:
    asked = Pods(tmp_path, one={"pid": 4711, "started_ns": 7}, over={"pid": 1}, late={"pid": 0})
    wanted = [
        {"container": {"id": "one", "running": True, "pid": 4711, "started_ns": 7}},
        {"container": {"id": "over", "running": False}},
        {"container": {"id": "late", "running": True, "pid": 0}},
        {"end": True},
    ]
    assert exchange(asked, LIST, LIST) == wanted * 2
    assert asked.asked == ["one", "late", "late"]


@pytest.mark.usefixtures("grpc")
def test_one_that_is_gone_or_not_described_hides_no_other(tmp_path: Path) -> None:
    asked = Pods(
        tmp_path,
        gone=RpcError("NOT_FOUND"),
        broken=RpcError("INTERNAL"),
        odd=KeyError("pid"),
        huge=OverflowError("infinity"),
        one={"pid": 5},
    )
    found = exchange(asked, LIST)
    told = {line["container"]["id"]: line["container"] for line in found[:-1]}
    assert list(told) == ["broken", "odd", "huge", "one"]
    assert told["broken"]["undescribed"] == "it said INTERNAL"
    assert "odd answer" in told["odd"]["undescribed"]
    assert told["one"]["pid"] == 5


@pytest.mark.usefixtures("grpc")
def test_a_runtime_that_goes_away_meanwhile_is_the_answer(tmp_path: Path) -> None:
    asked = Pods(tmp_path, one={"pid": 5}, two=RpcError("UNAVAILABLE"))
    gone = {"error": "it said UNAVAILABLE", "kind": "unavailable"}
    assert exchange(asked, LIST) == [gone]
    asked.looks["two"] = {"pid": 6}
    assert exchange(asked, LIST)[-1] == {"end": True}


def test_the_program_says_that_the_socket_is_gone(tmp_path: Path) -> None:
    asked = program.Asked(str(tmp_path / "gone.sock"))
    assert exchange(asked, {"ask": "list", "seconds": 8}) == [
        {"error": "No such file or directory", "kind": "socket"}
    ]


def test_the_program_says_that_its_environment_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.sock").touch()
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.setitem(sys.modules, "google", None)
    asked = program.Asked(str(tmp_path / "c.sock"))
    (answer,) = exchange(asked, {"ask": "list", "seconds": 8})
    assert answer["kind"] == "environment"
