"""A message as an entry of the journal, with fields that `journalctl SO1_EVENT=rule` finds.

The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram, a field a line, or
its length in eight little-endian bytes where the value has a newline.
"""

from __future__ import annotations

import socket
from pathlib import Path

from agent.actions.notify.post import DeliveryError
from agent.model.notification import AlertState, Message

SOCKET = Path("/run/systemd/journal/socket")
_WARNING, _NOTICE = "4", "5"
_TIMEOUT_S = 2.0


def send(message: Message, path: Path = SOCKET) -> None:
    """Writes one entry. Raises DeliveryError where there is no journal, or it takes none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.settimeout(_TIMEOUT_S)
        try:
            one.sendto(datagram(message), str(path))
        except OSError as error:
            raise DeliveryError(
                f"The journal does not take messages at {path}: {error.strerror or error}.",
                "Without systemd set notify.journal = false.",
            ) from None


def datagram(message: Message) -> bytes:
    alert = message.alert
    fields = {
        "MESSAGE": f"{alert.summary} ({message.state})",
        "PRIORITY": _WARNING if message.state is AlertState.FIRING else _NOTICE,
        "SYSLOG_IDENTIFIER": "so1-agent",
        "SO1_EVENT": str(alert.event),
        "SO1_STATE": str(message.state),
        "SO1_ID": message.id,
        "SO1_KEY": alert.key,
        **{f"SO1_{name.upper()}": value for name, value in alert.labels.items()},
    }
    return b"".join(_field(name, value) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    text = value.encode("utf-8", "replace")
    if b"\n" not in text:
        return name.encode("ascii") + b"=" + text + b"\n"
    return name.encode("ascii") + b"\n" + len(text).to_bytes(8, "little") + text + b"\n"
