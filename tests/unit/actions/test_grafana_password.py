"""The configured admin password is the one that opens Grafana, or somebody is told."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from agent.actions.grafana_password import settle_password


class FakeGrafana:
    """Grafana's two addresses for the signed-in user, with one password."""

    def __init__(self, password: str) -> None:
        self.password = password
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _authorised(self) -> bool:
                given = self.headers["Authorization"].removeprefix("Basic ")
                user, _, password = base64.b64decode(given).decode().partition(":")
                if (user, password) == ("admin", fake.password):
                    return True
                self._answer(401)
                return False

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                if self._authorised():
                    self._answer(200 if self.path == "/api/user" else 404)

            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self._authorised():
                    right = body["oldPassword"] == fake.password
                    right = right and self.path == "/api/user/password"
                    if right:
                        fake.password = body["newPassword"]
                    self._answer(200 if right else 400)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)


@pytest.fixture
def grafana(request: pytest.FixtureRequest) -> Iterator[FakeGrafana]:
    fake = FakeGrafana(request.param)
    fake.thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.mark.parametrize("grafana", ["admin"], indirect=True)
def test_the_default_password_is_warned_of(grafana: FakeGrafana) -> None:
    assert "still `admin`" in settle_password(grafana.port, "admin")


@pytest.mark.parametrize("grafana", ["ñandú: 'x'"], indirect=True)
def test_a_password_of_ones_own_that_opens_it_needs_no_word(grafana: FakeGrafana) -> None:
    assert settle_password(grafana.port, "ñandú: 'x'") == ""


@pytest.mark.parametrize("grafana", ["admin"], indirect=True)
def test_a_password_set_after_the_first_start_replaces_the_default(grafana: FakeGrafana) -> None:
    assert settle_password(grafana.port, "better") == ""
    assert grafana.password == "better"


@pytest.mark.parametrize("grafana", ["an older one"], indirect=True)
def test_another_password_than_the_configured_one_is_told_and_kept(grafana: FakeGrafana) -> None:
    said = settle_password(grafana.port, "better")

    assert "another admin password" in said
    assert "better" not in said
    assert grafana.password == "an older one"


def test_a_grafana_that_does_not_answer_is_told() -> None:
    assert "could not be checked" in settle_password(1, "admin")
