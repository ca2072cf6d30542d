"""Several engines asked at once: who answers is not held up by who does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.errors import EngineUnavailableError
from agent.sources.engine.inventory import Listing
from agent.sources.engine.lists import EngineLists
from tests.unit.builders import container

WAIT_S = 10


class Scripted:
    """An engine's list that hangs while a test says so."""

    def __init__(self, letter: str) -> None:
        self.listing = Listing((container(letter),), 0, 0)
        self.going = threading.Event()
        self.going.set()
        self.asked = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.calls: list[bool] = []
        self.threads: set[int] = set()
        self.error: Exception | None = None

    def list(self, *, fresh: bool = False) -> Listing:
        self.calls.append(fresh)
        self.threads.add(threading.get_ident())
        self.asked.release()
        try:
            assert self.going.wait(WAIT_S)
            if self.error is not None:
                raise self.error
            return self.listing
        finally:
            self.ended.release()


@pytest.fixture(autouse=True)
def no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[EngineLists] = []
    begin = EngineLists.__init__

    def noted(self: EngineLists, *words: Any) -> None:
        begin(self, *words)
        made.append(self)

    monkeypatch.setattr(EngineLists, "__init__", noted)
    yield
    for one in made:
        one.close()
    for thread in threading.enumerate():
        if thread.name.startswith("list-"):
            thread.join(WAIT_S)
            assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    """Its thread needs a moment from the end of a list to be asked for the next."""
    for _ in range(10_000):
        if condition():
            return
    raise AssertionError("it never came")


def test_one_engine_is_asked_in_the_callers_own_thread() -> None:
    one = Scripted("a")
    assert EngineLists({"docker": one}).ask() == {"docker": one.listing}
    assert one.threads == {threading.get_ident()}


def test_several_are_asked_each_in_a_thread_that_is_always_the_same() -> None:
    one, other = Scripted("a"), Scripted("b")
    lists = EngineLists({"docker": one, "podman": other}, WAIT_S)
    for _ in range(3):
        assert lists.ask(fresh=True) == {"docker": one.listing, "podman": other.listing}
    assert one.calls == other.calls == [True] * 3
    assert len(one.threads) == len(other.threads) == 1
    assert one.threads != other.threads


def test_one_that_hangs_hides_itself_alone_and_is_not_waited_for_again() -> None:
    one, other = Scripted("a"), Scripted("b")
    lists = EngineLists({"docker": one, "podman": other}, 0.05)
    other.going.clear()
    late = lists.ask()
    assert late["docker"] == one.listing
    assert isinstance(late["podman"], EngineUnavailableError)
    assert "podman has not given its list in time" in late["podman"].message
    # An hour's patience from here on: nobody waits for one that hangs.
    patient = EngineLists({"docker": one, "podman": other}, 3600)
    patient._readers = lists._readers
    assert isinstance(patient.ask()["podman"], EngineUnavailableError)
    assert patient.ask()["docker"] == one.listing
    assert len(other.calls) == 1
    other.going.set()


def test_one_that_hung_is_taken_up_when_it_answers_again() -> None:
    one, other = Scripted("a"), Scripted("b")
    lists = EngineLists({"docker": one, "podman": other}, 0.05)
    other.going.clear()
    lists.ask()
    other.ended = threading.Semaphore(0)
    other.going.set()
    assert other.ended.acquire(timeout=WAIT_S)
    # Late as it was, it was a list: it is waited for like any other.
    patient = EngineLists({"docker": one, "podman": other}, WAIT_S)
    patient._readers = lists._readers
    wait_until(lambda: patient.ask()["podman"] == other.listing)
    assert patient.ask()["podman"] == other.listing


def test_one_that_fails_is_told_by_its_own_words_also_while_it_hangs() -> None:
    one, other = Scripted("a"), Scripted("b")
    lists = EngineLists({"docker": one, "podman": other}, WAIT_S)
    other.error = EngineUnavailableError("No socket.", "Start it.")
    assert lists.ask()["podman"] is other.error
    other.going.clear()
    assert lists.ask()["podman"] is other.error
    assert lists.ask()["podman"] is other.error
    other.going.set()


def test_an_error_inside_is_a_sentence_and_the_thread_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = Scripted("a"), Scripted("b")
    lists = EngineLists({"docker": one, "podman": other}, WAIT_S)
    other.error = KeyError("x")
    failed = lists.ask()["podman"]
    assert isinstance(failed, EngineUnavailableError)
    assert "KeyError" in failed.message
    assert "engine=podman" in caplog.text
    other.error = None
    assert lists.ask()["podman"] == other.listing


def test_where_no_thread_can_be_started_the_engine_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one, other = Scripted("a"), Scripted("b")
    lists = EngineLists({"docker": one, "podman": other}, WAIT_S)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for answer in lists.ask().values():
            assert isinstance(answer, EngineUnavailableError)
            assert "No thread" in answer.message
    assert lists.ask()["docker"] == one.listing
