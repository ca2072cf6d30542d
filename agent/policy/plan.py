"""A plan: what the rules would do at one moment, and what of it still holds at a later one. Pure.

Figures may move. Identity, state, labels, the rule that claims it and its condition may not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from agent.model.container import Container, ContainerTotals
from agent.model.container_id import FullId
from agent.model.removal import Action, Decision
from agent.policy.reclaim import Reclaim


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One container and what is to be done to it."""

    rank: int
    action: Action
    rule: str
    container_id: FullId
    container_name: str
    created_ns: int
    state: str
    labels: str
    """A digest of them."""
    held_mb: float
    cpu_usage: float


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    decisions: tuple[Entry, ...]
    figures_age_s: float | None = None
    reclaim: Reclaim | None = None
    """Of `plan --free`: what is to come back. None for what the rules would do by themselves."""


def make(
    decisions: Sequence[Decision],
    totals: Sequence[ContainerTotals],
    figures_age_s: float | None,
    reclaim: Reclaim | None = None,
) -> Plan:
    """The plan of these decisions; its id is that of all that its entries say."""
    by_id = {one.container.id: one.container for one in totals}
    entries = tuple(_entry(one, by_id[one.container_id]) for one in decisions)
    return Plan(_id(entries, reclaim), entries, figures_age_s, reclaim)


def is_whole(plan: Plan) -> bool:
    """Whether the plan is what its id says."""
    return plan.id == _id(plan.decisions, plan.reclaim)


def still(
    plan: Plan, due: Sequence[Decision], totals: Sequence[ContainerTotals], why: Mapping[str, str]
) -> tuple[tuple[Decision, ...], dict[str, str]]:
    """What of the plan is to be done now, and by container why the rest of it is not.

    `due` is what the rules would do now, `why` what they say of each container by its id.
    """
    by_id = {one.container.id: one for one in totals}
    now = {one.container_id: one for one in due}
    holding: list[Decision] = []
    others: dict[str, str] = {}
    for entry in plan.decisions:
        reason = _changed(entry, by_id.get(entry.container_id), now.get(entry.container_id), why)
        if reason:
            others[entry.container_id] = reason
        else:
            holding.append(now[entry.container_id])
    return tuple(holding), others


def _changed(
    entry: Entry,
    seen: ContainerTotals | None,
    decision: Decision | None,
    why: Mapping[str, str],
) -> str:
    if seen is None:
        return "there is no such container any more"
    container = seen.container
    if container.created_ns != entry.created_ns:
        return "created at another time than the one planned"
    if container.name != entry.container_name:
        return f"renamed since, to {container.name}"
    if container.state != entry.state:
        return f"it was {entry.state} and is {container.state}"
    if _labels(container) != entry.labels:
        return "its labels are others"
    if seen.rule != entry.rule:
        return f"claimed by {seen.rule or 'no rule'}, not by {entry.rule}"
    if decision is None:
        return why.get(entry.container_id, "its rule does not act on it now")
    if decision.action is not entry.action:
        return f"its rule would {decision.action} it now, not {entry.action}"
    return ""


def _entry(one: Decision, container: Container) -> Entry:
    return Entry(
        one.rank,
        one.action,
        one.rule,
        one.container_id,
        one.container_name,
        one.created_ns,
        str(container.state),
        _labels(container),
        float(one.held_mb),  # as it is read again: 50 is 50.0 there
        float(one.cpu_percent),
    )


def _labels(container: Container) -> str:
    return _digest(sorted(container.labels.items()))


def _id(entries: Sequence[Entry], reclaim: Reclaim | None) -> str:
    return _digest(entries if reclaim is None else [*entries, reclaim])


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:16]
