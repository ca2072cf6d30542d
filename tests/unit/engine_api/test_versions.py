"""Which versions of Docker's API are spoken, and what is said where none is common."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from agent.engine_api import versions
from agent.engine_api.address import PODMAN_KIND, Address
from agent.engine_api.client import EventStream
from agent.errors import EngineUnavailableError
from agent.sources.engine.inventory import Engine
from tests.unit.sources.engine.fake_engine import Clock, FakeEngine, inspected, listed, offer

HOST = "unix:///run/docker.sock"


def test_the_client_speaks_from_1_24_to_1_45() -> None:
    """What docs/engines.md says; another client library may know others."""
    assert (versions.OLDEST, versions.NEWEST) == ("1.24", "1.45")


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        ("1.41", "1.12", "1.41"),  # Docker 20.10
        ("1.51", "1.24", "1.45"),  # 28
        ("1.52", "1.44", "1.45"),  # 29
        ("1.60", "1.45", "1.45"),  # the last floor that leaves one
        ("1.24", "1.12", "1.24"),
        ("1.41", "", "1.41"),
        ("1.41", None, "1.41"),
        ("1.41", "of old", "1.41"),
    ],
)
def test_the_newest_version_that_both_know_is_spoken(newest: str, oldest: Any, spoken: str) -> None:
    answer = {"ApiVersion": newest, "MinAPIVersion": oldest}
    assert versions.negotiated(answer, HOST) == spoken


def test_one_that_is_too_new_is_a_sentence_with_both_numbers() -> None:
    with pytest.raises(EngineUnavailableError) as error:
        versions.negotiated({"ApiVersion": "1.60", "MinAPIVersion": "1.46"}, HOST)
    assert error.value.message == (
        f"Docker at {HOST} is too new: it speaks API 1.46 at least, and this agent 1.24 to 1.45."
    )
    assert "Update the agent" in error.value.hint


def test_one_that_is_too_old_is_a_sentence_with_both_numbers() -> None:
    host = Address(HOST, PODMAN_KIND)
    with pytest.raises(EngineUnavailableError) as error:
        versions.negotiated({"ApiVersion": "1.23", "MinAPIVersion": "1.12"}, host)
    assert error.value.message == (
        f"podman at {HOST} is too old: it speaks API 1.23 at most, and this agent 1.24 to 1.45."
    )


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"ApiVersion": 1.41}, {"ApiVersion": "1.4\uff11"}]
)
def test_what_is_no_answer_of_dockers_is_not_taken_for_a_version(answer: Any) -> None:
    with pytest.raises(ValueError, match="no version"):
        versions.negotiated(answer, HOST)


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    engine = FakeEngine(tmp_path_factory.mktemp("e"))
    yield engine
    engine.stop()


def test_an_engine_whose_floor_rose_is_told_by_its_list(fake: FakeEngine) -> None:
    offer(fake, (listed("a"), inspected("a")))
    fake.answers["/version"] = {"ApiVersion": "1.60", "MinAPIVersion": "1.50"}
    with pytest.raises(EngineUnavailableError, match=r"1\.50 at least, and this agent 1\.24"):
        Engine(fake.host, Clock()).list()
    assert fake.asked("/containers/json") == 0


def test_an_engine_of_floor_1_44_is_asked_in_the_newest_version_of_ours(fake: FakeEngine) -> None:
    offer(fake, (listed("a"), inspected("a")))
    fake.answers["/version"] = {"ApiVersion": "1.52", "MinAPIVersion": "1.44"}
    assert [one.name for one in Engine(fake.host, Clock()).list().containers] == ["name-a"]
    assert any(path.startswith("/v1.45/containers/json") for path in fake.requests)


def test_a_podman_that_is_not_there_is_not_started_as_docker(tmp_path: Any) -> None:
    host = Address(f"unix://{tmp_path}/podman.sock", PODMAN_KIND)
    with pytest.raises(EngineUnavailableError) as error:
        Engine(host, Clock()).list()
    assert error.value.message.startswith("podman at unix://")
    assert "podman.socket" in error.value.hint
    assert "docker" not in error.value.hint.lower().replace("docker_host", "")


def ping(version: str) -> bytes:
    head = f"Api-Version: {version}\r\nLibpod-Api-Version: 4.3.1\r\n" if version else ""
    return f"HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\nOK".encode()


def test_podman_is_not_asked_for_what_it_has_to_collect_first(fake: FakeEngine) -> None:
    offer(fake, (listed("a"), inspected("a")))
    fake.answers |= {"/_ping": ping("1.41"), "/libpod/containers/json": [{"Id": "a" * 64}]}
    fake.answers = {"/libpod/containers/json": fake.answers.pop("/libpod/containers/json")} | (
        fake.answers
    )
    address = Address(fake.host, PODMAN_KIND)
    assert [one.name for one in Engine(address, Clock()).list().containers] == ["name-a"]
    assert fake.asked("/version") == 0
    assert any(path.startswith("/v1.41/containers/json") for path in fake.requests)
    with closing(EventStream(address, ("start",), 5)) as stream:
        fake.answers["/events"] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        stream.open()
    assert fake.asked("/version") == 0
    assert fake.requests[-1].startswith("/v1.41/events")


@pytest.mark.parametrize(("version", "words"), [("", "does not answer as podman"), ("1.9", "old")])
def test_a_ping_without_a_version_or_of_an_old_one_is_a_sentence(
    fake: FakeEngine, version: str, words: str
) -> None:
    fake.answers["/_ping"] = ping(version)
    with pytest.raises(EngineUnavailableError, match=words):
        Engine(Address(fake.host, PODMAN_KIND), Clock()).list()
