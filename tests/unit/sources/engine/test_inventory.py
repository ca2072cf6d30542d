"""The list of containers against engines that answer well, oddly, late, and not at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.actions.removal import Seen
from agent.config import Scope
from agent.engine_api.client import other_docker_host
from agent.engine_api.timestamps import parse_time_ns
from agent.errors import EngineUnavailableError
from agent.model.container import ContainerState
from agent.policy import governance
from agent.sources.engine import inventory as engine_source
from agent.sources.engine.inventory import Engine
from agent.sources.engine.uptime import at_least_up_ns
from tests.unit.sources.engine.fake_engine import FakeEngine, inspected, listed, reply

SECOND = 10**9


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    made = FakeEngine(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(fake: FakeEngine, clock: Clock) -> Iterator[Engine]:
    made = Engine(fake.host, clock, deadline_s=1.0)
    yield made
    made.close()


def offer(fake: FakeEngine, *containers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The engine has exactly these: each an entry of the list and a description."""
    for key in [key for key in fake.answers if key.endswith("/json")]:
        del fake.answers[key]
    fake.answers["/containers/json"] = [entry for entry, _ in containers]
    for entry, description in containers:
        fake.answers[f"/containers/{entry['Id']}/json"] = description


def test_a_container_is_told_with_all_that_is_known_of_it(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a"), inspected("a")))
    listing = engine.list()
    (one,) = listing.containers
    assert one.id == "a" * 64
    assert (one.name, one.image, one.state) == ("name-a", "alpine:latest", ContainerState.RUNNING)
    assert one.created_ns == 1_795_533_165_123_456_789
    assert one.first_pid == 4321
    assert one.labels == {"a": "b"}
    assert one.own_installation == ""
    assert listing.read_ns == 1000 * SECOND


def test_the_image_is_the_one_named_at_creation(fake: FakeEngine, engine: Engine) -> None:
    # The list shows an id once the tag has moved on.
    offer(fake, (listed("a", Image="sha256:9999"), inspected("a")))
    assert engine.list().containers[0].image == "alpine:latest"


@pytest.mark.parametrize("state", list(ContainerState))
def test_states_are_told_and_only_running_ones_have_a_first_pid(
    fake: FakeEngine, engine: Engine, state: ContainerState
) -> None:
    offer(fake, (listed("a", State=str(state)), inspected("a")))
    (one,) = engine.list().containers
    assert one.state is state
    assert one.first_pid == (4321 if state.is_running else 0)


def test_a_state_that_docker_does_not_have_is_unknown(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", State="hibernating"), inspected("a")))
    assert engine.list().containers[0].state is ContainerState.UNKNOWN


def test_one_that_vanishes_between_list_and_look_is_left_out(
    fake: FakeEngine, engine: Engine
) -> None:
    offer(fake, (listed("a"), inspected("a")), (listed("b"), inspected("b")))
    del fake.answers[f"/containers/{'a' * 64}/json"]
    assert [one.name for one in engine.list().containers] == ["name-b"]


# Names, labels.


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["/other/alias", "/mine"], "mine"),
        ([], "name-a"),
        (None, "name-a"),
        (["/evil\x1b[2J\u202e"], "evil\\x1b[2J\\x202e"),
        (["/" + "n" * 400], "n" * 400),
    ],
)
def test_the_name_is_the_one_without_links_and_steers_no_terminal(
    fake: FakeEngine, engine: Engine, names: list[str] | None, name: str
) -> None:
    offer(fake, (listed("a", Names=names), inspected("a")))
    assert engine.list().containers[0].name == name


def test_a_container_without_any_name_goes_by_its_id(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Names=None), inspected("a", Name="")))
    assert engine.list().containers[0].name == "a" * 12


def test_labels_are_whole_and_steer_no_terminal(fake: FakeEngine, engine: Engine) -> None:
    labels = {f"k{number}": "v" for number in range(1500)} | {"k\n1": "\x07" + "v" * 9000}
    offer(fake, (listed("a", Labels=labels), inspected("a")))
    found = engine.list().containers[0].labels
    assert len(found) == 1501
    assert found["k\\x0a1"] == "\\x07" + "v" * 9000


def test_one_protected_behind_a_thousand_labels_is_protected(
    fake: FakeEngine, engine: Engine
) -> None:
    labels = {f"k{number}": "v" for number in range(1000)} | {"so1.protect": "true"}
    offer(fake, (listed("a", Labels=labels), inspected("a")))
    (one,) = engine.list().containers
    assert not governance.classify(one, "", Scope.ALL).governed


