"""What people are notified of, as values: a condition that begins and ends, or what happened once.

An alert has a key, by which it is one however often it is seen; each of its two transitions is one
message, whose id every repeat of it carries.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Event(StrEnum):
    """What is notified."""

    RULE = "rule"
    """A rule with `action = "notify"` holds for a container."""
    WITHHELD = "withheld"
    """The policy would act on a container and is disarmed."""
    ACTION = "action"
    """A container was removed, stopped, restarted or paused, or that failed."""
    DISARMED = "disarmed"
    """The policy acts on nothing."""
    OWNER_RECREATES = "owner-recreates"
    """Somebody brings back what the policy removes."""
    TEST = "test"
    """`agent notify test`."""


class AlertState(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(msgspec.Struct, frozen=True):
    """One thing to notify of. Its labels say what it is of and never change while it lasts."""

    key: str
    event: Event
    summary: str
    """One sentence for a person."""
    labels: dict[str, str] = {}


class Message(msgspec.Struct, frozen=True):
    """One transition of an alert, as it is kept until every receiver has it."""

    id: str
    """The same in every repeat."""
    alert: Alert
    state: AlertState
    began_ms: int
    """Wall clock, as all times here."""
    created_ms: int
    ended_ms: int | None = None
    """When it ended; of what only happened, when it began."""


class Pending(msgspec.Struct, frozen=True):
    """One message on its way to one receiver."""

    message: Message
    receiver: str
    attempts: int = 0
    next_ms: int = 0
    """When it is to be sent (again)."""
    delivered: bool = False
    """The receiver has it, and wants it repeated while the alert lasts."""


class Receipt(msgspec.Struct, frozen=True):
    """How one attempt to send a message ended."""

    receiver: str
    id: str
    problem: str = ""
    """Why the receiver has not got it, "" where it has. Never holds a secret."""
