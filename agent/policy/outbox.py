"""What is to be sent to whom and when: deduplicated, in order, bounded, repeated until it arrived.

Pure: the clock's moments are handed in, sending and storing are somebody else's. A receiver that
fails is left alone for a growing pause, and then gets first what was tried least, so that one
message that it refuses holds no other up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from agent.model.notification import Alert, AlertState, Message, Pending, Receipt
from agent.util.backoff import Backoff

MOST_PENDING = 500
"""Messages kept for one receiver; above it the oldest go, and are counted."""
KEPT_MS = 7 * 24 * 3600 * 1000
"""What could not be delivered for so long is given up, and counted."""
REPEAT_MS = 60_000
"""How often a receiver that forgets is reminded of an alert that lasts."""
BATCH = 10
_FAR_MS = 600_000
"""Nothing is put off for longer: what seems to be was put off before the clock was set back."""
_PAUSES = Backoff(first_ns=5 * 10**9, longest_ns=300 * 10**9)


@dataclass(frozen=True, slots=True)
class ReceiverTraits:
    """What of a receiver matters for when it gets what."""

    name: str
    forgets: bool = False
    """Whether it takes an alert for over that it is not told of again (Alertmanager)."""


@dataclass(slots=True)
class _Route:
    """One receiver's side."""

    traits: ReceiverTraits
    pending: list[Pending] = field(default_factory=list)
    """Oldest first."""
    failures: int = 0
    not_before_ms: int = 0
    tokens: float = 0.0
    filled_ms: int = 0
    problem: str = ""
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """How one receiver stands, for people."""

    receiver: str
    waiting: int
    oldest_ms: int
    """How long the oldest has waited, 0 where nothing waits."""
    problem: str
    """Why the last attempt failed, "" where it did not."""
    dropped: int
    """Messages that were given up since the history began."""


class OutboxState(msgspec.Struct, frozen=True):
    """All that has to survive the agent's end."""

    active: dict[str, Message] = {}
    """By key: the alerts that last."""
    pending: tuple[Pending, ...] = ()
    dropped: dict[str, int] = {}
    """By receiver."""


