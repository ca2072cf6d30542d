"""What each receiver is sent, held against what it would check itself; secrets show nowhere."""

from __future__ import annotations

import codecs
import hashlib
import hmac
import json
import logging
import os
import socket
import traceback
from pathlib import Path

import pytest

from agent.actions.notify import alertmanager, journal
from agent.actions.notify.receivers import Receiver, Sender, receivers_of
from agent.actions.notify.secret import Secret, read_key
from agent.config_outlets import AlertmanagerSettings, NotifySettings, WebhookSettings
from agent.errors import AgentError
from agent.model.notification import Alert, AlertState, Event, Message
from tests.unit.actions.receiver import receiving, status

KEY = "0123456789abcdef-not-to-be-seen"
WALL_MS = 1_700_000_000_000
SENDER = Sender("host-1", "f" * 32, lambda: WALL_MS)


def message(state: AlertState = AlertState.FIRING, **more: int) -> Message:
    alert = Alert(
        "rule/ci/abc", Event.RULE, "The rule «ci» holds.", {"rule": "ci", "container": "web"}
    )
    return Message("id-1", alert, state, WALL_MS - 60_000, WALL_MS - 50_000, **more)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


def hook(url: str, key: Path) -> Receiver:
    (one,) = receivers_of(NotifySettings(webhook=WebhookSettings(url=url, key_file=str(key))))
    return one


def test_a_webhook_gets_json_that_its_key_verifies(key: Path) -> None:
    with receiving() as receiver:
        (receipt,) = hook(f"{receiver.url}/x", key).deliver([message()], SENDER, 3)
    assert receipt.problem == ""
    (request,) = receiver.requests
    stamp = request.headers["X-So1-Timestamp"]
    mac = hmac.new(KEY.encode(), stamp.encode() + b"." + request.body, hashlib.sha256)
    assert request.headers["X-So1-Signature"] == f"sha256={mac.hexdigest()}"
    assert request.headers["X-So1-Id"] == "id-1"
    assert (stamp, request.headers["Content-Type"]) == ("1700000000", "application/json")
    assert json.loads(request.body) == {
        "version": 1,
        "id": "id-1",
        "state": "firing",
        "event": "rule",
        "key": "rule/ci/abc",
        "summary": "The rule «ci» holds.",
        "labels": {"rule": "ci", "container": "web"},
        "began": "2023-11-14T22:12:20.000Z",
        "ended": None,
        "host": "host-1",
        "installation": "f" * 32,
        "dropped": 3,
    }


def test_a_delivery_stops_at_the_first_message_that_is_refused(key: Path) -> None:
    with receiving(status("503 No")) as receiver:
        receipts = hook(receiver.url, key).deliver([message(), message()], SENDER, 0)
    assert len(receiver.requests) == 1
    assert [one.problem.endswith("status 503.") for one in receipts] == [True]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o700, 0o666])
def test_a_key_that_others_could_read_or_change_is_not_used(key: Path, mode: int) -> None:
    key.chmod(mode)
    with receiving() as receiver:
        (receipt,) = hook(receiver.url, key).deliver([message()], SENDER, 0)
    assert "is not root's alone" in receipt.problem
    assert receiver.requests == []
    assert KEY not in receipt.problem


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_roots_alone_is_read_without_its_newline(key: Path, mode: int) -> None:
    key.chmod(mode)
    assert read_key(key).reveal() == KEY.encode()


def test_an_editors_mark_of_the_byte_order_is_no_part_of_a_key(key: Path) -> None:
    key.write_bytes(codecs.BOM_UTF8 + KEY.encode() + b"\r\n")
    assert read_key(key).reveal() == KEY.encode()


