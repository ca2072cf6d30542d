"""What is worth a notification, as alerts: made from what the policy did, and from its own state.

Pure. An alert's key and labels are of what lasts (a rule and a container), never of a moment, so
that the same is not notified twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.model.notification import Alert, Event
from agent.model.proof import ArmingWord
from agent.model.removal import Outcome, Removal
from agent.util.terminal import fit, printable

DISARMED = "disarmed"
_LABEL_LIMIT = 255

RuleOn = tuple[str, str]
"""A rule's name and a container's full id."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """What lasts at one moment. None where that could not be seen this time."""

    word: ArmingWord
    holding: Collection[RuleOn] | None = None
    """Rules that have acted on a container and still hold."""
    withheld: Collection[RuleOn] | None = None
    """What would have been done to a container and was not."""
    returning: Mapping[str, int] = field(default_factory=dict)
    """Owners that bring back what is removed, and how often within the hour."""


def of_removal(removal: Removal) -> Alert:
    """What one ended decision is notified as."""
    decision = removal.decision
    rule, name = _label(decision.rule), _label(decision.container_name)
    labels = {
        "rule": rule,
        "container": name,
        "container_id": decision.container_id[:12],
        "action": str(decision.action),
    }
    on = (decision.rule, decision.container_id)
    if removal.outcome is not Outcome.NOTIFIED:
        labels["outcome"] = str(removal.outcome)
        error = f": {_label(removal.error)}" if removal.error else ""
        return Alert(
            f"action/{decision.id}",
            Event.ACTION,
            f"{name}: {decision.action} by the rule {rule}: {removal.outcome}{error}.",
            labels,
        )
    if not removal.is_withheld:
        return Alert(
            key_of(Event.RULE, on), Event.RULE, f"The rule {rule} holds for {name}.", labels
        )
    return Alert(
        key_of(Event.WITHHELD, on),
        Event.WITHHELD,
        f"{name} would be hit by {decision.action} of the rule {rule}; the policy is disarmed.",
        labels,
    )


def disarmed(word: ArmingWord) -> Alert:
    return Alert(DISARMED, Event.DISARMED, f"The policy is disarmed: {_label(word.why)}.")


def recreates(owner: str, count: int) -> Alert:
    shown = _label(owner)
    return Alert(
        f"{Event.OWNER_RECREATES}/{shown}",
        Event.OWNER_RECREATES,
        f"{shown} brought removed containers back {count} times within an hour.",
        {"owner": shown},
    )


def key_of(event: Event, on: RuleOn) -> str:
    return f"{event}/{_label(on[0])}/{on[1]}"


def beginning(lasting: Lasting) -> Iterator[Alert]:
    """What lasts by the policy's own state; what rules found is notified as it is done."""
    if not lasting.word.armed:
        yield disarmed(lasting.word)
    for owner, count in lasting.returning.items():
        yield recreates(owner, count)


def over(active: Iterable[str], lasting: Lasting) -> list[str]:
    """Keys of active alerts that do not last any more."""
    there = {one.key for one in beginning(lasting)}
    seen = {str(Event.DISARMED), str(Event.OWNER_RECREATES)}
    for event, found in ((Event.RULE, lasting.holding), (Event.WITHHELD, lasting.withheld)):
        if found is not None:
            seen.add(str(event))
            there.update(key_of(event, on) for on in found)
    return [key for key in active if _event_of(key) in seen and key not in there]


def _event_of(key: str) -> str:
    return key.partition("/")[0]


def _label(text: str) -> str:
    return printable(fit(text, _LABEL_LIMIT))
