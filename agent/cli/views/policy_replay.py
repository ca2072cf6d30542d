"""What a replay of the history found, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from agent.policy.replay_run import MOST_SHOWN, Replayed
from agent.util.terminal import printable


def replayed_text(found: Replayed, limits: Sequence[str], *, others: bool) -> str:
    """`others`: it was done with other rules than those of then."""
    return "\n".join(_lines(found, limits, others=others))


def _lines(found: Replayed, limits: Sequence[str], *, others: bool) -> Iterator[str]:
    yield f"{found.ticks} ticks, {_at(found.from_ms)} to {_at(found.to_ms)}."
    yield from _known_since(found, others=others)
    yield from map(printable, limits)
    yield from _actions(found) if others else _differences(found)


def _known_since(found: Replayed, *, others: bool) -> Iterator[str]:
    """What the first ticks of the span do not have."""
    if (seen_ms := found.seen_since_ms) is None:
        return
    stored = [("In which state each container is, and since when,", found.states_since_ms)]
    if not others:
        stored.append(("Which rule claims a container", found.claims_since_ms))
        stored.append(("By which rules it was decided", found.rules_since_ms))
    for what, since_ms in stored:
        if since_ms is None or since_ms > seen_ms:
            known = "none of them" if since_ms is None else _at(since_ms)
            yield f"{what} is stored from: {known}."


def _differences(found: Replayed) -> Iterator[str]:
    yield f"{found.reproduced} of {found.recorded} recorded decisions reproduced."
    if found.not_of_rules:
        yield f"{found.not_of_rules} more are of a stop, a clean-up or a plan by hand."
    for one in found.differences:
        who = "recorded, not decided here" if one.recorded else "decided here, not recorded"
        yield (
            f"{_at(one.timestamp_ms)} {one.action} {printable(one.container_name)} "
            f"({printable(one.container_id)}), {who}: {printable(one.reason)}"
        )
    more = found.reasons.total() - len(found.differences)
    if more > 0:
        yield f"{more} more differences beyond the first {MOST_SHOWN}."


def _actions(found: Replayed) -> Iterator[str]:
    if not found.action_count:
        yield "These rules would have done nothing."
        return
    for one in found.actions:
        really = f", really removed {_at(one.removed_ms)}" if one.removed_ms else ""
        unsure = ", unsure: a label may have protected it" if one.unsure else ""
        yield (
            f"{_at(one.timestamp_ms)} {one.action} {printable(one.container_name)} "
            f'({printable(one.container_id)}): rule "{one.rule}", {one.held_mb:.1f} MB held'
            f"{really}{unsure}"
        )
    if found.action_count > len(found.actions):
        yield f"{found.action_count - len(found.actions)} more beyond the first {MOST_SHOWN}."
    if found.most_given_back_ms is not None:
        yield (
            f"At most {found.most_given_back_mb:.0f} MB more would have been free, "
            f"{_at(found.most_given_back_ms)}: what those held that would have been gone."
        )


def _at(timestamp_ms: int | None) -> str:
    if timestamp_ms is None:
        return "never"
    return datetime.fromtimestamp(timestamp_ms / 1000).astimezone().isoformat(" ", "seconds")
