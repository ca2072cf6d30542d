"""A tick in which nothing was due, and until when others like it decide nothing either. Pure.

A rule that has acted goes on to hold for days: nothing new comes of it before a condition is
another one, or a time is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.model.container import ContainerKey
from agent.policy.conditions import KB_PER_MB, pressure_key
from agent.policy.decide import Standing
from agent.policy.replay_crowd import Crowd
from agent.policy.rules import RuleSet, When, duration_ns

FOREVER_NS = 1 << 62


@dataclass(slots=True)
class Still:
    """What a tick is like, as far as decisions go."""

    crowd: Crowd
    """The very same one: each change makes another."""
    holds: list[list[bool]]
    disputed: frozenset[str] | None
    host: list[tuple[bool, bool | None]]
    """By condition of the whole host, available memory and pressure."""
    until_ns: int = field(default=0, compare=False)


def of_host(
    rules: RuleSet, available_mb: float, psi_memory: float | None
) -> list[tuple[bool, bool | None]]:
    """Each condition of the whole host, as it is now."""
    available = round(available_mb * KB_PER_MB) / KB_PER_MB
    return [
        (
            when.available_mb is not None and available < when.available_mb,
            None
            if psi_memory is None or when.pressure is None
            else psi_memory > when.pressure.memory,
        )
        for when in (one.when for one in rules.rules)
        if when is not None and when.is_of_host
    ]


def may_stand_still(standings: Iterable[Standing]) -> bool:
    """Whether those that act would in every tick like this one. Beyond a `keep`, and where one acts
    for the host, figures choose."""
    return not any(
        one.acts and (one.rule.keep is not None or (one.rule.when and one.rule.when.is_of_host))
        for one in standings
    )


def horizon_ns(
    crowd: Crowd,
    since: Mapping[tuple[ContainerKey, str], int],
    fired: Mapping[tuple[str, ContainerKey], int],
    now_ns: int,
) -> int:
    """The next moment at which time alone makes a condition or a step due."""
    found = [FOREVER_NS]
    for group in crowd.groups:
        rule, when = group.rule, group.rule.when
        lasting = _lasting(when) if when is not None else {}
        age_ns = duration_ns(when.age) if when is not None and when.age is not None else None
        for seat in group.seats:
            found += [
                since[(seat.key, level)] + lasting_ns
                for level, lasting_ns in lasting.items()
                if (seat.key, level) in since
            ]
            if age_ns is not None:
                found.append(seat.life.started_ns + age_ns)
            first_ns = fired.get((rule.name, seat.key))
            if first_ns is not None:
                found += [first_ns + duration_ns(step.after) for step in rule.step]
    return min(one for one in found if one > now_ns)


def _lasting(when: When) -> dict[str, int]:
    """By level, how long it must last."""
    found = {}
    if when.exited is not None:
        found["exited"] = duration_ns(when.exited)
    if when.unhealthy is not None:
        found["unhealthy"] = duration_ns(when.unhealthy)
    if when.cpu is not None:
        found[f"cpu>{when.cpu.above:g}"] = duration_ns(when.cpu.lasting)
    if when.pressure is not None:
        level = pressure_key(f"{when.pressure.memory:g}")
        found[level] = duration_ns(when.pressure.lasting)
    return found
