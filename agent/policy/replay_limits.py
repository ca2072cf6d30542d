"""What of a rule the history cannot tell, so that a replay of it never finds it met. Pure."""

from __future__ import annotations

from agent.model.removal import BUILT_IN_NAMES
from agent.policy.rules import RuleSet


def limits(rules: RuleSet, *, as_claimed: bool, states_known: bool = False) -> tuple[str, ...]:
    """What of each rule the history cannot tell, in sentences. `states_known`: states, starts and
    health are stored for the whole span."""
    found = []
    for rule in rules.rules:
        if rule.name in BUILT_IN_NAMES:
            continue
        when, match = rule.when, rule.match
        keys = []
        if when and when.idle is not None:
            keys.append("idle (no I/O and no sent bytes are stored)")
        if when and when.unhealthy is not None and not states_known:
            keys.append("unhealthy (no health is stored)")
        if not as_claimed and match.label:
            keys.append("label (no labels are stored)")
        if not as_claimed and match.project:
            keys.append("project (no labels are stored)")
        if keys:
            found.append(f'rule "{rule.name}": unknown, so never met: {", ".join(keys)}.')
        by_age = (when and when.age is not None) or rule.order in ("oldest", "youngest")
        if by_age and not states_known:
            found.append(
                f'rule "{rule.name}": a container counts as started when a tick first saw it run; '
                "what it ran before, and a restart between two ticks, is not stored."
            )
        if when and when.pressure is not None and not as_claimed:
            found.append(
                f'rule "{rule.name}": pressure is as it was, whatever would have gone before.'
            )
    if not as_claimed:
        found.append(
            "A label that protects is not stored: what no rule claimed then is marked as unsure."
        )
    return tuple(found)
