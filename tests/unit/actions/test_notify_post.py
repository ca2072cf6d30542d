"""One POST before receivers that do what they want: it ends, and says in one sentence how."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from agent.actions.notify.post import DeliveryError, Target, post
from tests.unit.actions.receiver import (
    Answer,
    dripping,
    endless,
    never,
    receiving,
    status,
)

SHORT_S = 0.4
LONG_S = 20.0


def refusal(url: str, timeout_s: float = LONG_S) -> str:
    with pytest.raises(DeliveryError) as caught:
        post(Target.of(url), {}, b"{}", timeout_s)
    return str(caught.value)


def test_what_is_posted_arrives_whole_with_its_headers() -> None:
    body = b'{"a": "' + b"x" * 200_000 + b'"}'
    with receiving() as receiver:
        post(Target.of(f"{receiver.url}/hook?x=1"), {"X-So1-Id": "7"}, body, LONG_S)
    (request,) = receiver.requests
    assert request.line == "POST /hook?x=1 HTTP/1.1"
    assert request.headers["X-So1-Id"] == "7"
    assert request.headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert request.body == body


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (status("500 Internal Server Error", body="boom\x1b[2J"), "status 500: boom"),
        (status("404 Not Found"), "status 404."),
        (status("302 Found", headers="Location: http://127.0.0.1:1/\r\n"), "redirects"),
        (lambda one, _over: one.close(), "closed the connection without an answer"),
        (lambda one, _over: one.sendall(b"SSH-2.0-OpenSSH\r\n" * 2000), "is no HTTP"),
        (endless(b""), "is no HTTP"),
        (endless(b"HTTP/1.1 500 x\r\n\r\n"), "status 500: xxx"),
    ],
    ids=["500", "404", "redirect", "closes", "no HTTP", "endless noise", "endless 500"],
)
def test_a_receiver_that_refuses_is_named_with_what_it_said(answer: Answer, says: str) -> None:
    with receiving(answer) as receiver:
        said = refusal(f"{receiver.url}/secret-path")
    assert says in said
    assert f"127.0.0.1:{receiver.port}" in said
    assert "secret-path" not in said
    assert "\x1b" not in said
    assert len(said) < 400
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        never,
        dripping(b"HTTP/1.1 "),
        dripping(b"HTTP/1.1 100 Continue\r\n\r\n"),
        # A byte at a time, never the end of its head.
        dripping(b"H"),
    ],
    ids=["never answers", "drips", "continues for ever", "drips noise"],
)
def test_a_receiver_that_does_not_come_to_an_end_is_left_at_the_deadline(answer: Answer) -> None:
    with receiving(answer) as receiver:
        said = refusal(receiver.url, SHORT_S)
    assert "did not answer within 0.4 s" in said or "is no HTTP" in said


def test_a_200_counts_though_its_body_never_ends() -> None:
    with receiving(endless(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as receiver:
        post(Target.of(receiver.url), {}, b"{}", LONG_S)
    assert len(receiver.requests) == 1


def test_a_body_that_the_receiver_does_not_take_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # nobody accepts, nobody reads
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(DeliveryError, match="within"):
            post(Target.of(url), {}, b"x" * (64 << 20), SHORT_S)


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "was not reached: Connection refused" in refusal(f"http://127.0.0.1:{port}")


def test_what_the_services_sandbox_refuses_says_how_to_let_it_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("agent.actions.notify.post.socket.create_connection", refused)
    said = refusal("http://192.0.2.1/")
    assert "was not reached: Operation not permitted" in said
    assert "IPAddressAllow=" in said


def test_a_name_that_is_none_is_said() -> None:
    assert "was not reached" in refusal("http://no-such-host.invalid/")
    assert "was not reached" in refusal(f"http://{'a' * 70}.invalid/")


def test_a_handshake_that_never_ends_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            one, _ = server.accept()
            with one:
                # A record's head, and then its bytes one by one.
                one.sendall(b"\x16\x03\x03\x40\x00")
                try:
                    while not over.wait(0.05):
                        one.sendall(b"\x02")
                except OSError:
                    pass

        over = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        try:
            said = refusal(f"https://127.0.0.1:{server.getsockname()[1]}", SHORT_S)
        finally:
            over.set()
    assert "did not answer within 0.4 s" in said or "was not reached" in said


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_of_the_ca_file_is_taken(
    certificate: Path,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://localhost:{server.getsockname()[1]}"

        def serve() -> None:
            for _ in range(3):
                plain, _ = server.accept()
                try:
                    with context.wrap_socket(plain, server_side=True) as one:
                        one.recv(65536)
                        one.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                except OSError:
                    plain.close()

        threading.Thread(target=serve, daemon=True).start()
        assert "is not trusted" in refusal(url)
        post(Target.of(url, str(certificate)), {}, b"{}", LONG_S)
        # Another name than the certificate's is no better than another certificate.
        with pytest.raises(DeliveryError, match="is not trusted"):
            post(
                Target.of(url.replace("localhost", "127.0.0.1"), str(certificate)),
                {},
                b"{}",
                LONG_S,
            )


@pytest.fixture
def certificate() -> Path:
    return Path(__file__).with_name("localhost.pem")


def test_a_targets_path_shows_in_nothing_that_is_printed() -> None:
    target = Target.of("https://hooks.example/T0/token")
    assert "token" not in repr(target)
    assert "token" not in target.shown
