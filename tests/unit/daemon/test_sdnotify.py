"""What systemd is told, as a socket of systemd's kind receives it."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

import pytest

from agent.daemon.sdnotify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Systemd:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.setblocking(False)
        self.channel.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def heard(self) -> list[list[str]]:
        """The lines of every message since the last call."""
        messages = []
        while True:
            try:
                messages.append(self.channel.recv(1 << 16).decode().split("\n"))
            except BlockingIOError:
                return messages


@pytest.fixture(params=["a path", "an abstract name"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    path = str(tmp_path / "notify")
    end = Systemd(path if request.param == "a path" else f"@so1-test-{secrets.token_hex(8)}")
    yield end
    end.channel.close()


def notifier(systemd: Systemd, **more: str) -> Notifier:
    return Notifier.from_environment({"NOTIFY_SOCKET": systemd.address, **more})


def test_the_first_tick_is_readiness_and_later_ones_are_not(systemd: Systemd) -> None:
    one = notifier(systemd)
    one.ticked("tick 1")
    one.ticked("tick 2")
    assert systemd.heard() == [["READY=1", "STATUS=tick 1"], ["STATUS=tick 2"]]


def test_a_stop_is_told(systemd: Systemd) -> None:
    notifier(systemd).stopping()
    (lines,) = systemd.heard()
    assert "STOPPING=1" in lines


def test_a_sign_of_life_is_given_where_systemd_watches_and_at_half_its_time(
    systemd: Systemd,
) -> None:
    one = notifier(systemd, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    assert (one.watchdog_s, one.pause_s) == (30.0, 15.0)
    one.alive()
    assert systemd.heard() == [["WATCHDOG=1"]]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "9" * 50},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_sign_of_life_is_given_where_systemd_does_not_watch_this_process(
    systemd: Systemd, more: dict[str, str]
) -> None:
    one = notifier(systemd, **more)
    one.alive()
    assert systemd.heard() == []
    assert one.pause_s == float("inf")


def test_a_status_is_one_line_whatever_a_name_holds(systemd: Systemd) -> None:
    notifier(systemd).ticked("tick 1\nMAINPID=1\udc80" + "x" * 100_000)
    ((ready, status),) = systemd.heard()
    assert ready == "READY=1"
    assert status.startswith(r"STATUS=tick 1\x0aMAINPID=1\xdc80")
    assert len(status) < 2000


def test_without_systemd_nothing_is_sent_and_nothing_is_lost() -> None:
    one = Notifier.from_environment({})
    one.ticked("tick 1")
    one.alive()
    one.stopping()
    assert one.lost == 0


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens", "/x" * 100, "/a\0b"])
def test_a_socket_that_cannot_be_reached_is_counted_and_said_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = Notifier(address, watchdog_s=1.0)
    one.ticked("tick 1")
    one.alive()
    assert one.lost == 2
    assert len(caplog.records) == 1


def test_readiness_that_did_not_arrive_is_told_again(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    one = Notifier(path)
    one.ticked("tick 1")
    end = Systemd(path)
    one.ticked("tick 2")
    assert end.heard() == [["READY=1", "STATUS=tick 2"]]
    end.channel.close()
