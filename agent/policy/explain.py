"""Why a container is acted on or not: every rule with each condition beside its threshold. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.model.container import ContainerTotals
from agent.policy.conditions import HostMoment, Verdict, verdicts
from agent.policy.decide import Standing
from agent.policy.governance import is_managed
from agent.policy.match import failing
from agent.policy.rules import RuleSet


@dataclass(frozen=True, slots=True)
class RuleView:
    """One rule held against one container."""

    rule: str
    action: str
    claims: bool
    """Whether it is the rule that claims it."""
    mismatch: str
    """The key of `match` that does not hold, "" where all do."""
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the rules make of one container."""

    container_id: str
    container_name: str
    protected: str
    """Why it is never touched, "" where nothing protects it."""
    rules: tuple[RuleView, ...]
    acts: bool
    why: str


def explain(
    one: ContainerTotals,
    protected: str | None,
    rules: RuleSet,
    standings: Sequence[Standing],
    now: HostMoment,
    installation: str,
) -> Explanation:
    """`one` as it is claimed, among the `standings` of all."""
    managed = is_managed(one.container, installation)
    views = tuple(
        RuleView(
            rule.name,
            str(rule.action),
            rule.name == one.rule,
            failing(rule, one.container, managed=managed),
            verdicts(rule, one, now),
        )
        for rule in rules.rules
    )
    mine = next((s for s in standings if s.totals.container.id == one.container.id), None)
    if protected:
        why = f"protected: {protected}"
    else:
        why = "no rule claims it" if mine is None else f'rule "{mine.rule.name}": {mine.why}'
    return Explanation(
        one.container.id,
        one.container.name,
        protected or "",
        views,
        mine is not None and mine.acts,
        why,
    )
