"""Which containers would give so much memory back, the fewest of them; for `plan --free`. Pure.

A person asks, so neither `when` nor `keep` holds back here. Every safeguard does, and so does what
a rule says is to be done: one whose rule only reports, restarts or pauses is not offered.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from agent.model.container import ContainerKey, ContainerTotals
from agent.model.removal import Action, Decision, Reason, is_away
from agent.policy import dependants
from agent.policy.conditions import KB_PER_MB
from agent.policy.decide import claim_of
from agent.policy.governance import protection
from agent.policy.rules import RuleSet

BY_HAND = "free-"
"""How the ids of its decisions begin, in the history too: no rule decided them by itself."""
AT_IT = "the agent is at it already"
_GIVES_BACK = (Action.REMOVE, Action.STOP)
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([MGT])(?:i?B)?", re.IGNORECASE)
_UNITS_MB = {"M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}
_IN_TIME_MS = 4000
"""A pass waits 5 s for its removals; what is read after it tells nothing of those that last."""


class Earlier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What passes of the history gave back beside what their containers held."""

    passes: int = 0
    held_mb: float = 0.0
    gave_back_mb: float = 0.0
    """`MemAvailable` after them less that before: whatever else the host did is in it."""
    median: float | None = None
    """Of each pass's share of what was held; None without passes."""


class Reclaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan was asked for, and what may be expected of it."""

    target_mb: float
    held_mb: float
    """What the chosen ones hold."""
    predicted_mb: float
    """That much of it comes back if it goes as it went before."""
    earlier: Earlier


class RemovalRow(Protocol):
    """What is needed of a row of `deletions`."""

    @property
    def timestamp_ms(self) -> int: ...
    @property
    def outcome(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def held_mb(self) -> float: ...
    @property
    def duration_ms(self) -> int: ...
    @property
    def available_before_mb(self) -> float: ...
    @property
    def available_after_mb(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """Who may be asked to go, the largest first, and by full id why the others may not."""

    decisions: tuple[Decision, ...]
    spared: dict[str, str]


def megabytes(text: str) -> float | None:
    """`4G`, `1.5G`, `800M` in MB of 1024 KB; None for anything else, and for nothing."""
    match = _SIZE.fullmatch(text.strip())
    found = float(match[1]) * _UNITS_MB[match[2].upper()] if match else 0.0
    return found or None


def offer(
    totals: Sequence[ContainerTotals],
    in_doubt: Collection[ContainerKey],
    own_ids: Collection[str],
    rules: RuleSet,
    decision_id: Callable[[], str],
    under_way: Collection[ContainerKey] = (),
) -> Offer:
    """`in_doubt` are those that the witnesses disagree on, and those of unknown figures;
    `under_way` those that the agent is doing something to, which gives back what they hold."""
    needed = dependants.needed_by(one.container for one in totals)
    found: list[Decision] = []
    spared: dict[str, str] = {}
    for one in totals:
        container = one.container
        rule = rules.named(claim_of(one))
        does = next((act for act in rule.actions if act in _GIVES_BACK), None) if rule else None
        why = protection(container, own_ids)
        if why is None and rule is None:
            why = "no rule claims it"
        elif why is None and does is None and rule is not None:
            why = f'rule "{rule.name}" neither removes nor stops it'
        elif why is None and container.key in under_way:
            why = AT_IT
        elif why is None and container.key in in_doubt:
            why = "what it holds is disputed or not known"
        elif why is None and container.key in needed:
            why = needed[container.key]
        elif why is None and not container.state.is_running:
            why = f"it is {container.state} and holds nothing"
        if why is not None or rule is None or does is None:
            spared[container.id] = why or ""
            continue
        found.append(
            Decision(
                id=decision_id(),
                container_id=container.id,
                container_name=container.name,
                image=container.image,
                created_ns=container.created_ns,
                tier=one.tier,
                rank=0,
                reason=Reason.RULE,
                held_mb=one.held_kb / KB_PER_MB,
                cpu_percent=one.cpu_percent if one.cpu_percent > 0 else 0.0,
                action=does,
                rule=rule.name,
                engine=container.engine,
                grace_s=rule.grace_s,
            )
        )
    found.sort(key=lambda one: (-one.held_mb, -one.created_ns, one.container_id))
    return Offer(_ranked(found), spared)


def fewest(decisions: Sequence[Decision], target_mb: float) -> tuple[Decision, ...] | None:
    """The fewest that hold `target_mb` together, None where all of them hold less.

    The largest go, and in the place of the last of them the smallest that is enough: a database of
    10 GB is spared where one of 5 GB will do.
    """
    largest = sorted(decisions, key=lambda one: -one.held_mb)
    chosen: list[Decision] = []
    held_mb = 0.0
    for place, one in enumerate(largest):
        enough = [each for each in largest[place:] if held_mb + each.held_mb >= target_mb]
        if enough:
            return _ranked([*chosen, enough[-1]])
        chosen.append(one)
        held_mb += one.held_mb
    return None


def expected(chosen: Iterable[Decision], target_mb: float, earlier: Earlier) -> Reclaim:
    held_mb = sum(one.held_mb for one in chosen)
    share = 1.0 if earlier.median is None else earlier.median
    held, predicted = round(float(held_mb), 1), round(held_mb * share, 1)
    return Reclaim(float(target_mb), held, float(predicted), earlier)


def earlier(rows: Iterable[RemovalRow]) -> Earlier:
    """What the passes gave back of which every container went, in time."""
    passes: dict[tuple[int, float, float], list[RemovalRow]] = defaultdict(list)
    for one in rows:
        passes[(one.timestamp_ms, one.available_before_mb, one.available_after_mb)].append(one)
    held: list[float] = []
    came: list[float] = []
    for (_, before_mb, after_mb), removals in passes.items():
        held_mb = sum(one.held_mb for one in removals)
        if held_mb >= 1 and all(map(_gave_back, removals)):
            held.append(held_mb)
            came.append(after_mb - before_mb)
    if not held:
        return Earlier()
    shares = [one / of for one, of in zip(came, held, strict=True)]
    median = min(1.0, max(0.0, statistics.median(shares)))
    return Earlier(len(held), round(sum(held), 1), round(sum(came), 1), round(median, 3))


def _gave_back(one: RemovalRow) -> bool:
    away = one.outcome == "stopped" or (one.action == "remove" and is_away(one.outcome, one.error))
    return away and one.duration_ms < _IN_TIME_MS


def _ranked(decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    return tuple(replace(one, rank=rank) for rank, one in enumerate(decisions, start=1))
