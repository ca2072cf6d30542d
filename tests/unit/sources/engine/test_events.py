"""Container events as they come, across an engine that goes and comes back."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.clock import SystemClock
from agent.sources.engine import events as events_module
from agent.sources.engine.events import EngineEvents
from agent.util.backoff import Backoff
from tests.unit.sources.engine.fake_engine import FakeEngine

A = "a" * 64


class Stream:
    """What the engine's `/events` does: the head at once, then what a test sends."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self.targets: list[str] = []
        self.ready = threading.Event()

    def __call__(self, connection: socket.socket, target: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.targets.append(target)
        self.connections.append(connection)
        self.ready.set()
        while connection.recv(1, socket.MSG_PEEK):
            time.sleep(0.01)

    def send(self, text: bytes) -> None:
        assert self.ready.wait(10)
        self.connections[-1].sendall(f"{len(text):x}\r\n".encode() + text + b"\r\n")

    def event(self, kind: str, container_id: str = A) -> None:
        entry = {"Type": "container", "Action": kind, "Actor": {"ID": container_id}}
        self.send(json.dumps(entry).encode() + b"\n")


@pytest.fixture
def stream(fake: FakeEngine) -> Stream:
    made = Stream()
    fake.answers["/events"] = made
    return made


@pytest.fixture
def heard() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def events(
    fake: FakeEngine, stream: Stream, heard: list[tuple[str, str]]
) -> Iterator[EngineEvents]:
    made = EngineEvents(fake.host, SystemClock(), lambda kind, key: heard.append((kind, key)))
    yield made
    made.close()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_are_handed_on_as_they_come(
    events: EngineEvents, stream: Stream, heard: list[tuple[str, str]]
) -> None:
    events.start()
    for kind in ("start", "die", "destroy", "rename", "oom"):
        stream.event(kind)
    wait_for(lambda: len(heard) == 5)
    assert heard == [(kind, A) for kind in ("start", "die", "destroy", "rename", "oom")]
    assert "filters" in stream.targets[0]
    assert stream.targets[0].startswith("/v1.41/events?")


def test_odd_events_are_counted_and_left_out(
    events: EngineEvents, stream: Stream, heard: list[tuple[str, str]]
) -> None:
    events.start()
    for odd in (b"{}", b'{"Action": "start"}', b'{"Action": 1, "Actor": []}'):
        stream.send(odd + b"\n")
    stream.event("start", "short")
    stream.event("exec_start: sh")
    stream.event("start")
    wait_for(lambda: heard)
    assert heard == [("start", A)]
    assert events.odd_events == 5


def test_since_when_it_is_quiet_is_the_last_event_and_unknown_without_a_stream(
    events: EngineEvents, fake: FakeEngine, stream: Stream, heard: list[tuple[str, str]]
) -> None:
    assert events.quiet_since_ns is None
    began = SystemClock().boot_ns()
    events.start()
    wait_for(lambda: events.quiet_since_ns)
    first = events.quiet_since_ns
    assert first and began < first <= SystemClock().boot_ns()
    before = SystemClock().boot_ns()
    stream.event("exec_start: sh")
    wait_for(lambda: (events.quiet_since_ns or 0) > before)
    fake.answers["/events"] = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    fake.drop()
    wait_for(lambda: events.quiet_since_ns is None)
    assert not heard


def test_a_lost_stream_is_taken_up_again_with_a_resync(
    events: EngineEvents, fake: FakeEngine, stream: Stream, heard: list[tuple[str, str]]
) -> None:
    events.start()
    stream.event("start")
    wait_for(lambda: len(heard) == 1)
    stream.ready.clear()
    fake.drop()
    stream.event("die")
    wait_for(lambda: len(heard) == 3)
    assert heard[1:] == [("resync", ""), ("die", A)]
    assert events.reconnects == 1


def test_an_engine_that_is_absent_at_first_is_taken_up_with_a_resync(
    fake: FakeEngine, events: EngineEvents, heard: list[tuple[str, str]]
) -> None:
    fake.stop()
    events.start()
    wait_for(lambda: events.problem)
    fake.start()
    wait_for(lambda: heard == [("resync", "")])


@pytest.mark.parametrize(
    "text",
    [
        *(b"no json\n", b"[1]\n", b'{"a": "\xff"}\n', b"[" * 200_000 + b"\n", b"\n"),
        b'{"a": "' + b"x" * (2 << 20) + b'"}\n',
    ],
    ids=["no JSON", "a list", "no text", "nested", "nothing", "too long"],
)
def test_one_event_that_cannot_be_read_costs_no_other(
    events: EngineEvents, stream: Stream, heard: list[tuple[str, str]], text: bytes
) -> None:
    """A container may have labels of megabytes, and all of them are in its events."""
    events.start()
    stream.send(text)
    stream.event("start")
    wait_for(lambda: ("start", A) in heard)
    assert heard == [("unread", ""), ("start", A)]
    assert (events.odd_events, events.reconnects) == (1, 0)


def test_refused_events_are_said_once_until_they_are_given(
    fake: FakeEngine,
    stream: Stream,
    heard: list[tuple[str, str]],
    events: EngineEvents,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a proxy in front of Docker's socket does."""
    fake.answers["/events"] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    events.start()
    wait_for(lambda: fake.asked("/events") >= 2)
    assert "GET /events" in events.refusal
    assert caplog.text.count("events=refused") == 1
    fake.answers["/events"] = stream
    wait_for(lambda: not events.refusal)
    wait_for(lambda: heard == [("resync", "")])


def test_an_absent_engine_is_no_refusal(fake: FakeEngine, events: EngineEvents) -> None:
    fake.answers["/events"] = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    events.start()
    wait_for(lambda: fake.asked("/events") >= 2)
    assert events.refusal == ""


@pytest.mark.parametrize("text", [b"no json", b'{"a": "'])
def test_an_event_that_is_cut_ends_the_stream_and_it_is_begun_again(
    fake: FakeEngine,
    events: EngineEvents,
    stream: Stream,
    heard: list[tuple[str, str]],
    text: bytes,
) -> None:
    events.start()
    stream.send(text)
    fake.drop()
    wait_for(lambda: ("resync", "") in heard)


@pytest.mark.parametrize("where", ["waiting for events", "waiting for an answer", "pausing"])
def test_it_ends_at_once_wherever_it_waits(
    fake: FakeEngine, stream: Stream, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its own time-outs can be what ends it here: each is an hour."""
    hour_ns = 3600 * 10**9
    monkeypatch.setattr(events_module, "_OPEN_TIMEOUT_S", 3600.0)
    monkeypatch.setattr(events_module, "_BACKOFF", Backoff(first_ns=hour_ns, longest_ns=hour_ns))
    monkeypatch.setattr(events_module, "_JOIN_S", 60.0)
    reached = threading.Event()
    release = threading.Event()
    released: list[bool] = []

    def never(connection: socket.socket, target: str) -> None:
        reached.set()
        released.append(release.wait(120))

    if where == "waiting for an answer":
        fake.answers["/events"] = never
    if where == "pausing":
        fake.answers["/events"] = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    events = EngineEvents(fake.host, SystemClock(), lambda kind, key: None)
    events.start()
    if where == "waiting for events":
        assert stream.ready.wait(10)
    elif where == "waiting for an answer":
        assert reached.wait(10)
    else:
        wait_for(lambda: events.problem)
    events.close()
    assert not [one for one in threading.enumerate() if one.name == "docker-events"]
    release.set()
    if where == "waiting for an answer":
        wait_for(lambda: released)
        assert released == [True]  # no answer came before it ended


def test_closing_one_that_was_never_started_or_twice_does_nothing(fake: FakeEngine) -> None:
    events = EngineEvents(fake.host, SystemClock(), lambda kind, key: None)
    events.close()
    events.close()


@pytest.fixture
def no_descriptors(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Has every new socket of this process refused (EMFILE), or allowed again."""
    real, used_up = socket.socket.__init__, threading.Event()

    def init(self: socket.socket, *args: object, **more: object) -> None:
        if used_up.is_set() and threading.current_thread().name == "docker-events":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "__init__", init)
    return lambda used: used_up.set() if used else used_up.clear()


def test_a_moment_without_descriptors_costs_no_later_event(
    events: EngineEvents,
    stream: Stream,
    heard: list[tuple[str, str]],
    no_descriptors: Callable[[bool], None],
) -> None:
    no_descriptors(True)
    events.start()
    wait_for(lambda: events.problem)
    assert "Too many open files" in events.problem
    no_descriptors(False)
    stream.event("start")
    wait_for(lambda: len(heard) == 2)
    assert heard == [("resync", ""), ("start", A)]
    assert events.problem == ""


def test_an_error_in_what_is_called_back_ends_nothing_and_is_logged(
    fake: FakeEngine, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def callback(kind: str, _: str) -> None:
        heard.append(kind)
        if kind == "die":
            raise LookupError("a bug")

    events = EngineEvents(fake.host, SystemClock(), callback)
    events.start()
    stream.event("die")
    wait_for(lambda: "resync" in heard)
    stream.event("start")
    wait_for(lambda: "start" in heard)
    events.close()
    assert "a bug" in caplog.text
    assert events.problem == ""


def test_an_engine_that_gives_no_events_is_a_problem_until_it_gives_them(
    fake: FakeEngine, events: EngineEvents, stream: Stream
) -> None:
    fake.answers["/events"] = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
    events.start()
    wait_for(lambda: "403" in events.problem)
    fake.answers["/events"] = stream
    wait_for(lambda: not events.problem)


def test_a_thread_that_cannot_be_started_or_has_ended_is_a_problem(
    fake: FakeEngine, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        events = EngineEvents(fake.host, SystemClock(), lambda kind, key: None)
        events.start()
        assert "can't start new thread" in events.problem
    events.close()

    class EndOfThread(BaseException):
        """Nothing catches it."""

    def end(kind: str, key: str) -> None:
        raise EndOfThread

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    events = EngineEvents(fake.host, SystemClock(), end)
    events.start()
    stream.event("start")
    wait_for(lambda: "has ended" in events.problem)
    events.close()
