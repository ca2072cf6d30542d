"""A message as JSON to a URL of one's own, signed with a key that both sides know."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import msgspec

from agent.actions.notify.post import Target, post
from agent.actions.notify.secret import Secret
from agent.model.notification import Message

TIMESTAMP, SIGNATURE, ID = "X-So1-Timestamp", "X-So1-Signature", "X-So1-Id"


def send(
    target: Target,
    key: Secret,
    message: Message,
    about: dict[str, Any],
    *,
    wall_s: int,
    timeout_s: float,
) -> None:
    """Posts one message; `about` is what the host says of itself. Raises DeliveryError."""
    body = body_of(message, about)
    headers = {
        ID: message.id,
        TIMESTAMP: str(wall_s),
        SIGNATURE: f"sha256={signature(key, wall_s, body)}",
    }
    post(target, headers, body, timeout_s)


def signature(key: Secret, wall_s: int, body: bytes) -> str:
    """HMAC-SHA256 over the timestamp, a full stop and the body: an old message cannot be sent again
    as a new one."""
    return hmac.new(key.reveal(), b"%d." % wall_s + body, hashlib.sha256).hexdigest()


def body_of(message: Message, about: dict[str, Any]) -> bytes:
    ended = None if message.ended_ms is None else rfc3339(message.ended_ms)
    return msgspec.json.encode(
        {
            "version": 1,
            "id": message.id,
            "state": str(message.state),
            "event": str(message.alert.event),
            "key": message.alert.key,
            "summary": message.alert.summary,
            "labels": message.alert.labels,
            "began": rfc3339(message.began_ms),
            "ended": ended,
            **about,
        }
    )


_LAST_MS = 253_402_300_799_000
"""The end of the year 9999, the last that RFC 3339 has."""


def rfc3339(wall_ms: int) -> str:
    """UTC; what is no moment of its years (a damaged row) is the nearest that is."""
    moment = datetime.fromtimestamp(min(max(wall_ms, 0), _LAST_MS) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
