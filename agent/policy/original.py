"""The original's policy written as rules, and all rules that a configuration comes to. Pure.

Two tiers by one word in the image's name, the largest beyond a floor go, and those that have ended.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from agent.config import PolicySettings, Scope
from agent.model.removal import BUILT_IN_NAMES, Action
from agent.policy.rules import ENDED, Match, Rule, RuleOrder, Rules, RuleSet, When

LOW_IMAGE = "alpine"
EXITED, LOW, HIGH = BUILT_IN_NAMES


class RulesInForce(NamedTuple):
    """What decisions are made by, from a moment on."""

    timestamp_ms: int
    """Wall clock."""
    settings: PolicySettings


@lru_cache(maxsize=64)
def rule_set(settings: PolicySettings) -> RuleSet:
    """One's own rules, then the built-in set unless `rules = "none"`."""
    if settings.rules is Rules.NONE:
        return RuleSet(settings.rule)
    managed = reach(settings) is Scope.MANAGED
    return RuleSet(settings.rule, built_in(settings.keep_low, settings.keep_high, managed=managed))


def reach(settings: PolicySettings) -> Scope:
    """How far the built-in set reaches.

    Beside rules of one's own it leaves `managed` only where `rules = "original"` and
    `scope = "all"` are both written: one must not be read to imply the other.
    """
    if settings.rule and settings.rules is not Rules.ORIGINAL:
        return Scope.MANAGED
    return settings.scope


def built_in(keep_low: int, keep_high: int, *, managed: bool) -> tuple[Rule, ...]:
    """`managed`: only for this installation's containers; else for every unprotected one."""

    def match(**more: object) -> Match:
        everyone: dict[str, object] = {"managed": True} if managed else {"name": "*"}
        return Match(**everyone, **more)  # type: ignore[arg-type]

    return (
        Rule(name=EXITED, match=match(state=ENDED), when=When(exited="0s"), action=Action.REMOVE),
        Rule(
            name=LOW,
            match=match(image_contains=LOW_IMAGE),
            keep=keep_low,
            order=RuleOrder.HELD,
            action=Action.REMOVE,
        ),
        Rule(name=HIGH, match=match(), keep=keep_high, order=RuleOrder.HELD, action=Action.REMOVE),
    )
