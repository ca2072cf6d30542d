"""The policy of 1.0.0, frozen: what the built-in rules are held against. Only its
imports differ, and the figures beside a decision, which nobody read, are left out.

Which containers the agent governs, and which of them go when there are too many.

Pure functions over the values of `model`: the same containers give the same decisions in whatever
order they come, and a pass that was carried out leaves nothing to decide. What is protected, what
is not governed and what the two witnesses disagree on is never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.config import PolicySettings, Scope
from agent.model.container import Container, ContainerState, ContainerTotals, Tier
from agent.model.removal import Decision, Reason

NAME_PREFIX = "so1_contenedor_"
"""Names of generated containers, as the original called them."""
INSTALLATION_LABEL = "so1.installation"
PROTECT_LABEL = "so1.protect"
COMPOSE_PROJECT_LABEL = "com.docker.compose.project"
COMPOSE_PROJECT = "so1-grafana"
LOW_IMAGE = "alpine"
KB_PER_MB = 1024

# One whose removal failed is listed as `removing` for good (Docker 20.10; inspect says `dead`).
_ENDED = (ContainerState.EXITED, ContainerState.DEAD, ContainerState.REMOVING)


@dataclass(frozen=True, slots=True)
class Governance:
    """Whether the policy may remove a container, and in which tier it competes."""

    tier: Tier
    """NONE for every container that is not governed."""
    governed: bool
    protected: str | None
    """Why it is never touched, None where nothing protects it."""


def classify(container: Container, installation: str, scope: Scope, own_id: str = "") -> Governance:
    """How the policy sees one container.

    `installation` is this installation's id, `own_id` the full id of the container that the agent
    itself runs in ("" on a host). Protection wins over everything, `Scope.ALL` included.
    """
    protected = protection(container, own_id)
    governed = protected is None and (
        scope is Scope.ALL
        or container.name.startswith(NAME_PREFIX)
        or is_own(container, installation)
    )
    return Governance(_tier(container) if governed else Tier.NONE, governed, protected)


def protection(container: Container, own_id: str = "") -> str | None:
    """Why this container is never touched, or None.

    A label protects wherever it comes from, the container or its image: an inherited one can only
    spare a container, never cost one.
    """
    if own_id and container.id == own_id:
        return "the agent runs in it"
    if container.labels.get(PROTECT_LABEL, "").strip().casefold() == "true":
        return f"label {PROTECT_LABEL}=true"
    if container.labels.get(COMPOSE_PROJECT_LABEL) == COMPOSE_PROJECT:
        return f"compose project {COMPOSE_PROJECT}"
    return "Grafana" if is_grafana(container) else None


def is_grafana(container: Container) -> bool:
    """Whether it is a Grafana, ours or anybody's: never removed, never counted."""
    return container.labels.get(COMPOSE_PROJECT_LABEL) == COMPOSE_PROJECT or any(
        "grafana" in text.casefold() for text in (container.name, container.image)
    )


def is_own(container: Container, installation: str) -> bool:
    """Whether the container itself, not its image, carries this installation's label."""
    return bool(installation) and container.own_installation == installation


def still_stands(decision: Decision, now: Container) -> bool:
    """Whether a decision may be carried out on the container as it is this moment.

    Not on one that was renamed since: its name may have been what made it governed, and one that is
    still to go is decided on again at the next tick.
    """
    return now.name in ("", decision.container_name) and protection(now) is None


def over_limit(running_governed: int, settings: PolicySettings) -> bool:
    """Whether so many running governed containers call for a pass at once."""
    return running_governed > settings.max_containers


def decide(
    totals: Sequence[ContainerTotals],
    doubtful: frozenset[str],
    settings: PolicySettings,
    decision_id: Callable[[], str],
) -> tuple[Decision, ...]:
    """Which containers go in this pass, rank 1 first. `totals` has each container once.

    Of the running governed containers of a tier the hungriest beyond the settings' floor go; then
    the governed ones that have ended. `doubtful` are full ids that a conflict between the witnesses
    names: they are spared, and no other goes in their place. They count as if they were the
    hungriest, so whoever is chosen would have been chosen whatever the doubtful ones really hold.
    """
    governed = [one for one in totals if _may_go(one)]
    running = [one for one in governed if one.container.state.is_running]
    excess = [
        *_excess(running, Tier.LOW, settings.keep_low, doubtful),
        *_excess(running, Tier.HIGH, settings.keep_high, doubtful),
    ]
    ended = [
        one
        for one in governed
        if one.container.state in _ENDED and one.container.id not in doubtful
    ]
    chosen = sorted(excess, key=_hunger) + sorted(ended, key=_hunger)
    return tuple(_decision(one, rank, decision_id()) for rank, one in enumerate(chosen, start=1))


def _tier(container: Container) -> Tier:
    return Tier.LOW if LOW_IMAGE in container.image else Tier.HIGH


def _may_go(totals: ContainerTotals) -> bool:
    """Governed as classified. Protection is looked at again: a slip here costs a container."""
    return totals.governed and totals.tier is not Tier.NONE and not protection(totals.container)


def _excess(
    running: Sequence[ContainerTotals], tier: Tier, keep: int, doubtful: frozenset[str]
) -> list[ContainerTotals]:
    """The hungriest of `tier` beyond `keep`, with the doubtful ones holding the first places."""
    of_tier = [one for one in running if one.tier is tier]
    sure = sorted((one for one in of_tier if one.container.id not in doubtful), key=_hunger)
    places = len(of_tier) - keep - (len(of_tier) - len(sure))
    return sure[: max(0, places)]


def _hunger(totals: ContainerTotals) -> tuple[int, float, int, str]:
    """Sort key, the first to go first: most held MB, then most CPU, then the youngest.

    Whole megabytes, so that two containers a few pages apart are told apart by their CPU and not
    by noise. The id ends every tie.
    """
    return (
        -_whole_mb(totals.held_kb),
        -_cpu(totals),
        -totals.container.created_ns,
        totals.container.id,
    )


def _whole_mb(held_kb: int) -> int:
    return (held_kb + KB_PER_MB // 2) // KB_PER_MB


def _cpu(totals: ContainerTotals) -> float:
    """A figure that is no number would make the order depend on the input's."""
    return totals.cpu_percent if math.isfinite(totals.cpu_percent) else 0.0


def _reason(totals: ContainerTotals) -> Reason:
    if totals.container.state in _ENDED:
        return Reason.EXITED
    return Reason.EXCESS_LOW if totals.tier is Tier.LOW else Reason.EXCESS_HIGH


def _decision(totals: ContainerTotals, rank: int, decision_id: str) -> Decision:
    container = totals.container
    return Decision(
        id=decision_id,
        container_id=container.id,
        container_name=container.name,
        image=container.image,
        created_ns=container.created_ns,
        tier=totals.tier,
        rank=rank,
        reason=_reason(totals),
        held_mb=totals.held_kb / KB_PER_MB,
        cpu_percent=_cpu(totals),
    )
