"""How rules look on a terminal: as they would be written in `agent.toml`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agent.model.removal import Decision
from agent.policy.conditions import Verdict
from agent.policy.explain import Explanation
from agent.policy.rules import Rule, RuleSet
from agent.util.terminal import printable


def rules_text(rules: RuleSet) -> str:
    """All rules in the order in which they claim."""
    if not rules.rules:
        return "No rule: nothing is done to any container."
    parts = ["\n".join(_rule(one)) for one in rules.own]
    if rules.built_in:
        parts.append("# The built-in set:")
        parts += ["\n".join(_rule(one)) for one in rules.built_in]
    return "\n\n".join(parts)


def rules_value(rules: RuleSet) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {**msgspec.to_builtins(one), "action": str(one.action), "built_in": rules.is_built_in(one)}
        for one in rules.rules
    ]


def explanation_text(one: Explanation) -> str:
    """Every rule, each condition's value beside its threshold, and what comes of it."""
    lines = [f"{printable(one.container_name)} ({one.container_id[:12]}): {printable(one.why)}"]
    for rule in one.rules:
        claims = "claims it" if rule.claims else "does not claim it"
        if rule.mismatch:
            claims = f"does not match: {rule.mismatch}"
        elif not rule.claims:
            claims += ": protected, or a rule before it does"
        lines.append(f'  rule "{printable(rule.rule)}" ({rule.action}) {printable(claims)}')
        lines += [f"    {printable(_verdict(verdict))}" for verdict in rule.verdicts]
    return "\n".join(lines)


def _verdict(one: Verdict) -> str:
    if one.met is None:
        return f"{one.condition}: {one.threshold}: unknown, so not met ({one.missing})"
    return f"{one.condition}: {one.value}; {one.threshold}: {'met' if one.met else 'not met'}"


def plan_text(decisions: Sequence[Decision]) -> str:
    """What would be done now, the first first."""
    if not decisions:
        return "Nothing would be done."
    return "\n".join(
        f"{one.rank} {one.action} {printable(one.container_name)} ({one.container_id[:12]}): "
        f'rule "{printable(one.rule)}", {one.held_mb:.1f} MB held, {one.cpu_percent:.1f} % CPU'
        for one in decisions
    )


def _rule(rule: Rule) -> Iterator[str]:
    yield "[[policy.rule]]"
    values: dict[str, Any] = {**msgspec.to_builtins(rule), "action": str(rule.action)}
    for key, value in values.items():
        yield f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    # A JSON string of printable text is a basic string of TOML.
    return (
        json.dumps(printable(value), ensure_ascii=False) if isinstance(value, str) else f"{value}"
    )