@pytest.mark.parametrize(
    "values",
    [
        {"name": "so1_contenedor_" + "n" * 400, "image": "alpine"},
        {"name": "so1_contenedor_1", "image": "x" * 5000 + "alpine"},
        {"name": "so1_contenedor_\u202e\u00e9" + "n" * 300, "image": "y" * 5000},
    ],
    ids=["a long name", "a long image", "a long name with escapes"],
)
def test_what_is_decided_on_is_what_is_found_before_the_removal(
    fake: FakeEngine, engine: Engine, values: dict[str, str]
) -> None:
    """Nothing is cut on one of the two ways only."""
    config = {"Image": values["image"], "Labels": {"a": "b"}}
    about = inspected("a", Name="/" + values["name"], Config=config)
    offer(fake, (listed("a", Names=["/" + values["name"]]), about))
    (decided,) = engine.list().containers
    now = msgspec.convert({**about, "State": {"Status": "running"}}, Seen).container()
    assert (decided.name, decided.image, decided.labels) == (now.name, now.image, now.labels)
    assert decided.created_ns == now.created_ns


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (True, "True"), (None, ""), ("", ""), (1.5, "1.5")]
)
def test_a_label_that_is_no_text_is_taken_for_the_text_it_would_be(
    fake: FakeEngine, engine: Engine, value: object, text: str
) -> None:
    offer(fake, (listed("a", Labels={"so1.protect": value}), inspected("a")))
    (one,) = engine.list().containers
    assert one.labels == {"so1.protect": text}
    assert governance.protection(one)


def test_null_labels_are_none(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Labels=None), inspected("a")))
    assert engine.list().containers[0].labels == {}


@pytest.mark.parametrize(
    ("own", "image", "proves"),
    [
        ("mine", {"x": "y"}, "mine"),
        ("mine", None, "mine"),
        ("mine", {"so1.installation": "mine"}, ""),
        ("mine", {"so1.installation": "other"}, "mine"),
        ("", {"so1.installation": "mine"}, ""),
    ],
)
def test_the_installations_label_counts_only_where_the_image_does_not_carry_it(
    fake: FakeEngine, engine: Engine, own: str, image: dict[str, str] | None, proves: str
) -> None:
    labels = {"so1.installation": own} if own else {}
    config = {"Image": "alpine:latest", "Labels": labels}
    offer(fake, (listed("a", Labels=labels), inspected("a", Config=config)))
    fake.answers["/images/sha256:" + "1" * 64 + "/json"] = {"Config": {"Labels": image}}
    assert engine.list().containers[0].own_installation == proves


def test_the_label_proves_nothing_where_the_image_is_gone(fake: FakeEngine, engine: Engine) -> None:
    labels = {"so1.installation": "mine"}
    config = {"Image": "alpine:latest", "Labels": labels}
    offer(fake, (listed("a", Labels=labels), inspected("a", Config=config)))
    assert engine.list().containers[0].own_installation == ""


# What is asked again, and when.


def test_one_that_has_been_up_longer_than_we_know_it_is_not_looked_at_again(
    fake: FakeEngine, engine: Engine, clock: Clock
) -> None:
    look = f"/containers/{'a' * 64}/json"
    offer(fake, (listed("a", Status="Up 5 minutes"), inspected("a")))
    engine.list()
    clock.now_ns += 20 * SECOND
    engine.list()
    assert fake.asked(look) == 1
    clock.now_ns += 300 * SECOND
    engine.list()
    assert fake.asked(look) == 2


def test_a_restart_between_two_lists_is_seen_though_the_words_are_the_same(
    fake: FakeEngine, engine: Engine, clock: Clock
) -> None:
    offer(fake, (listed("a", Status="Up 5 seconds"), inspected("a")))
    assert engine.list().containers[0].first_pid == 4321
    clock.now_ns += 20 * SECOND
    fresh = inspected("a", State={"Pid": 99})
    offer(fake, (listed("a", Status="Up 5 seconds"), fresh))
    assert engine.list().containers[0].first_pid == 99


