"""A pass between two ticks as it was stored: whom it chose of, and the pressure before it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.model.container import (
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    HeldBasis,
    Tier,
)
from agent.model.past import PastPass, PastPassContainer, PastState
from agent.policy.conditions import KB_PER_MB, pressure_key
from agent.policy.host_watch import KNOWN_NS
from agent.policy.replay_crowd import MS_NS
from agent.policy.rules import RuleSet

_STATES = {str(one): one for one in ContainerState}


def totals_of(one: PastPass, known: Mapping[ContainerKey, PastState]) -> list[ContainerTotals]:
    """Of each container that the pass chose of, in their order."""
    return [
        ContainerTotals(
            container=_container(row, known.get(ContainerKey(row.engine, row.container_id))),
            tier=Tier.NONE,
            governed=True,
            processes=1,
            held_kb=round(row.held_mb * KB_PER_MB),
            held_basis=HeldBasis.CGROUP2,
            rss_kb=0,
            cache_kb=None,
            cpu_percent=float("nan") if row.cpu_percent is None else row.cpu_percent,
            rule=row.rule,
        )
        for row in one.containers
    ]


def host_since(one: PastPass, rules: RuleSet, not_before_ns: int) -> dict[str, int]:
    """By level of pressure: since when the samples before the pass have it without a break."""
    found = {}
    for rule in rules.rules:
        if rule.when is None or rule.when.pressure is None:
            continue
        bound = rule.when.pressure.memory
        since_ms = None
        for before_ms, _, psi in reversed(one.samples):
            if psi is None or psi <= bound:
                # As the watch has it: the sample after it tells of the time since this one.
                if since_ms is not None and before_ms - since_ms <= KNOWN_NS // MS_NS:
                    since_ms = before_ms
                break
            since_ms = before_ms
        if since_ms is not None:
            since_ns = (one.timestamp_ms - since_ms) * MS_NS
            found[pressure_key(f"{bound:g}")] = max(since_ns, not_before_ns)
    return found


def _container(row: PastPassContainer, known: PastState | None) -> Container:
    return Container(
        id=row.container_id,
        name=row.name,
        image="",
        created_ns=0 if known is None else known.created_ms * MS_NS,
        state=_STATES.get(row.state, ContainerState.UNKNOWN),
        health="" if known is None else known.health,
        engine=row.engine,
    )