class Outbox:
    """All receivers' sides, and which alerts last. One thread calls it."""

    def __init__(
        self, receivers: Iterable[ReceiverTraits], per_minute: int, new_id: Callable[[], str]
    ) -> None:
        """`per_minute` messages go to each receiver at most, and as many at once."""
        self._routes = {one.name: _Route(one, tokens=per_minute) for one in receivers}
        self._per_minute = per_minute
        self._new_id = new_id
        self._active: dict[str, Message] = {}
        self._gone: dict[str, int] = {}
        """What was dropped of receivers that are not set any more."""

    def resume(self, kept: OutboxState) -> None:
        """Goes on from what an earlier run left. Everything is due at once."""
        self._active = dict(kept.active)
        for name, count in kept.dropped.items():
            if name in self._routes:
                self._routes[name].dropped = count
            else:
                self._gone[name] = count
        for one in kept.pending:
            if route := self._routes.get(one.receiver):
                route.pending.append(msgspec.structs.replace(one, next_ms=0))
            else:
                self._gone[one.receiver] = self._gone.get(one.receiver, 0) + (not one.delivered)

    @property
    def state(self) -> OutboxState:
        pending = tuple(one for route in self._routes.values() for one in route.pending)
        dropped = {name: route.dropped for name, route in self._routes.items() if route.dropped}
        return OutboxState(dict(self._active), pending, {**self._gone, **dropped})

    @property
    def active(self) -> Mapping[str, Message]:
        return self._active

    def fire(self, alert: Alert, now_ms: int) -> bool:
        """An alert lasts from now on; False where it did already."""
        if alert.key in self._active:
            return False
        if len(self._active) >= MOST_PENDING:
            for route in self._routes.values():
                route.dropped += 1
            return False
        message = Message(self._new_id(), alert, AlertState.FIRING, now_ms, now_ms)
        self._active[alert.key] = message
        self._queue(message, now_ms)
        return True

    def happened(self, alert: Alert, now_ms: int) -> None:
        """A thing that has no end of its own."""
        self._queue(
            Message(self._new_id(), alert, AlertState.FIRING, now_ms, now_ms, ended_ms=now_ms),
            now_ms,
        )

    def resolve(self, key: str, now_ms: int) -> bool:
        """An alert is over; False where none of this key lasted."""
        began = self._active.pop(key, None)
        if began is None:
            return False
        self._queue(
            msgspec.structs.replace(
                began,
                id=self._new_id(),
                state=AlertState.RESOLVED,
                created_ms=now_ms,
                ended_ms=now_ms,
            ),
            now_ms,
        )
        return True

    def due(self, receiver: str, now_ms: int) -> tuple[Pending, ...]:
        """What is to be sent to it now, within its rate; none while it is left alone."""
        route = self._routes[receiver]
        self._forget_old(route, now_ms)
        self._fill(route, now_ms)
        if _is_put_off(route.not_before_ms, now_ms):
            return ()
        seen: set[str] = set()
        ready = []
        for one in route.pending:
            # Of one alert the first goes first: nobody is told of an end before the begin.
            key = one.message.alert.key
            if key not in seen and not _is_put_off(one.next_ms, now_ms):
                ready.append(one)
            seen.add(key)
        ready.sort(key=lambda one: one.attempts)
        chosen = tuple(ready[: min(BATCH, int(route.tokens))])
        route.tokens -= len(chosen)
        return chosen

    def ended(self, receipts: Iterable[Receipt], now_ms: int) -> None:
        """Takes note of how attempts ended."""
        for receipt in receipts:
            route = self._routes[receipt.receiver]
            place = next(
                (n for n, one in enumerate(route.pending) if one.message.id == receipt.id), None
            )
            if receipt.problem:
                route.failures += 1
                route.not_before_ms = now_ms + _PAUSES.pause_ns(route.failures) // 10**6
            else:
                route.failures = route.not_before_ms = 0
            route.problem = receipt.problem
            if place is None:
                continue
            one = route.pending[place]
            if receipt.problem:
                route.pending[place] = msgspec.structs.replace(
                    one, attempts=one.attempts + 1, next_ms=route.not_before_ms
                )
            elif self._is_to_be_repeated(route, one.message):
                route.pending[place] = msgspec.structs.replace(
                    one, attempts=0, next_ms=now_ms + REPEAT_MS, delivered=True
                )
            else:
                del route.pending[place]

    def backlogs(self, now_ms: int) -> tuple[Backlog, ...]:
        found = []
        for route in self._routes.values():
            waiting = [one for one in route.pending if not one.delivered]
            oldest = min((one.message.created_ms for one in waiting), default=now_ms)
            found.append(
                Backlog(
                    route.traits.name,
                    len(waiting),
                    max(0, now_ms - oldest),
                    route.problem,
                    route.dropped,
                )
            )
        return tuple(found)

    def _is_to_be_repeated(self, route: _Route, message: Message) -> bool:
        lasting = self._active.get(message.alert.key)
        return route.traits.forgets and lasting is not None and lasting.id == message.id

    def _queue(self, message: Message, now_ms: int) -> None:
        for route in self._routes.values():
            if message.state is AlertState.RESOLVED:
                # What the receiver has is over now; what it has not, it gets first.
                key = message.alert.key
                route.pending = [
                    one
                    for one in route.pending
                    if not (one.delivered and one.message.alert.key == key)
                ]
            route.pending.append(Pending(message, route.traits.name, next_ms=now_ms))
            while len(route.pending) > MOST_PENDING:
                dropped = next((n for n, one in enumerate(route.pending) if not one.delivered), 0)
                del route.pending[dropped]
                route.dropped += 1

    def _forget_old(self, route: _Route, now_ms: int) -> None:
        kept = [
            one
            for one in route.pending
            if one.delivered or now_ms - one.message.created_ms < KEPT_MS
        ]
        route.dropped += len(route.pending) - len(kept)
        route.pending = kept

    def _fill(self, route: _Route, now_ms: int) -> None:
        passed_ms = max(0, now_ms - route.filled_ms) if route.filled_ms else 0
        route.filled_ms = now_ms
        filled = route.tokens + passed_ms * self._per_minute / 60_000
        route.tokens = min(float(self._per_minute), filled)


def _is_put_off(until_ms: int, now_ms: int) -> bool:
    return now_ms < until_ms <= now_ms + _FAR_MS