@pytest.mark.parametrize(
    ("said", "started_ns"),
    [
        ("2026-11-24T15:12:45.5Z", 1_795_533_165_500_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("soon", 0),
    ],
)
def test_when_it_started_is_known_or_0(
    fake: FakeEngine, engine: Engine, said: str, started_ns: int
) -> None:
    offer(fake, (listed("a"), inspected("a", State={"Pid": 4321, "StartedAt": said})))
    assert engine.list().containers[0].started_ns == started_ns


def test_a_stopped_one_is_looked_at_once(fake: FakeEngine, engine: Engine, clock: Clock) -> None:
    for status in ("Exited (0) 2 seconds ago", "Exited (0) 22 seconds ago"):
        offer(fake, (listed("a", State="exited", Status=status), inspected("a")))
        assert engine.list().containers[0].first_pid == 0
        clock.now_ns += 20 * SECOND
    assert fake.asked(f"/containers/{'a' * 64}/json") == 1


def test_a_changed_state_is_looked_at_again(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", State="exited", Status="Exited (0) 1 hour ago"), inspected("a")))
    engine.list()
    offer(fake, (listed("a"), inspected("a", State={"Pid": 77})))
    assert engine.list().containers[0].first_pid == 77


def test_a_new_name_is_told_without_another_look(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Status="Up 2 hours"), inspected("a")))
    engine.list()
    offer(fake, (listed("a", Status="Up 2 hours", Names=["/new"]), inspected("a")))
    assert engine.list().containers[0].name == "new"
    assert fake.asked(f"/containers/{'a' * 64}/json") == 1


def test_what_was_known_of_one_that_went_is_forgotten(fake: FakeEngine, engine: Engine) -> None:
    offer(fake, (listed("a", Status="Up 2 hours"), inspected("a")))
    engine.list()
    offer(fake)
    assert engine.list().containers == ()
    offer(fake, (listed("a", Status="Up 2 hours"), inspected("a")))
    engine.list()
    assert fake.asked(f"/containers/{'a' * 64}/json") == 2


# Engines that fail.


def drip(connection: socket.socket, target: str) -> None:
    """A byte now and then: each within any time-out, the whole never."""
    for byte in reply([listed("a")]):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def hang(connection: socket.socket, target: str) -> None:
    """Never a word, until the one that asked gives up."""
    connection.settimeout(30)
    while connection.recv(4096):
        pass


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


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
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
    "answer",
    [
        reply(b"{}"),
        reply(b"[]"),
        reply(b"no JSON"),
        reply(b"[" * 200_000),
        reply(inspected("b")),
        reply(inspected("a", Created="yesterday")),
        reply(inspected("a", Created=None)),
        reply({"message": "no"}, "500 Internal Server Error"),
        reply([], "500 Internal Server Error"),
    ],
    ids=[
        *("empty", "a list", "no JSON", "nested", "another container's", "no time", "null time"),
        *("a failure", "a failure without a word"),
    ],
)
def test_an_odd_look_at_one_hides_no_other_and_proves_nothing(
    fake: FakeEngine, engine: Engine, answer: Any
) -> None:
    offer(fake, (listed("a"), inspected("a")), (listed("b"), inspected("b")))
    fake.answers[f"/containers/{'a' * 64}/json"] = answer
    listing = engine.list()
    one, other = listing.containers
    assert (one.name, one.first_pid, one.own_installation) == ("name-a", 0, "")
    assert one.created_ns == 1_700_000_000 * SECOND
    assert other.first_pid == 4321
    assert listing.undescribed == 1


def test_a_pid_that_is_none_is_left_out_and_the_container_is_not(
    fake: FakeEngine, engine: Engine
) -> None:
    offer(fake, (listed("a"), inspected("a", State={"Pid": -1})))
    (one,) = engine.list().containers
    assert (one.first_pid, one.created_ns) == (0, 1_795_533_165_123_456_789)


@pytest.mark.parametrize(
    "changed",
    [
        {"Created": -62135596800},
        {"Created": "0001-01-01T00:00:00Z"},
        {"Created": 1 << 70},
        {"Image": 7},
        {"Status": None},
        {"ImageID": []},
    ],
    ids=str,
)
def test_an_odd_figure_of_one_entry_costs_that_figure_alone(
    fake: FakeEngine, engine: Engine, changed: dict[str, Any]
) -> None:
    """An exited container may be listed as created in the year 1."""
    offer(fake, (listed("a", **changed), inspected("a")), (listed("b"), inspected("b")))
    listing = engine.list()
    assert [one.name for one in listing.containers] == ["name-a", "name-b"]
    assert listing.containers[0].created_ns == 1_795_533_165_123_456_789
    assert (listing.left_out, listing.undescribed) == (0, 0)


