"""Grafana brought up and taken down on an engine that answers as a test says, with no compose.

The real ones are met in the docker layer (`tests/docker/test_compose.py`).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.actions import grafana
from agent.actions.grafana import CONTAINER, IMAGE, PROJECT, Grafana, compose_command, port_is_free
from agent.config import GrafanaLanguage, GrafanaSettings
from agent.errors import AgentError, EngineUnavailableError
from agent.util.subprocess import CommandError, Finished
from tests.unit.sources.engine.fake_engine import FakeEngine, reply

OURS = {"Config": {"Tty": False, "Labels": {"com.docker.compose.project": "so1-grafana"}}}
HEALTHY = {**OURS, "RestartCount": 0, "State": {"Health": {"Status": "healthy"}}}
INSPECT, LOOK = f"/containers/{CONTAINER}/json", f"GET /containers/{CONTAINER}/json"
ID = "ab" * 32


class Compose:
    """Stands for `docker compose`: what it was called with, and how it ends."""

    def __init__(self, engine: FakeEngine) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.env: dict[str, str] = {}
        self.locks = 0
        self.status = 0
        self.said = ""
        self.makes: dict[str, Any] | None = HEALTHY
        self._engine = engine

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Finished:
        if argv[-1] == "version":
            return Finished(tuple(argv), 0, "", "")
        self.calls.append(tuple(argv))
        self.env = dict(env or {})
        self.locks = len(pass_fds)
        if self.makes is not None:
            self._engine.answers[INSPECT] = self.makes
        return Finished(tuple(argv), self.status, "", self.said)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    """It has the image, and nothing of ours yet."""
    fake = FakeEngine(tmp_path)
    fake.answers[f"/images/{IMAGE}/json"] = {"Id": "sha256:1"}
    fake.answers["/containers/json"] = []
    fake.answers["/networks"] = []
    fake.answers[f"/containers/{CONTAINER}/logs"] = reply(b"", "404 None")
    yield fake
    fake.stop()


@pytest.fixture
def compose(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Compose:
    made = Compose(engine)
    monkeypatch.setattr(grafana, "run", made)
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr(grafana, "settle_password", lambda port, password: "")
    monkeypatch.setattr(grafana, "_POLL_S", 0.01)
    monkeypatch.setattr(grafana, "_PORT_WAIT_S", 0.0)
    return made


@pytest.fixture
def port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


@pytest.fixture
def ours(engine: FakeEngine, compose: Compose, port: int, tmp_path: Path) -> Grafana:
    settings = GrafanaSettings(port=port, admin_password="secret")
    database = Path("/srv/so1/a base.db")
    return Grafana(settings, Path("/opt/so1"), database, engine.host, run_dir=tmp_path)


def test_it_comes_up_by_compose_and_its_address_is_given_once_it_is_healthy(
    ours: Grafana, engine: FakeEngine, compose: Compose, port: int
) -> None:
    said: list[str] = []
    assert ours.up(said.append) == f"http://localhost:{port}"
    (call,) = compose.calls
    assert call[:4] == ("docker", "compose", "-p", "so1-grafana")
    assert call[-2:] == ("up", "-d")
    assert call[5].endswith("/grafana/docker-compose.yml")
    assert compose.env == {
        "SO1_GRAFANA_IMAGE": IMAGE,
        "SO1_GRAFANA_PORT": str(port),
        "SO1_GRAFANA_DASHBOARDS": "./dashboards",
        "SO1_DATABASE_DIR": "/srv/so1",
        "SO1_DATABASE_FILE": "a%20base.db",
        "GF_SECURITY_ADMIN_PASSWORD": "secret",
        "DOCKER_HOST": engine.host,
    }
    assert "secret" not in " ".join(call)
    assert compose.locks == 1  # it outlives an agent that is killed, and keeps the turn
    assert said == [f"Grafana: starting {IMAGE} …"]
    assert engine.calls[-1] == LOOK


@pytest.mark.parametrize(
    ("language", "directory"),
    [(GrafanaLanguage.SPANISH, "dashboards"), (GrafanaLanguage.ENGLISH, "dashboards-en")],
)
def test_the_dashboards_are_of_the_language_that_is_set(
    language: GrafanaLanguage, directory: str
) -> None:
    settings = GrafanaSettings(language=language)
    one = Grafana(settings, Path("/opt/so1"), Path("/srv/metrics.db"), "unix:///none")
    chosen = one.directory() / one.environment()["SO1_GRAFANA_DASHBOARDS"]
    assert chosen.resolve().name == directory
    assert (chosen / "monitor-de-sistema.json").is_file()


def test_what_settling_the_password_warns_of_is_said(
    ours: Grafana, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grafana, "settle_password", lambda port, password: f"{password} is weak")
    said: list[str] = []
    ours.up(said.append)
    assert said[-1] == "Grafana: secret is weak"


def test_a_container_that_only_has_the_name_is_never_touched(
    ours: Grafana, engine: FakeEngine, compose: Compose
) -> None:
    engine.answers[INSPECT] = {"Config": {"Labels": None}, "State": {}}
    with pytest.raises(AgentError, match="not the agent's") as raised:
        ours.up(print)
    assert "docker rename" in raised.value.hint
    assert compose.calls == []
    assert {call.split()[0] for call in engine.calls} == {"GET"}
    assert not ours.is_ours()


def test_an_earlier_one_of_ours_is_removed_first_and_nothing_else(
    ours: Grafana, engine: FakeEngine, compose: Compose
) -> None:
    engine.answers[INSPECT] = HEALTHY
    engine.answers["/containers/json"] = [{"Id": ID}]
    engine.answers["/networks"] = [{"Id": "net"}]
    ours.up(print)
    changed = [call for call in engine.calls if not call.startswith("GET")]
    # The fake engine has no such container any more: the answer to the first is that it is gone.
    assert changed == [f"POST /containers/{ID}/stop", "DELETE /networks/net"]
    listed = [one for one in engine.requests if "/containers/json?" in one or "/networks?" in one]
    assert listed and all("so1-grafana" in one for one in listed)


def stream(*steps: dict[str, str]) -> bytes:
    lines = [json.dumps(step).encode() + b"\r\n" for step in steps]
    chunks = b"".join(f"{len(one):x}\r\n".encode() + one + b"\r\n" for one in lines)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def test_an_absent_image_is_pulled_by_its_name_and_tag(
    ours: Grafana, engine: FakeEngine, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    del engine.answers[f"/images/{IMAGE}/json"]
    engine.answers["/images/create"] = stream({"status": "Pulling"}, {"status": "Done"})
    monkeypatch.setattr(grafana, "_SAY_EVERY_S", -1.0)
    said: list[str] = []
    ours.up(said.append)
    (pulled,) = [one for one in engine.requests if "/images/create" in one]
    assert "fromImage=grafana%2Fgrafana" in pulled
    assert "tag=13.2.2" in pulled
    assert said[:2] == [f"Grafana: pulling {IMAGE} …", f"Grafana: still pulling {IMAGE} …"]


@pytest.mark.parametrize(
    "answer",
    [stream({"error": "no route\x1b[2J"}), reply({"message": "no route\x1b[2J"}, "500 No")],
    ids=["in the stream", "at once"],
)
def test_an_image_that_cannot_be_pulled_is_named_with_the_cause_and_both_ways_out(
    ours: Grafana, engine: FakeEngine, compose: Compose, answer: bytes
) -> None:
    del engine.answers[f"/images/{IMAGE}/json"]
    engine.answers["/images/create"] = answer
    with pytest.raises(AgentError, match="cannot be pulled: no route") as raised:
        ours.up(print)
    assert IMAGE in raised.value.message
    assert "\x1b" not in raised.value.message
    assert "docker load" in raised.value.hint
    assert "--no-grafana" in raised.value.hint
    assert compose.calls == []


def test_a_port_that_somebody_listens_on_is_named_before_compose_is_run(
    ours: Grafana, compose: Compose, port: int
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen(1)
        assert not port_is_free(port)
        with pytest.raises(AgentError, match=f"Port {port} on 127.0.0.1") as raised:
            ours.up(print)
    assert f"sport = :{port}" in raised.value.hint
    assert compose.calls == []
    assert port_is_free(port)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("pull ok\nError response from daemon: no space\nexit", "Error response from daemon: no"),
        ("listen tcp: address already in use", "is taken"),
        ("strange", "strange"),
    ],
)
def test_a_compose_that_fails_is_one_sentence_with_its_first_error(
    ours: Grafana, compose: Compose, said: str, word: str
) -> None:
    compose.status, compose.said, compose.makes = 1, said, None
    with pytest.raises(AgentError, match=word) as raised:
        ours.up(print)
    assert raised.value.hint


NO_LOG = reply({"message": "no"}, "404 Not Found")
A_LOG = reply(b"\x01\0\0\0\0\0\0\x0dplugin\x1b[2J\n\n\n")


@pytest.mark.parametrize(("log", "last"), [(NO_LOG, "none"), (A_LOG, r"plugin\x1b[2J")])
@pytest.mark.parametrize(
    "state",
    [
        {**OURS, "State": {"Health": {"Status": "unhealthy"}}},
        {**OURS, "State": {"Health": {"Status": "starting"}}, "RestartCount": 1},
        {**OURS, "State": {}},
    ],
    ids=["unhealthy", "restarted", "without a state"],
)
def test_one_that_does_not_become_healthy_is_left_to_be_looked_at_with_its_last_line(
    ours: Grafana,
    engine: FakeEngine,
    compose: Compose,
    state: dict[str, Any],
    log: bytes,
    last: str,
) -> None:
    compose.makes = state
    engine.answers[f"/containers/{CONTAINER}/logs"] = log
    with pytest.raises(AgentError, match="did not become healthy") as raised:
        ours.up(print)
    assert f"(its last line: {last})" in raised.value.message
    assert f"docker logs {CONTAINER}" in raised.value.hint
    after = engine.calls[engine.calls.index(LOOK) + 1 :]
    assert not [call for call in after if call.startswith(("POST", "DELETE"))]


def test_one_that_is_still_starting_is_waited_for_and_said(
    ours: Grafana, engine: FakeEngine, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def grow(connection: socket.socket, target: str) -> None:
        looks.append(1)
        status = "healthy" if len(looks) > 3 else "starting"
        connection.sendall(reply({**OURS, "State": {"Health": {"Status": status}}}))

    monkeypatch.setattr(grafana, "_SAY_EVERY_S", -1.0)
    compose.makes = grow  # type: ignore[assignment]
    said: list[str] = []
    ours.up(said.append)
    assert len(looks) == 4
    assert sum("not healthy yet" in line for line in said) == 3


def test_a_start_that_was_given_up_starts_nothing(ours: Grafana, compose: Compose) -> None:
    ours.cancel()
    with pytest.raises(AgentError, match="given up: the agent stops"):
        ours.up(print)
    assert compose.calls == []


def test_down_removes_what_bears_our_project_and_keeps_the_volume(
    ours: Grafana, engine: FakeEngine, compose: Compose
) -> None:
    engine.answers["/containers/json"] = [{"Id": ID}]
    engine.answers[f"/containers/{ID}/stop"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    engine.answers[f"/containers/{ID}"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    engine.answers["/networks"] = [{"Id": "net"}]
    ours.down()
    changed = [call for call in engine.calls if not call.startswith("GET")]
    assert changed == [
        f"POST /containers/{ID}/stop",
        f"DELETE /containers/{ID}",
        "DELETE /networks/net",
    ]
    (deletion,) = [one for one in engine.requests if one.partition("?")[0].endswith(ID)]
    assert "v=False" in deletion


def test_a_removal_by_somebody_quicker_is_no_error_and_a_refusal_is_one(
    ours: Grafana, engine: FakeEngine, compose: Compose
) -> None:
    engine.answers["/containers/json"] = [{"Id": ID}]
    engine.answers[f"/containers/{ID}/stop"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    engine.answers[f"/containers/{ID}"] = reply({"message": "already in progress"}, "409 Conflict")
    ours.down()
    engine.answers[f"/containers/{ID}"] = reply({"message": "device busy"}, "500 No")
    with pytest.raises(AgentError, match="device busy"):
        ours.down()


def test_without_docker_neither_way_is_taken(ours: Grafana, engine: FakeEngine) -> None:
    engine.stop()
    for step in (ours.down, ours.is_ours, lambda: ours.up(print)):
        with pytest.raises(EngineUnavailableError):
            step()
    engine.start()


def version_of(works: str) -> Callable[..., Finished]:
    def run(argv: Sequence[str], **_: object) -> Finished:
        if " ".join(argv[:-1]) == works:
            return Finished(tuple(argv), 0, "", "")
        if argv[0] == "docker":
            return Finished(tuple(argv), 1, "", "docker: 'compose' is not a docker command")
        raise CommandError("docker-compose took longer than 30 s and was ended.")

    return run


@pytest.mark.parametrize("works", ["docker compose", "docker-compose"])
def test_the_plugin_is_used_where_it_is_there_else_the_program(
    monkeypatch: pytest.MonkeyPatch, works: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr(grafana, "run", version_of(works))
    assert compose_command() == works.split()


@pytest.mark.parametrize("there", [True, False])
def test_without_any_compose_it_is_said_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: "/bin/x" if there else None)
    monkeypatch.setattr(grafana, "run", version_of("none"))
    with pytest.raises(AgentError, match="needs docker compose") as raised:
        compose_command()
    assert "apt-get install docker-compose" in raised.value.hint


def test_the_project_is_the_one_that_the_documents_name() -> None:
    assert (PROJECT, CONTAINER) == ("so1-grafana", "grafana_so1")
