"""Which of the decisions that are made again a recorded one is. Pure.

A row is written once its action has ended. By then the same may have been decided again: what is
under way is decided at every tick, and what ended between two looks may be acted on a second time,
as something that is gone. So each row takes a moment at which its rule decided it, the oldest
first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from agent.model.container import ContainerKey
from agent.model.removal import Action, Decision

PATIENCE_MS = 180_000
"""So long a decision may be under way before its row is written."""

DecidedKey = tuple[str, str, str]
"""Engine, short id and action."""


class DecidedAt(NamedTuple):
    """One moment at which something was decided."""

    at_ms: int
    decision: Decision


class Unrecorded:
    """What was decided and has no row yet."""

    def __init__(self) -> None:
        self._first: dict[DecidedKey, DecidedAt] = {}
        """When it was decided first, where no row of it has come since."""
        self._again: dict[DecidedKey, list[DecidedAt]] = {}
        self._met: set[DecidedKey] = set()
        """Decided in both, and still to be done: what failed or is withheld."""

    @property
    def any(self) -> bool:
        return bool(self._first or self._again or self._met)

    @property
    def first(self) -> Mapping[DecidedKey, DecidedAt]:
        """What no row has been seen of, since it was decided first."""
        return dict(self._first)

    @property
    def under_way(self) -> Iterable[ContainerKey]:
        """Whom something is being done to, as far as decisions without a row tell."""
        return (
            ContainerKey(engine, container_id)
            for engine, container_id, action in self._first
            if action != Action.NOTIFY
        )

    def decided(self, due: Iterable[Decision], at_ms: int) -> None:
        """Notes one moment's decisions."""
        for one in due:
            key = key_of(one)
            if key in self._first or key in self._met:
                self._again.setdefault(key, []).append(DecidedAt(at_ms, one))
            else:
                self._first[key] = DecidedAt(at_ms, one)

    def seen(self, still: Collection[DecidedKey], now_ms: int) -> None:
        """A whole look, with what is decided in it."""
        self._met &= set(still)
        since_ms = now_ms - PATIENCE_MS
        for key in tuple(self._again):
            self._again[key] = [one for one in self._again[key] if one.at_ms >= since_ms]
            if not self._again[key]:
                del self._again[key]

    def take(self, key: DecidedKey, rule: str) -> Decision | None:
        """The decision that a row is of, and meets it; that of another rule where its own has made
        none ("": any), None where there is none at all."""
        again = self._again.get(key, [])
        made = [*([self._first[key]] if key in self._first else []), *again]
        chosen = next((one for one in made if rule in ("", one.decision.rule)), None)
        if chosen is None and made:
            chosen = made[0]
        # One that is older got no row: somebody ended the agent.
        self._first.pop(key, None)
        if chosen is None:
            return None
        self._again[key] = [one for one in again if one is not chosen]
        return chosen.decision

    def is_met(self, key: DecidedKey) -> bool:
        return key in self._met

    def meet(self, key: DecidedKey) -> None:
        """Notes that both have it."""
        self._met.add(key)

    def give_up(self, key: DecidedKey) -> None:
        """Waits no longer for its first row."""
        self._first.pop(key, None)


def key_of(one: Decision) -> DecidedKey:
    return (one.engine, one.container_id, str(one.action))
