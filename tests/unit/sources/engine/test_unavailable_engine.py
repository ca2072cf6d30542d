"""An engine whose answers are not whole, late or absent, and how it is taken up again."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.engine_api.client import other_docker_host
from agent.errors import EngineUnavailableError
from agent.model.container import ContainerState
from agent.sources.engine import inventory as engine_source
from agent.sources.engine.inventory import Engine
from tests.unit.sources.engine.fake_engine import (
    Clock,
    FakeEngine,
    hang,
    inspected,
    listed,
    offer,
    reply,
)


def drip(connection: socket.socket, target: str) -> None:
    """A byte now and then: each within any time-out, the whole never."""
    for byte in reply([listed("a")]):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def half(connection: socket.socket, target: str) -> None:
    connection.sendall(reply([listed("a")])[:120])
    connection.shutdown(socket.SHUT_RDWR)


def flood(connection: socket.socket, target: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    for _ in range(80):
        connection.sendall(chunk)


BAD = {
    "no JSON": reply(b"<html>"),
    "cut JSON": reply(b'[{"Id": "'),
    "another type": reply({"Id": "a"}),
    "nested too deep": reply(b"[" * 200_000),
    "an error of its own": reply({"message": "boom"}, "500 Internal Server Error"),
    "a refusal": reply({"message": "no"}, "403 Forbidden"),
    "a refusal without a word": reply({}, "403 Forbidden"),
    "a refusal that is a list": reply([], "404 Not Found"),
    "a failure that is null": reply(None, "500 Internal Server Error"),
    "no HTTP": b"\x00\x01\x02garbage\r\n\r\n",
    "an endless header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    "half an answer": half,
    "nothing": hang,
    "a drip": drip,
    "a flood": flood,
}


@pytest.mark.parametrize("answer", list(BAD.values()), ids=list(BAD))
def test_a_list_that_is_not_whole_is_an_unavailable_engine_within_its_time(
    fake: FakeEngine, engine: Engine, answer: Any
) -> None:
    fake.answers["/containers/json"] = answer
    began = time.monotonic()
    with pytest.raises(EngineUnavailableError) as error:
        engine.list()
    assert time.monotonic() - began < 10
    assert fake.host in error.value.message
    offer(fake, (listed("b"), inspected("b")))
    assert [one.name for one in engine.list().containers] == ["name-b"]  # taken up by itself


def test_a_refusal_without_a_message_is_told_as_one(fake: FakeEngine, engine: Engine) -> None:
    fake.answers["/containers/json"] = reply({}, "403 Forbidden")
    with pytest.raises(EngineUnavailableError, match=r"a refusal \(403\) without a message"):
        engine.list()


def test_a_look_that_lasts_longer_than_the_list_may_is_an_unavailable_engine(
    fake: FakeEngine, engine: Engine
) -> None:
    offer(fake, (listed("a"), inspected("a")))
    fake.answers[f"/containers/{'a' * 64}/json"] = hang
    with pytest.raises(EngineUnavailableError):
        engine.list()


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (reply({"Id": "a"}), "docker_host"),
        (reply({"message": "boom"}, "500 Internal Server Error"), "journalctl"),
        (hang, "systemctl status"),
    ],
    ids=["not Docker", "a failure", "nothing"],
)
def test_an_engine_that_is_there_is_not_to_be_started(
    fake: FakeEngine, engine: Engine, answer: Any, remedy: str
) -> None:
    fake.answers["/containers/json"] = answer
    with pytest.raises(EngineUnavailableError) as error:
        engine.list()
    assert remedy in error.value.hint
    assert "systemctl start" not in error.value.hint


def test_one_whose_start_does_not_end_does_not_hide_the_others(
    fake: FakeEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_source, "LOOK_DEADLINE_S", 0.3)
    monkeypatch.setattr(engine_source, "LOOK_AGAIN_S", 0.1)
    starting = listed("a", State="created", Status="Created")
    offer(fake, (starting, inspected("a")), (listed("b"), inspected("b")))
    fake.answers[f"/containers/{'a' * 64}/json"] = hang
    engine = Engine(fake.host, clock, deadline_s=10)
    for _ in range(2):
        one, other = engine.list().containers
        assert (one.name, one.state, one.first_pid) == ("name-a", ContainerState.CREATED, 0)
        assert other.first_pid == 4321
    fake.answers[f"/containers/{'a' * 64}/json"] = inspected("a")
    fake.answers["/containers/json"] = [listed("a"), listed("b")]
    assert engine.list().containers[0].first_pid == 4321
    engine.close()


def test_the_time_is_for_all_looks_together(fake: FakeEngine, clock: Clock) -> None:
    def slow(connection: socket.socket, target: str) -> None:
        time.sleep(0.2)
        connection.sendall(reply(inspected(target.split("/")[3][0])))

    offer(fake, *((listed(letter), inspected(letter)) for letter in "abcdef0123456789"))
    for key in [key for key in fake.answers if key.count("/") == 3]:
        fake.answers[key] = slow
    engine = Engine(fake.host, clock, deadline_s=0.7)
    with pytest.raises(EngineUnavailableError, match="in time"):
        engine.list()
    engine.close()


@pytest.mark.parametrize(
    "version",
    [{"ApiVersion": "1.12"}, {}, [], {"ApiVersion": 3}, {"ApiVersion": "x"}, {"ApiVersion": ""}],
)
def test_an_engine_that_is_too_old_or_none_is_told(
    fake: FakeEngine, engine: Engine, version: Any
) -> None:
    fake.answers["/version"] = version
    with pytest.raises(EngineUnavailableError):
        engine.list()


@pytest.mark.parametrize(("theirs", "spoken"), [("1.41", "v1.41"), ("1.99", "v1.45")])
def test_the_newest_version_that_both_know_is_spoken(
    fake: FakeEngine, engine: Engine, theirs: str, spoken: str
) -> None:
    fake.answers["/version"] = {"ApiVersion": theirs}
    offer(fake)
    engine.list()
    assert fake.requests[-1].startswith(f"/{spoken}/containers/json?")
    assert "all=1" in fake.requests[-1]


def test_an_absent_engine_is_told_with_what_mends_it(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(EngineUnavailableError, match="No such file") as error:
        Engine(f"unix://{tmp_path}/none.sock", clock).list()
    assert "systemctl start docker" in error.value.hint


def test_where_docker_is_absent_the_engine_that_docker_host_names_is_named(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = f"unix://{tmp_path}/real.sock"
    monkeypatch.setenv("DOCKER_HOST", named)
    with pytest.raises(EngineUnavailableError) as error:
        Engine(f"unix://{tmp_path}/none.sock", clock).list()
    assert named in error.value.hint
    assert "docker_host" in error.value.hint


def test_docker_host_is_no_news_where_it_names_the_same_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    ours = f"unix://{tmp_path}/run/docker.sock"
    for value in ("", ours, f"unix://{tmp_path}/var/docker.sock"):
        monkeypatch.setenv("DOCKER_HOST", value)
        assert other_docker_host(ours) == ""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    assert "tcp://127.0.0.1:2375" in other_docker_host(ours)


def test_an_address_that_is_not_local_is_refused(clock: Clock) -> None:
    with pytest.raises(EngineUnavailableError, match="not a local"):
        Engine("tcp://127.0.0.1:2375", clock).list()


def test_an_engine_that_was_restarted_is_taken_up(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a"), inspected("a")))
    engine.list()
    fake.stop()
    with pytest.raises(EngineUnavailableError):
        engine.list()
    fake.start()
    assert len(engine.list().containers) == 1


def test_all_that_is_asked_goes_through_one_connection(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, *((listed(letter), inspected(letter)) for letter in "abcdef"))
    assert len(engine.list().containers) == 6
    deadline = time.monotonic() + 10
    while fake.connections != 1 and time.monotonic() < deadline:
        time.sleep(0.02)  # the one that asked for the version ends
    assert fake.connections == 1


def test_no_threads_and_no_connections_are_left(fake: FakeEngine, clock: Clock) -> None:
    offer(fake, (listed("a"), inspected("a")))
    for answer in (fake.answers["/containers/json"], reply(b"x"), hang):
        fake.answers["/containers/json"] = answer
        one = Engine(fake.host, clock, deadline_s=0.3)
        with suppress(EngineUnavailableError):
            one.list()
        one.close()
    assert not [thread for thread in threading.enumerate() if "docker" in thread.name]
    deadline = time.monotonic() + 10
    while fake.connections and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fake.connections == 0
