"""The receivers of the settings: each is one call that sends a batch and says how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.actions.notify import alertmanager, journal, webhook
from agent.actions.notify.post import Target
from agent.actions.notify.secret import read_key
from agent.config_outlets import NotifySettings
from agent.errors import AgentError
from agent.model.notification import Message, Receipt
from agent.policy.outbox import ReceiverTraits

WallMs = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Sender:
    """What a message says of who sends it."""

    host: str
    installation: str
    wall_ms: WallMs


@dataclass(frozen=True, slots=True)
class Receiver:
    """One receiver. `send` raises AgentError where it has not taken what it was given."""

    traits: ReceiverTraits
    where: str
    """For people: no path, no secret."""
    together: bool
    """Whether a batch is one request."""
    send: Callable[[Sequence[Message], Sender, int], None]
    """Messages (one, unless `together`), who sends them, how many were dropped so far."""

    @property
    def name(self) -> str:
        return self.traits.name

    def deliver(
        self, messages: Sequence[Message], sender: Sender, dropped: int
    ) -> tuple[Receipt, ...]:
        """Tries them in order, up to the first that fails. Raises nothing: a receiver may do what
        it wants."""
        receipts: list[Receipt] = []
        for batch in [messages] if self.together else [[one] for one in messages]:
            problem = self._try(batch, sender, dropped)
            receipts += (Receipt(self.name, one.id, problem) for one in batch)
            if problem:
                break
        return tuple(receipts)

    def _try(self, batch: Sequence[Message], sender: Sender, dropped: int) -> str:
        try:
            self.send(batch, sender, dropped)
        except AgentError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a thread's end would be nobody's to see
            # Its kind alone: what it says may hold what it was given.
            return f"It failed in a way that is not known: {type(error).__name__}."
        return ""


def receivers_of(settings: NotifySettings) -> tuple[Receiver, ...]:
    """In the order in which they are tried by `agent notify test`."""
    found: list[Receiver] = []
    if settings.journal:
        found.append(Receiver(ReceiverTraits("journal"), str(journal.SOCKET), False, _to_journal))
    if settings.webhook.url:
        found.append(_webhook(settings))
    for number, url in enumerate(settings.alertmanager.urls, start=1):
        found.append(_alertmanager(settings, url, number))
    return tuple(found)


def _to_journal(messages: Sequence[Message], _sender: Sender, _dropped: int) -> None:
    for one in messages:
        journal.send(one)


def _webhook(settings: NotifySettings) -> Receiver:
    chosen = settings.webhook
    target = Target.of(chosen.url, chosen.ca_file or "")

    def send(messages: Sequence[Message], sender: Sender, dropped: int) -> None:
        # Read each time: a key that is changed needs no restart, and none lies in memory for days.
        key = read_key(Path(chosen.key_file))
        about: Mapping[str, Any] = {
            "host": sender.host,
            "installation": sender.installation,
            "dropped": dropped,
        }
        for one in messages:
            wall_s = sender.wall_ms() // 1000
            webhook.send(target, key, one, dict(about), wall_s=wall_s, timeout_s=chosen.timeout_s)

    return Receiver(ReceiverTraits("webhook"), target.shown, False, send)


def _alertmanager(settings: NotifySettings, url: str, number: int) -> Receiver:
    chosen = settings.alertmanager
    target = Target.of(url, chosen.ca_file or "", alertmanager.PATH)

    def send(messages: Sequence[Message], sender: Sender, _dropped: int) -> None:
        alertmanager.send(
            target, messages, sender.host, wall_ms=sender.wall_ms(), timeout_s=chosen.timeout_s
        )

    name = "alertmanager" if number == 1 else f"alertmanager-{number}"
    return Receiver(ReceiverTraits(name, forgets=True), target.shown, True, send)