def test_one_created_in_the_year_1_by_both_answers_is_the_same_at_its_removal(
    fake: FakeEngine, engine: Engine
) -> None:
    year_1 = "0001-01-01T00:00:00Z"
    about = inspected("a", Created=year_1)
    offer(fake, (listed("a", Created=-62135596800, State="exited"), about))
    (one,) = engine.list().containers
    assert one.created_ns == msgspec.convert(about, Seen).container().created_ns


@pytest.mark.parametrize(
    "entry",
    [
        *(7, None, "x", [], {}),
        listed("g"),
        listed("a", Id="abc"),
        listed("a", Id=None),
        listed("a", Labels=["so1.protect"]),
        listed("a", Labels={"a": {}}),
        listed("a", Labels="so1.protect=true"),
    ],
    ids=lambda entry: str(entry)[-40:],
)
def test_an_entry_that_is_no_container_for_sure_is_left_out_alone_and_said_once(
    fake: FakeEngine, engine: Engine, entry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offer(fake, (listed("b"), inspected("b")))
    fake.answers["/containers/json"] = [entry, listed("b")]
    for _ in range(2):
        listing = engine.list()
        assert [one.name for one in listing.containers] == ["name-b"]
        assert listing.left_out == 1
    assert caplog.text.count("outcome=left-out") == 1


def test_one_image_that_docker_cannot_describe_hides_no_container(
    fake: FakeEngine, engine: Engine
) -> None:
    config = {"Image": "alpine:latest", "Labels": {"so1.installation": "mine"}}
    offer(fake, (listed("a"), inspected("a", Config=config)), (listed("b"), inspected("b")))
    image = "/images/sha256:" + "1" * 64 + "/json"
    for broken in (reply({"message": "no"}, "500 No"), reply({"Config": {"Labels": [1]}})):
        fake.answers[image] = broken
        listing = engine.list()
        assert [one.own_installation for one in listing.containers] == ["", ""]
        assert listing.undescribed == 1
    fake.answers[image] = {"Config": {"Labels": None}}
    assert engine.list().containers[0].own_installation == "mine"


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


def test_one_that_docker_cannot_describe_does_not_hide_the_others(
    fake: FakeEngine, engine: Engine
) -> None:
    offer(fake, (listed("a"), inspected("a")), (listed("b"), inspected("b")))
    broken = reply({"message": "layer does not exist"}, "500 Internal Server Error")
    fake.answers[f"/containers/{'a' * 64}/json"] = broken
    listing = engine.list()
    one, other = listing.containers
    assert (one.name, one.image, one.first_pid) == ("name-a", "alpine:latest", 0)
    assert one.created_ns == 1_700_000_000 * SECOND
    assert one.own_installation == ""
    assert other.first_pid == 4321
    assert listing.undescribed == 1
    fake.answers[f"/containers/{'a' * 64}/json"] = inspected("a")
    listing = engine.list()
    assert listing.containers[0].first_pid == 4321
    assert listing.undescribed == 0


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("1970-01-01T00:00:00.1234567899999Z", 123_456_789),
    ],
)
def test_dockers_times_are_read_to_the_nanosecond(text: str, expected: int) -> None:
    assert parse_time_ns(text) == expected


@pytest.mark.parametrize(
    "text", ["", "now", "1970-01-01", "1970-13-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time_ns(text)


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ("Up Less than a second", 0),
        ("Up 1 second", 1),
        ("Up 59 seconds", 59),
        ("Up About a minute", 60),
        ("Up 4 minutes (Paused)", 240),
        ("Up 4 minutes (healthy)", 240),
        ("Up About an hour", 1800),
        ("Up 2 hours", 5400),
        ("Up 2 days", 2 * 86400 - 1800),
        ("Up 3 weeks", 21 * 86400 - 1800),
        ("Up 2 months", 60 * 86400 - 1800),
        ("Up 2 years", 730 * 86400 - 1800),
        ("Exited (0) 2 hours ago", 0),
        ("Restarting (1) 3 minutes ago", 0),
        ("Created", 0),
        ("", 0),
        ("Up 99999999 years", 0),
        ("Up two hours", 0),
    ],
)
def test_dockers_words_for_how_long_are_a_lower_bound(status: str, seconds: int) -> None:
    assert at_least_up_ns(status) == seconds * SECOND
