"""Alerts to Alertmanager's API v2, which knows an alert by its labels and ends it at `endsAt`.

One that lasts is posted with an end some minutes ahead and repeated before; should the agent die,
Alertmanager resolves it by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.actions.notify.post import Target, post
from agent.actions.notify.webhook import rfc3339
from agent.model.notification import Message

PATH = "/api/v2/alerts"
LASTS_MS = 5 * 60 * 1000
"""How long an alert that is not repeated stays: several repeats may fail meanwhile."""


def send(
    target: Target, messages: Sequence[Message], host: str, *, wall_ms: int, timeout_s: float
) -> None:
    """Posts them together. Raises DeliveryError."""
    post(target, {}, body_of(messages, host, wall_ms), timeout_s)


def body_of(messages: Sequence[Message], host: str, wall_ms: int) -> bytes:
    return msgspec.json.encode([_alert(one, host, wall_ms) for one in messages])


def _alert(message: Message, host: str, wall_ms: int) -> dict[str, object]:
    alert = message.alert
    labels = {"alertname": f"so1-{alert.event}", "instance": host, **alert.labels}
    if message.ended_ms is None:
        ends_ms = wall_ms + LASTS_MS
    elif message.state == "firing":  # it only happened: Alertmanager shows nothing that is over
        ends_ms = max(message.ended_ms, wall_ms) + LASTS_MS
    else:
        ends_ms = message.ended_ms
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {"summary": alert.summary, "id": message.id},
        "startsAt": rfc3339(message.began_ms),
        "endsAt": rfc3339(ends_ms),
    }
