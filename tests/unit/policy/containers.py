"""Containers as the policy sees them, and a decision on them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from agent.config import PolicySettings
from agent.model.container import (
    DOCKER,
    Container,
    ContainerKey,
    ContainerState,
    ContainerTotals,
    HeldBasis,
    Tier,
)
from agent.policy import decide as policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.model.removal import Decision

OURS = "0123456789abcdef" * 2

NOBODY: frozenset[str] = frozenset()

DEFAULTS = PolicySettings()


def container(
    number: int = 1,
    *,
    name: str | None = None,
    image: str = "alpine:latest",
    state: ContainerState = ContainerState.RUNNING,
    created_ns: int = 0,
    labels: dict[str, str] | None = None,
    own_installation: str = "",
) -> Container:
    return Container(
        id=f"{number:064x}",
        name=f"so1_contenedor_{number}" if name is None else name,
        image=image,
        created_ns=created_ns,
        state=state,
        labels=labels or {},
        own_installation=own_installation,
    )


def totals(
    one: Container,
    *,
    held_mb: float = 1,
    cpu: float = 0,
    tier: Tier = Tier.LOW,
    governed: bool = True,
) -> ContainerTotals:
    return ContainerTotals(
        container=one,
        tier=tier,
        governed=governed,
        processes=1,
        held_kb=int(held_mb * 1024),
        held_basis=HeldBasis.CGROUP2,
        rss_kb=0,
        cache_kb=0,
        cpu_percent=cpu,
    )


def ids_in_turn() -> Callable[[], str]:
    counter = itertools.count(1)
    return lambda: f"d{next(counter)}"


def decide(
    all_of_them: Sequence[ContainerTotals],
    disputed: frozenset[str] = NOBODY,
    settings: PolicySettings = DEFAULTS,
) -> tuple[Decision, ...]:
    keys = frozenset(ContainerKey(DOCKER, one) for one in disputed)
    return policy.decide(all_of_them, keys, settings, ids_in_turn())


def names(decisions: Sequence[Decision]) -> list[str]:
    return [one.container_name.removeprefix("so1_contenedor_") for one in decisions]
