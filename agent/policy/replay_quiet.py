"""Whether a tick of the past can be passed over: no rule could act then, or none waits. Pure.

Most ticks are so, and 30 days have 130,000 of them. The test looks at what each rule's containers
are together and errs on one side alone: a tick that is passed over would have decided nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.policy.rules import Rule, duration_ns

_ROUNDING = 0.01
"""MB: figures of the history are rounded."""


@dataclass(slots=True)
class Together:
    """What a rule claims on one engine, as a whole."""

    running: int = 0
    others: int = 0
    held_mb: float = 0.0
    """Of the largest, as the next one; where the rule asks for it."""
    cpu_percent: float = 0.0

    def count(self, runs: bool) -> None:
        if runs:
            self.running += 1
        else:
            self.others += 1


def waits(rule: Rule, group: Together, psi_memory: float | None) -> bool:
    """Whether a condition that has to last may hold now."""
    when = rule.when
    if when is None:
        return False
    return (
        (
            when.cpu is not None
            and duration_ns(when.cpu.lasting) > 0
            and group.cpu_percent > when.cpu.above
        )
        or (when.exited is not None and duration_ns(when.exited) > 0 and group.others > 0)
        or (when.unhealthy is not None and duration_ns(when.unhealthy) > 0 and group.running > 0)
        or (
            when.pressure is not None
            and duration_ns(when.pressure.lasting) > 0
            and psi_memory is not None
            and psi_memory > when.pressure.memory
        )
    )


def may_act(rule: Rule, group: Together, available_mb: float, psi_memory: float | None) -> bool:
    """Whether the rule could act on one of them, however long its conditions have held."""
    if rule.keep is not None and group.running <= rule.keep:
        return False
    when = rule.when
    if when is None:
        return group.running > 0
    if when.exited is None and not group.running:
        return False
    return not (
        when.idle is not None
        or (when.held_mb is not None and group.held_mb < when.held_mb - _ROUNDING)
        or (when.available_mb is not None and available_mb > when.available_mb + _ROUNDING)
        or (when.cpu is not None and group.cpu_percent <= when.cpu.above)
        or (when.exited is not None and not group.others)
        or (
            when.pressure is not None and (psi_memory is None or psi_memory <= when.pressure.memory)
        )
    )


def times_cpu_alone(rule: Rule) -> bool:
    """Whether nothing else of the rule has to last for a time."""
    when = rule.when
    return when is None or (
        when.idle is None
        and when.unhealthy is None
        and (when.exited is None or not duration_ns(when.exited))
        and (when.pressure is None or not duration_ns(when.pressure.lasting))
    )
