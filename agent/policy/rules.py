"""The rule language: what one rule of `[[policy.rule]]` says, as values checked for their form.

A rule has a `match` (which containers it claims), a `when` (what must be measured of one before the
rule acts) and an action. What several rules mean together is checked by `policy.meaning`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

import msgspec

from agent.model.container import ContainerState
from agent.model.removal import Action

SECOND_NS = 10**9
_UNITS_NS = {
    "ms": 10**6,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
    "d": 86400 * SECOND_NS,
}
_PART = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
MOST_PATTERNS = 256
Pattern = Text | Annotated[tuple[Text, ...], msgspec.Meta(max_length=MOST_PATTERNS)]
"""One glob, or a list of which any may match."""
State = ContainerState | tuple[ContainerState, ...]
NAME_FORM = r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z"
DURATION_FORM = r"^([0-9]{1,6}(ms|s|m|h|d))+\Z"
Name = Annotated[str, msgspec.Meta(pattern=NAME_FORM, max_length=64)]
Duration = Annotated[str, msgspec.Meta(pattern=DURATION_FORM, max_length=32)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
ENDED = (ContainerState.EXITED, ContainerState.DEAD, ContainerState.REMOVING)
"""One whose removal failed is listed as `removing` for good (Docker 20.10; inspect: `dead`)."""
STATE_GROUPS = (tuple(one for one in ContainerState if one.is_running), ENDED)


class Rules(StrEnum):
    """Whether the built-in set comes after one's own rules."""

    ORIGINAL = "original"
    NONE = "none"


class RuleOrder(StrEnum):
    """Who goes first beyond `keep`."""

    HELD = "held"
    CPU = "cpu"
    OLDEST = "oldest"
    YOUNGEST = "youngest"
    IDLE = "idle"


class _RulePart(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    pass


class Match(_RulePart, frozen=True):
    """Which containers a rule claims: all keys that are there must hold."""

    image: Pattern = ()
    """References, compared by their parts as Docker normalises them."""
    image_contains: Pattern = ()
    """Part of the reference as created, as the original's policy has it."""
    label: Pattern = ()
    """`key=value`, or `key` alone for any value."""
    name: Pattern = ()
    project: Pattern = ()
    """The compose project."""
    state: State = ()
    engine: Pattern = ()
    managed: bool = False
    """Only what is named `so1_contenedor_*` or carries this installation's label itself."""


class CpuAbove(_RulePart, frozen=True):
    above: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
    """Percent of one CPU."""
    lasting: Duration = msgspec.field(name="for", default="0s")


class Pressure(_RulePart, frozen=True):
    memory: Percent
    """`some avg10` of the host's memory pressure."""
    lasting: Duration = msgspec.field(name="for", default="0s")


class When(_RulePart, frozen=True):
    """What must be measured of a container before the rule acts: all keys that are there."""

    age: Duration | None = None
    """Since its last start."""
    idle: Duration | None = None
    held_mb: Annotated[float, msgspec.Meta(ge=0, le=1 << 30)] | None = None
    exited: Duration | None = None
    unhealthy: Duration | None = None
    cpu: CpuAbove | None = None
    pressure: Pressure | None = None
    available_mb: Annotated[float, msgspec.Meta(gt=0, le=1 << 30)] | None = None
    """Met while the host has less available."""

    @property
    def is_of_host(self) -> bool:
        """Whether a condition holds for the whole host: then one container acts at a time."""
        return self.pressure is not None or self.available_mb is not None


class Step(_RulePart, frozen=True):
    """A later stage: `after` counts from the rule's first action, while `when` stays true."""

    after: Duration
    action: Action


class Rule(_RulePart, frozen=True):
    """One rule."""

    name: Name
    match: Match
    when: When | None = None
    keep: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    order: RuleOrder = RuleOrder.HELD
    action: Action = Action.NOTIFY
    grace_s: Annotated[int, msgspec.Meta(ge=0, le=60)] | None = None
    step: tuple[Step, ...] = ()

    @property
    def is_destructive(self) -> bool:
        """Whether any stage of it touches a container."""
        return any(one.is_destructive for one in self.actions)

    @property
    def actions(self) -> tuple[Action, ...]:
        return (self.action, *(one.action for one in self.step))


@lru_cache(maxsize=1024)
def duration_ns(text: str) -> int:
    """`90s`, `1h30m` in nanoseconds. Its form was checked."""
    return sum(int(number) * _UNITS_NS[unit] for number, unit in _PART.findall(text))


def patterns(value: Pattern) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def states(value: State) -> tuple[ContainerState, ...]:
    return (value,) if isinstance(value, ContainerState) else tuple(value)


class RuleSet(msgspec.Struct, frozen=True):
    """All rules in the order in which they claim: one's own, then the built-in ones."""

    own: tuple[Rule, ...] = ()
    built_in: tuple[Rule, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.own + self.built_in

    def named(self, name: str) -> Rule | None:
        return next((one for one in self.rules if one.name == name), None)

    def is_built_in(self, rule: Rule) -> bool:
        return rule in self.built_in


def needs_labels(rules: Sequence[Rule]) -> bool:
    """Whether a rule has to know which labels a container itself carries."""
    return any(one.is_destructive and (one.match.label or one.match.project) for one in rules)
