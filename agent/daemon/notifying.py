"""Brings messages to their receivers beside the loop, which never waits for one of them.

Each delivery is a thread of its own, one a receiver at a time; what it came to is taken up when the
loop looks again. Messages are stored before they are first handed over, wherever anything can be
stored at all, so that a kill costs at most a repeat with the same id.
"""

from __future__ import annotations

import logging
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from agent.actions.notify.receivers import Receiver, Sender, receivers_of
from agent.clock import Clock
from agent.config import Config
from agent.config_outlets import NotifySettings
from agent.errors import StoreError
from agent.model.notification import Alert, Event, Message, Receipt
from agent.model.removal import Outcome, Removal
from agent.policy import alerts
from agent.policy.outbox import Backlog, Outbox
from agent.store import outbox as outbox_tables
from agent.store.installation import existing_installation_id
from agent.store.store import Store

log = logging.getLogger(__name__)

_OLD_MS = 120_000
"""What waits for longer is reported."""
_CLOSE_S = 2.0
_NOTHING_DONE = (Outcome.GONE, Outcome.DRY_RUN)


def in_thread(work: Callable[[], object]) -> None:
    """Runs it beside everything else; the process ends without waiting for it."""
    threading.Thread(target=work, name="so1-notify", daemon=True).start()


class Notifying:
    """The outbox of one run. One thread calls it."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        sender: Sender,
        settings: NotifySettings,
        store: Store,
        clock: Clock,
        begin: Callable[[Callable[[], object]], None],
    ) -> None:
        self._receivers = {one.name: one for one in receivers}
        self._sender = sender
        self._store = store
        self._clock = clock
        self._begin = begin
        self._actions = settings.actions
        self._busy: set[str] = set()
        self._ended: queue.SimpleQueue[tuple[str, tuple[Receipt, ...]]] = queue.SimpleQueue()
        self._shown: dict[str, str] = {}
        self.outbox = Outbox(
            [one.traits for one in receivers], settings.per_minute, lambda: secrets.token_hex(8)
        )
        try:
            self.outbox.resume(store.ask(outbox_tables.read))
        except StoreError as error:
            log.warning("notify=begins-empty %s", error)
        store.kept.append(outbox_tables.OutboxRows(lambda: self.outbox.state))

    @classmethod
    def start(cls, config: Config, store: Store, clock: Clock) -> Self:
        """For the receivers that the settings name."""
        try:
            installation = existing_installation_id(Path(config.paths.database).parent) or ""
        except StoreError:
            installation = ""
        sender = Sender(socket.gethostname(), installation, lambda: clock.wall_ns() // 10**6)
        receivers = receivers_of(config.notify)
        return cls(receivers, sender, config.notify, store, clock, in_thread)

    def fire(self, alert: Alert) -> None:
        """Something lasts from now on. Nothing happens where it did already."""
        if self.outbox.fire(alert, self._now_ms()):
            log.info("notify=%s state=firing key=%s", alert.event, alert.key)

    def resolve(self, key: str) -> None:
        """It is over, where it lasted."""
        if self.outbox.resolve(key, self._now_ms()):
            log.info("notify=resolved key=%s", key)

    def happened(self, alert: Alert) -> None:
        """Something that has no end of its own."""
        self.outbox.happened(alert, self._now_ms())

    def ended(self, removals: Iterable[Removal]) -> None:
        """Notifies of what the policy did, or would have done."""
        for removal in removals:
            if removal.outcome in _NOTHING_DONE:
                continue
            alert = alerts.of_removal(removal)
            if alert.event is not Event.ACTION:
                self.fire(alert)
            elif self._actions:
                self.happened(alert)

    def stands(self, lasting: alerts.Lasting) -> None:
        """Begins and ends what lasts."""
        for alert in alerts.beginning(lasting):
            self.fire(alert)
        for key in alerts.over(tuple(self.outbox.active), lasting):
            self.resolve(key)

    def look(self) -> None:
        """Takes up what deliveries came to and begins those that are due. Never waits."""
        self._take_up()
        for name, receiver in self._receivers.items():
            if name not in self._busy:
                due = self.outbox.due(name, self._now_ms())
                if due:
                    self._hand_over(receiver, [one.message for one in due])

    def close(self, wait_s: float = _CLOSE_S) -> None:
        """Waits a moment for deliveries under way and stores what is left for the next start."""
        deadline = time.monotonic() + wait_s
        while self._busy and (left_s := deadline - time.monotonic()) > 0:
            self._take_up(left_s)
        try:
            self._store.save(self._clock.wall_ns())
        except StoreError as error:
            log.warning("notify=unstored %s", error)

    @property
    def backlogs(self) -> tuple[Backlog, ...]:
        return self.outbox.backlogs(self._now_ms())

    @property
    def problems(self) -> list[str]:
        """One sentence for each receiver that does not get what it should."""
        found = []
        for one in self.backlogs:
            waits = f"{one.waiting} waiting, the oldest for {one.oldest_ms // 1000} s"
            if one.problem:
                found.append(f"notify: {one.receiver}: {waits}: {one.problem}")
            elif one.waiting and one.oldest_ms > _OLD_MS:
                why = "it has not answered yet, or more come than notify.per_minute lets through"
                found.append(f"notify: {one.receiver}: {waits}: {why}.")
            if one.dropped:
                found.append(
                    f"notify: {one.receiver}: {one.dropped} given up since this history began: "
                    "there were too many, or they were a week old."
                )
        return found

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 10**6

    def _hand_over(self, receiver: Receiver, messages: Sequence[Message]) -> None:
        dropped = self.outbox.state.dropped.get(receiver.name, 0)

        def work() -> None:
            self._ended.put((receiver.name, receiver.deliver(messages, self._sender, dropped)))

        self._busy.add(receiver.name)
        try:
            self._begin(work)
        except RuntimeError:  # no thread is to be had
            self._ended.put(
                (receiver.name, (Receipt(receiver.name, messages[0].id, "No thread is left."),))
            )

    def _take_up(self, wait_s: float = 0.0) -> None:
        """All that have ended; `wait_s` is waited for the first."""
        while True:
            try:
                name, receipts = (
                    self._ended.get(timeout=wait_s) if wait_s else self._ended.get(block=False)
                )
            except queue.Empty:
                return
            wait_s = 0.0
            self._busy.discard(name)
            self.outbox.ended(receipts, self._now_ms())
            self._report(name, receipts[-1].problem if receipts else "")

    def _report(self, name: str, problem: str) -> None:
        """Once for an outage."""
        before = self._shown.get(name, "")
        if problem and not before:
            log.warning("notify=failing receiver=%s %s", name, problem)
        elif before and not problem:
            log.info("notify=back receiver=%s", name)
        self._shown[name] = problem
