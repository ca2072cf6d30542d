"""Tells systemd how the service does: ready, alive, stopping, and one line for `systemctl status`.

The protocol of sd_notify(3): one datagram a message to the socket that the environment names. Where
none is named, as in a terminal, nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

from agent.util.terminal import printable

log = logging.getLogger(__name__)

_MAX_STATUS = 1000
_PATIENCE_S = 1.0


class Notifier:
    """Sends to one socket. What cannot be sent is counted and said once, never raised."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = address
        self._ready = False
        self.watchdog_s = watchdog_s
        """Seconds after which systemd takes us for dead, None where it does not watch."""
        self.lost = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Notifier:
        """As `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID` ask (sd_watchdog_enabled(3))."""
        address = environment.get("NOTIFY_SOCKET", "")
        microseconds = _natural(environment.get("WATCHDOG_USEC", ""))
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if not address or not microseconds or not watched:
            return cls(address)
        return cls(address, microseconds / 10**6)

    @property
    def pause_s(self) -> float:
        """The longest time between two signs of life: half of what systemd allows."""
        return self.watchdog_s / 2 if self.watchdog_s else float("inf")

    def ticked(self, status: str) -> None:
        """The service is up from the first call on; `status` is what it did last."""
        words = [] if self._ready else ["READY=1"]
        sent = self._send(*words, f"STATUS={printable(status)[:_MAX_STATUS]}")
        self._ready = self._ready or sent

    def alive(self) -> None:
        """A sign of life; nothing where systemd does not watch."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=taking down what the agent brought")

    def _send(self, *words: str) -> bool:
        if not self._address:
            return True
        # A leading @ is the abstract namespace, whose names begin with NUL (unix(7)).
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_PATIENCE_S)
                channel.sendto("\n".join(words).encode(), address)
        except (OSError, ValueError) as error:
            if not self.lost:
                log.warning("systemd=unreachable socket=%r %s", self._address, error)
            self.lost += 1
            return False
        return True


def _natural(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
