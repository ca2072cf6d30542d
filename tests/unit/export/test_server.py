"""The server of `/metrics`: one rendering for all, and no client that holds up another."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.export.page import Page, wants_openmetrics
from agent.export.server import MAX_REQUEST_BYTES, ListenError, MetricsServer
from tests.unit.export.test_figures import of
from tests.unit.store.builders import a_tick

BODY = b"figure 1\n" * 100_000


@contextmanager
def serving(page: object = None, **settings: object) -> Iterator[MetricsServer]:
    get = page or (lambda _accept: ("text/plain", BODY))
    server = MetricsServer(("127.0.0.1", 0), get, **settings)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.close()


def ask(
    server: MetricsServer, target: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        client.request(method, target, headers=headers)
        answer = client.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        client.close()


def raw(server: MetricsServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        parts = []
        while some := client.recv(65536):
            parts.append(some)
        return b"".join(parts)


def test_the_page_is_served_whole() -> None:
    with serving() as server:
        status, body, headers = ask(server, "/metrics?x=1")
    assert (status, body) == (200, BODY)
    assert headers["Content-Type"] == "text/plain"
    assert headers["Content-Length"] == str(len(BODY))


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [("/", "GET", 404), ("/metrics", "POST", 405), ("/metrics", "HEAD", 200)],
)
def test_what_is_not_the_page_is_told(target: str, method: str, status: int) -> None:
    with serving() as server:
        answer = ask(server, target, method)
    assert answer[0] == status
    if method == "HEAD":
        assert answer[1] == b""


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"\xff\xfe \n\n", b"x" * 9])
def test_what_is_no_http_ends_without_a_page(data: bytes) -> None:
    with serving() as server:
        answer = raw(server, data)
        assert b"figure" not in answer
        assert ask(server)[0] == 200


def test_a_request_without_an_end_is_refused() -> None:
    with serving() as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n" + b"a" * MAX_REQUEST_BYTES)
            assert client.recv(12) == b"HTTP/1.1 431"
        assert ask(server)[0] == 200


def test_before_the_first_tick_there_is_nothing_yet() -> None:
    with serving(Page().get) as server:
        assert ask(server)[0] == 503


def test_a_page_that_fails_is_an_answer_too_and_the_next_one_comes() -> None:
    answers = iter([ValueError("broken"), ("text/plain", b"well")])

    def page(_accept: str) -> tuple[str, bytes]:
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer  # type: ignore[return-value]

    with serving(page) as server:
        assert ask(server)[0] == 500
        assert ask(server)[1] == b"well"


def test_a_hundred_who_ask_at_once_cost_one_rendering() -> None:
    made = []

    def render(figures: object, as_openmetrics: bool) -> tuple[str, bytes]:
        made.append((figures, as_openmetrics))
        return "text/plain", BODY

    page = Page(render)
    page.show(of(a_tick()))
    together = threading.Barrier(100)
    answers: list[tuple[int, int]] = []

    def scrape(server: MetricsServer) -> None:
        together.wait()
        status, body, _ = ask(server)
        answers.append((status, len(body)))

    with serving(page.get) as server:
        threads = [threading.Thread(target=scrape, args=(server,)) for _ in range(100)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
        assert answers == [(200, len(BODY))] * 100
        assert len(made) == 1
        page.show(of(a_tick()))
        ask(server)
        ask(server, Accept="application/openmetrics-text;version=1.0.0")
        assert [kind for _, kind in made] == [False, False, True]


def test_clients_that_never_read_or_ask_hold_up_nobody() -> None:
    with serving(max_clients=8) as server, ExitStack() as stack:
        slow = []
        for number in range(20):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            stack.callback(client.close)
            client.connect(("127.0.0.1", server.port))
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            slow.append(client)
        for _ in range(3):
            assert ask(server)[:2] == (200, BODY)
        assert len(server._clients) <= 8
        # The one that was there first has been let go.
        assert ended(slow[0])


def ended(client: socket.socket) -> bool:
    """Whether the server let the connection go; waits for it."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_a_client_has_a_deadline() -> None:
    with (
        serving(deadline_s=0.2) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        client.sendall(b"GET /met")
        assert ended(client)


def test_an_address_that_is_taken_is_one_sentence() -> None:
    with serving() as server, pytest.raises(ListenError) as raised:
        MetricsServer(("127.0.0.1", server.port), lambda _accept: None)
    assert "in use" in raised.value.message
    assert raised.value.hint


def test_a_server_that_was_never_started_closes() -> None:
    MetricsServer(("127.0.0.1", 0), lambda _accept: None).close()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.9", False),
        ("application/openmetrics-text;version=9.0.0", False),
        ("application/openmetrics-text;q=none", False),
        ("application/openmetrics-text; version=0.0.1", True),
        (
            "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*",
            True,
        ),
    ],
)
def test_openmetrics_is_for_those_who_prefer_it(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted
