"""Which containers the agent governs, and which of them go when there are too many.

Pure functions over the values of `model`: the same containers give the same decisions in whatever
order they come, and a pass that was carried out leaves nothing to decide. What is protected, what
is not governed and what the two witnesses disagree on is never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from agent.config import PolicySettings
from agent.model.container import ContainerKey, ContainerState, ContainerTotals, Tier
from agent.model.removal import Decision, Reason
from agent.policy.governance import protection

KB_PER_MB = 1024

# One whose removal failed is listed as `removing` for good (Docker 20.10; inspect says `dead`).
_ENDED = (ContainerState.EXITED, ContainerState.DEAD, ContainerState.REMOVING)


def over_limit(running_governed: int, settings: PolicySettings) -> bool:
    """Whether so many running governed containers call for a pass at once."""
    return running_governed > settings.max_containers


def decide(
    totals: Sequence[ContainerTotals],
    disputed: frozenset[ContainerKey],
    settings: PolicySettings,
    decision_id: Callable[[], str],
) -> tuple[Decision, ...]:
    """Which containers go in this pass, rank 1 first. `totals` has each container once.

    Of the running governed containers of a tier the largest beyond the settings' floor go; then
    the governed ones that have ended. `disputed` are those that a conflict between the witnesses
    names: they are spared, and no other goes in their place. They count as if they were the
    largest, so whoever is chosen would have been chosen whatever the disputed ones really hold.
    """
    governed = [one for one in totals if _may_go(one)]
    running = [one for one in governed if one.container.state.is_running]
    excess = [
        *_excess(running, Tier.LOW, settings.keep_low, disputed),
        *_excess(running, Tier.HIGH, settings.keep_high, disputed),
    ]
    ended = [
        one
        for one in governed
        if one.container.state in _ENDED and one.container.key not in disputed
    ]
    chosen = sorted(excess, key=_removal_priority) + sorted(ended, key=_removal_priority)
    return tuple(_decision(one, rank, decision_id()) for rank, one in enumerate(chosen, start=1))


def _may_go(totals: ContainerTotals) -> bool:
    """Governed as classified. Protection is looked at again: a slip here costs a container."""
    return totals.governed and totals.tier is not Tier.NONE and not protection(totals.container)


def _excess(
    running: Sequence[ContainerTotals], tier: Tier, keep: int, disputed: frozenset[ContainerKey]
) -> list[ContainerTotals]:
    """The largest of `tier` beyond `keep`, with the disputed ones holding the first places."""
    of_tier = [one for one in running if one.tier is tier]
    sure = sorted(
        (one for one in of_tier if one.container.key not in disputed), key=_removal_priority
    )
    places = len(of_tier) - keep - (len(of_tier) - len(sure))
    return sure[: max(0, places)]


def _removal_priority(totals: ContainerTotals) -> tuple[int, float, int, str]:
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
        engine=container.engine,
    )
