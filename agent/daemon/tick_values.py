"""What a tick gives to others: its report, its counts, what a pass for the host's sake rests on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.model.attribution import AttributionCounts
from agent.model.container import ContainerKey, ContainerTotals, Tier
from agent.model.host import HostFigures, MemoryReading
from agent.model.host_pass import HostPass, PassContainer
from agent.model.removal import Decision, Outcome
from agent.model.state_seen import StateSeen, states_seen
from agent.model.tick import Tick
from agent.policy import conditions, decide, governance
from agent.policy.host_watch import HostWatch

CHANGED = (
    Outcome.REMOVED,
    Outcome.GONE,
    Outcome.STOPPED,
    Outcome.RESTARTED,
    Outcome.PAUSED,
)
"""After these the host is another one than the decision was made on."""


NO_HOST_FIGURES = HostFigures(0.0, 1, 0.0, None, None)


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one tick did, for its line on the terminal and for `agent status`."""

    number: int
    wall_ns: int
    source: str
    processes: int
    mapped: int
    checks: AttributionCounts
    container_count: int | None
    tiers: Mapping[str, int]
    removed: int
    failed: int
    used_kb: int
    total_kb: int
    tick_ms: int
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    stored: bool = True


def running_count(tick: Tick, gone: frozenset[ContainerKey]) -> int | None:
    """Running containers without Grafana that remain; None while the engine does not answer."""
    if not tick.engine_answers:
        return None
    return sum(
        container.state.is_running
        and container.key not in gone
        and not governance.is_grafana(container)
        for container in tick.containers
    )


def by_tier(totals: Sequence[ContainerTotals], gone: frozenset[ContainerKey]) -> dict[str, int]:
    counts = {str(tier): 0 for tier in Tier}
    for one in totals:
        if one.container.state.is_running and one.container.key not in gone:
            counts[one.tier] += 1
    return counts


def rested_on_now(
    tick: Tick,
    acting: Collection[str],
    decisions: Sequence[Decision],
    watch: HostWatch,
    clock: Clock,
) -> HostPass:
    """What a pass between two ticks rests on, before any of it is done: once one is gone, the
    samples are of another host. Of the engines that are `acting`: it chose of no other's."""
    by_container = {one.container: one.id for one in decisions}
    read_ns = tick.sample.snapshot.snapshot_ns
    own = MemoryReading(read_ns, tick.sample.snapshot.memory.available_kb, watch.pressure)
    return HostPass(
        read_ns,
        (*watch.samples, own),
        tuple(
            PassContainer(
                one,
                decide.claim_of(one),
                one.container.key in tick.attribution.disputed,
                by_container.get(one.container.key, ""),
            )
            for one in tick.totals
            if one.container.engine in acting and decide.claim_of(one)
        ),
        states_now(tick, clock),
    )


def states_now(tick: Tick, clock: Clock) -> tuple[StateSeen, ...]:
    """What seldom changes of each container, and decisions rest on."""
    boot_ns = clock.wall_ns() - clock.boot_ns()
    started_ns = conditions.started_ns(tick)
    return states_seen(tick.totals, tick.attribution.disputed, started_ns, boot_ns)