def test_a_key_of_another_user_a_link_a_directory_and_a_short_one_are_refused(
    key: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(key)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    short = tmp_path / "short"
    short.write_text("abc")
    short.chmod(0o600)
    for path in (link, pipe, short, tmp_path, tmp_path / "none"):
        with pytest.raises(AgentError):
            read_key(path)
    if os.geteuid() == 0:
        os.chown(key, 12345, 0)
        with pytest.raises(AgentError, match="not root's alone"):
            read_key(key)


def test_a_key_shows_in_no_text_of_its_own_and_in_no_traceback(
    key: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Secret(KEY.encode())
    caplog.set_level(logging.DEBUG)
    logging.getLogger("x").error("%s %r %s", secret, secret, [secret])

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(KEY)

    monkeypatch.setattr("agent.actions.notify.webhook.post", fails)
    (receipt,) = hook("http://127.0.0.1:1/", key).deliver([message()], SENDER, 0)
    assert receipt.problem == "It failed in a way that is not known: RuntimeError."
    try:
        raise ValueError(secret)
    except ValueError:
        assert KEY not in traceback.format_exc() + caplog.text


def test_alertmanager_gets_them_together_and_each_with_an_end() -> None:
    happened = message(ended_ms=WALL_MS - 60_000)
    over = message(AlertState.RESOLVED, ended_ms=WALL_MS - 1000)
    with receiving() as receiver:
        settings = AlertmanagerSettings(urls=(f"{receiver.url}/am/", "http://127.0.0.1:1"))
        one, other = receivers_of(NotifySettings(alertmanager=settings))
        receipts = one.deliver([message(), happened, over], SENDER, 0)
    assert [each.problem for each in receipts] == ["", "", ""]
    assert (one.name, other.name) == ("alertmanager", "alertmanager-2")
    (request,) = receiver.requests
    assert request.line == "POST /am/api/v2/alerts HTTP/1.1"
    lasting, past, ended = json.loads(request.body)
    labels = {"alertname": "so1-rule", "instance": "host-1", "rule": "ci", "container": "web"}
    assert lasting["labels"] == past["labels"] == ended["labels"] == labels
    assert lasting["startsAt"] == ended["startsAt"] == "2023-11-14T22:12:20.000Z"
    assert ended["endsAt"] == "2023-11-14T22:13:19.000Z"
    # What lasts ends later than the next reminder; what happened is shown before it is over.
    assert lasting["endsAt"] == past["endsAt"] == "2023-11-14T22:18:20.000Z"
    assert alertmanager.LASTS_MS > 2 * 60_000
    assert lasting["annotations"] == {"summary": "The rule «ci» holds.", "id": "id-1"}


def test_the_journal_gets_fields_that_its_protocol_tells_apart(tmp_path: Path) -> None:
    hostile = Alert("k", Event.TEST, "two\nlines\nPRIORITY=0", {"container": "a=b", "rule": "ñ"})
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        journal.send(Message("id-2", hostile, AlertState.RESOLVED, 1, 2, 3), path)
        datagram = server.recv(65536)
    assert parsed(datagram) == {
        "MESSAGE": "two\nlines\nPRIORITY=0 (resolved)",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "so1-agent",
        "SO1_EVENT": "test",
        "SO1_STATE": "resolved",
        "SO1_ID": "id-2",
        "SO1_KEY": "k",
        "SO1_CONTAINER": "a=b",
        "SO1_RULE": "ñ",
    }


def parsed(datagram: bytes) -> dict[str, str]:
    """As systemd.io/JOURNAL_NATIVE_PROTOCOL has it."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            datagram = rest
        else:
            length = int.from_bytes(rest[:8], "little")
            name, value = line, rest[8 : 8 + length]
            assert rest[8 + length :][:1] == b"\n"
            datagram = rest[9 + length :]
        found[name.decode()] = value.decode()
    return found


def test_without_a_journal_it_is_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "none")
    monkeypatch.setattr(journal.send, "__defaults__", (tmp_path / "none",))
    (one,) = receivers_of(NotifySettings(journal=True))
    (receipt,) = one.deliver([message()], SENDER, 0)
    assert "No such file or directory" in receipt.problem
    assert "notify.journal = false" in receipt.problem


def test_nothing_is_set_by_default() -> None:
    assert receivers_of(NotifySettings()) == ()
    assert not NotifySettings().wanted
