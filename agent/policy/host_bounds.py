"""The bounds that rules have of the host's memory, and a decision's moment as the watch sees it.

Pure: between the rule language and `policy.host_watch`, which knows nothing of rules.
"""

from __future__ import annotations

import math
from dataclasses import replace

from agent.policy.conditions import KB_PER_MB, HostMoment, pressure_key
from agent.policy.host_watch import HostBounds, HostNow, PressureBound
from agent.policy.rules import Rule, RuleSet, duration_ns


def bounds_of(rules: RuleSet) -> HostBounds:
    """All of them."""
    wanted = [rule.when for rule in rules.rules if rule.when is not None]
    return HostBounds(
        available_kb=frozenset(
            math.ceil(one.available_mb * KB_PER_MB)
            for one in wanted
            if one.available_mb is not None
        ),
        pressure=frozenset(
            PressureBound(one.pressure.memory, duration_ns(one.pressure.lasting))
            for one in wanted
            if one.pressure is not None
        ),
    )


def is_of_host(rule: Rule | None) -> bool:
    """Whether it makes one container act for the whole host's sake."""
    return rule is not None and rule.when is not None and rule.when.is_of_host


def as_seen(moment: HostMoment, host: HostNow) -> HostMoment:
    """The moment with what the watch knows of the host: nothing while figures are not fresh."""
    if host.missing:
        return replace(moment, available_kb=None, pressure=None, host_missing=host.missing)
    return replace(
        moment,
        pressure=host.pressure,
        since={
            (container, level): max(since_ns, host.not_before_ns)
            if level.startswith(pressure_key(""))
            else since_ns
            for (container, level), since_ns in moment.since.items()
        },
        host_since={
            pressure_key(f"{percent:g}"): since_ns
            for percent, since_ns in (host.since_ns or {}).items()
        },
    )
