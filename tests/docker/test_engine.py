"""The list of containers and the events of a real engine, against the docker command line."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from agent.clock import SystemClock
from agent.errors import EngineUnavailableError
from agent.model.container import Container, ContainerState
from agent.sources.engine import kept_list
from agent.sources.engine.events import EngineEvents
from agent.sources.engine.inventory import Engine
from agent.sources.engine.kept_list import KeptList
from tests.containers import ALPINE, wait_until
from tests.docker.private_engine import PrivateEngine, private_engine


@pytest.fixture(scope="module")
def docker() -> Iterator[PrivateEngine]:
    with private_engine() as made:
        yield made


@pytest.fixture
def engine(docker: PrivateEngine) -> Iterator[Engine]:
    made = Engine(docker.host, SystemClock(), deadline_s=5.0)
    yield made
    made.close()
    docker.clear()


def by_id(engine: Engine) -> dict[str, Container]:
    return {one.id: one for one in engine.list().containers}


def test_what_is_told_is_what_docker_inspect_says(docker: PrivateEngine, engine: Engine) -> None:
    label = "evil=\x1b[2J'); DROP TABLE x"
    running = docker.run("--name", "so1_x", "--label", label, "--label", "so1.protect=true")
    exited = docker.run(command=("true",))
    created = docker.docker("create", ALPINE, "true")
    paused = docker.run()
    docker.docker("pause", paused)
    wait_until(lambda: docker.inspect(exited)["State"]["Status"] == "exited", "it has ended")
    found = by_id(engine)
    assert set(found) == {running, exited, created, paused}
    states = {running: "running", exited: "exited", created: "created", paused: "paused"}
    for key, one in found.items():
        told = docker.inspect(key)
        assert f"/{one.name}" == told["Name"]
        assert one.image == told["Config"]["Image"]
        assert one.state == states[key]
        assert one.first_pid == told["State"]["Pid"]
        created_s = datetime.fromisoformat(told["Created"][:19] + "+00:00").timestamp()
        assert one.created_ns // 10**9 == int(created_s)
        assert one.created_ns % 10**9 == int(told["Created"][20:-1].ljust(9, "0"))
    assert found[running].labels == {
        "evil": "\\x1b[2J'); DROP TABLE x",
        "so1.protect": "true",
    }
    docker.docker("unpause", paused)


def test_the_label_of_an_image_proves_nothing_and_the_containers_own_does(
    docker: PrivateEngine, engine: Engine
) -> None:
    archive = docker.docker("create", ALPINE, "true")
    labelled = docker.docker("commit", "-c", "LABEL so1.installation=mine", archive)
    own = docker.run("--label", "so1.installation=mine")
    inherited = docker.run(image=labelled)
    same = docker.run("--label", "so1.installation=mine", image=labelled)
    other = docker.run("--label", "so1.installation=other", image=labelled)
    found = by_id(engine)
    assert {key: found[key].own_installation for key in (own, inherited, same, other)} == {
        own: "mine",
        inherited: "",
        same: "",
        other: "other",
    }
    assert found[inherited].labels["so1.installation"] == "mine"


def test_a_renamed_and_a_restarted_one_are_told_anew(docker: PrivateEngine, engine: Engine) -> None:
    box = docker.run("--name", "before")
    assert by_id(engine)[box].name == "before"
    docker.docker("rename", box, "after")
    docker.docker("restart", "-t", "0", box)
    one = by_id(engine)[box]
    assert (one.name, one.first_pid) == ("after", docker.inspect(box)["State"]["Pid"])


def test_the_list_is_whole_while_containers_come_and_go(
    docker: PrivateEngine, engine: Engine
) -> None:
    steady = {docker.run() for _ in range(3)}
    ending = threading.Event()

    def churn() -> None:
        while not ending.is_set():
            docker.docker("run", "--rm", "-d", ALPINE, "true")
            docker.docker("rm", "-f", docker.run())

    churners = [threading.Thread(target=churn) for _ in range(2)]
    for one in churners:
        one.start()
    try:
        seen: set[str] = set()
        deadline = time.monotonic() + 60
        while len(seen) < 8 and time.monotonic() < deadline:
            found = by_id(engine)
            assert steady <= set(found)
            assert all(found[key].state is ContainerState.RUNNING for key in steady)
            seen |= set(found) - steady
    finally:
        ending.set()
        for one in churners:
            one.join()
    assert len(seen) >= 8


def test_a_hanging_engine_is_unavailable_and_taken_up_again(
    docker: PrivateEngine,
) -> None:
    box = docker.run()
    engine = Engine(docker.host, SystemClock(), deadline_s=1.0)
    assert box in by_id(engine)
    docker.pause_daemon()
    try:
        with pytest.raises(EngineUnavailableError, match="in time"):
            engine.list()
    finally:
        docker.resume_daemon()
    assert box in by_id(engine)
    engine.close()
    docker.clear()


def test_events_come_with_the_full_id(docker: PrivateEngine) -> None:
    heard: list[tuple[str, str]] = []
    events = EngineEvents(docker.host, SystemClock(), lambda kind, key: heard.append((kind, key)))
    events.start()
    try:
        # There is no saying when the stream is open: start until one is heard of.
        wait_until(lambda: docker.run(command=("true",)) and heard, "events are heard")
        box = docker.run("--name", "one")
        docker.docker("rename", box, "two")
        docker.docker("rm", "-f", box)
        wait_until(lambda: ("destroy", box) in heard, "its end is heard")
        kinds = [kind for kind, key in heard if key == box]
        assert kinds == ["create", "start", "rename", "die", "destroy"]
        assert not [kind for kind, _ in heard if kind == "resync"]
    finally:
        events.close()
    assert not [one for one in threading.enumerate() if one.name == "docker-events"]
    docker.clear()


def test_whatever_happens_to_a_container_ends_the_keeping_of_the_list(
    docker: PrivateEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_list, "SETTLE_NS", 10**9)
    events = EngineEvents(docker.host, SystemClock(), lambda kind, key: None)
    kept = KeptList(engine, SystemClock(), lambda: events.quiet_since_ns)
    box = docker.run("--name", "kept")

    def shown() -> list[tuple[str, str, bool]]:
        found = kept.list().containers
        return sorted((one.name, str(one.state), one.first_pid > 0) for one in found)

    events.start()
    try:
        for words, expected in (
            (("pause", box), [("kept", "paused", True)]),
            (("unpause", box), [("kept", "running", True)]),
            (("rename", box, "other"), [("other", "running", True)]),
            (("restart", "-t", "0", box), [("other", "running", True)]),
            (("kill", box), [("other", "exited", False)]),
            (("rm", box), []),
            (("create", "--name", "born", ALPINE, "true"), [("born", "created", False)]),
        ):
            wait_until(lambda: kept.list() is kept.list(), "the list is kept")
            pid = next((one.first_pid for one in kept.list().containers), 0)
            docker.docker(*words)
            wait_until(lambda: shown() == expected, f"the list after {words[0]}")  # noqa: B023
            if words[0] == "restart":
                wait_until(lambda: kept.list().containers[0].first_pid != pid, "the new pid")  # noqa: B023
    finally:
        events.close()
        docker.clear()


def test_a_stream_that_waits_on_a_hanging_engine_ends_at_once(docker: PrivateEngine) -> None:
    events = EngineEvents(docker.host, SystemClock(), lambda kind, key: None)
    events.start()
    docker.pause_daemon()
    try:
        events.close()
        assert not [one for one in threading.enumerate() if one.name == "docker-events"]
    finally:
        docker.resume_daemon()
