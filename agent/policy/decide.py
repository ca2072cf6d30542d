"""Which containers a rule acts on, and why: the claimed ones, their excess, the order, `keep`.

Pure functions over the values of `model`: the same containers give the same decisions in whatever
order they come, and a pass that was carried out leaves nothing to decide. What is protected, what
no rule claims and what the two witnesses disagree on is never chosen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.config import PolicySettings
from agent.model.container import ContainerKey, ContainerTotals, Tier
from agent.model.removal import Decision, Reason
from agent.policy import original
from agent.policy.conditions import IDLE, KB_PER_MB, HostMoment, idle_level, verdicts
from agent.policy.dependants import needed_by
from agent.policy.governance import protection
from agent.policy.rules import ENDED, Rule, RuleOrder, RuleSet


@dataclass(frozen=True, slots=True)
class Standing:
    """How one claimed container stands before its rule, for decisions and for `why` alike."""

    totals: ContainerTotals
    rule: Rule
    group: int
    """Place of its rule; all built-in rules are one."""
    place: int
    """Place in its rule's order, 0 first."""
    holds: bool | None
    """Whether the rule would act on it if no other acted before it; None where that is unknown."""
    acts: bool
    why: str
    """Why it acts or not."""


def over_limit(running_governed: int, settings: PolicySettings) -> bool:
    """Whether so many running governed containers call for a pass at once."""
    return running_governed > settings.max_containers


def counts_to_limit(rule: Rule | None) -> bool:
    """Whether what this rule claims counts to `max_containers`: where it keeps so many."""
    return rule is not None and rule.keep is not None


def decide(
    totals: Sequence[ContainerTotals],
    disputed: frozenset[ContainerKey],
    settings: PolicySettings,
    decision_id: Callable[[], str],
    now: HostMoment | None = None,
) -> tuple[Decision, ...]:
    """What is done in this pass, rank 1 first. `totals` has each container once.

    One's own rules come first in the file's order, each in its own order; then the built-in set,
    the largest first and those that have ended last. `disputed` are those that a conflict between
    the witnesses names: they are spared, and no other goes in their place. They count as if they
    held the first places, so whoever is chosen would have been chosen whatever they really hold.
    """
    rules = original.rule_set(settings)
    standing = standings(totals, disputed, rules, now or HostMoment())
    return decisions_of(standing, rules, decision_id)


def decisions_of(
    standing: Sequence[Standing], rules: RuleSet, decision_id: Callable[[], str]
) -> tuple[Decision, ...]:
    """A decision for each of them that acts, rank 1 first."""
    acting = sorted((one for one in standing if one.acts), key=lambda one: _rank(one, rules))
    return tuple(
        _decision(one, rank, decision_id(), rules) for rank, one in enumerate(acting, start=1)
    )


def standings(
    totals: Sequence[ContainerTotals],
    disputed: frozenset[ContainerKey],
    rules: RuleSet,
    now: HostMoment,
    spent: frozenset[tuple[str, ContainerKey]] = frozenset(),
    under_way: Collection[ContainerKey] = (),
) -> list[Standing]:
    """Every claimed container and what its rule makes of it at this moment.

    `spent`: by rule and container, where the rule has done all that it does (`Arming.spent`).
    `under_way` are those whom something is being done to: they go first, whatever they hold by
    now, or one that has lost its place meanwhile would be one too many.
    """
    needed = needed_by(one.container for one in totals)
    claimed: dict[tuple[str, str], list[ContainerTotals]] = defaultdict(list)
    by_name = {rule.name: (place, rule) for place, rule in enumerate(rules.rules)}
    for one in totals:
        name = claim_of(one)
        if name in by_name and not protection(one.container):
            # A list is whole for one engine: what another one runs counts to its own `keep`.
            claimed[(name, one.container.engine)].append(one)
    found: list[Standing] = []
    for (name, _), members in claimed.items():
        place, rule = by_name[name]
        group = min(place, len(rules.own))
        spared = {} if rules.is_built_in(rule) or not rule.action.is_destructive else needed
        found += _of_rule(rule, group, members, disputed, now, spared, under_way)
    return _one_for_the_host(found, spent)


def claim_of(one: ContainerTotals) -> str:
    """The name of the rule that claims it, "" where none does.

    A row of the history knows the tier alone, which only the built-in set has.
    """
    if not one.governed or one.rule or one.tier is Tier.NONE:
        return one.rule if one.governed else ""
    if one.container.state in ENDED:
        return original.EXITED
    return original.LOW if one.tier is Tier.LOW else original.HIGH


def _of_rule(
    rule: Rule,
    group: int,
    members: Sequence[ContainerTotals],
    disputed: frozenset[ContainerKey],
    now: HostMoment,
    needed: Mapping[ContainerKey, str],
    under_way: Collection[ContainerKey],
) -> list[Standing]:
    """What one rule makes of what it claims on one engine."""
    running = [one for one in members if one.container.state.is_running]
    held = {one.container.key: _unsure(rule, one, disputed, now, needed) for one in members}
    if rule.keep is None:
        places = len(members)
    else:
        unsure = sum(1 for one in running if held[one.container.key])
        places = max(0, len(running) - rule.keep - unsure)
    found = []

    def order(one: ContainerTotals) -> tuple[object, ...]:
        return (one.container.key not in under_way, *_order(rule, one, now))

    for place, one in enumerate(sorted(members, key=order)):
        key = one.container.key
        acts, why = _acts(rule, one, held[key], now, is_under_way=key in under_way)
        if acts and rule.keep is not None:
            if places > 0:
                places -= 1
                why = f"beyond the {rule.keep} that stay"
            else:
                acts, why = False, f"within the {rule.keep} that stay"
        holds = None if held[key] else acts
        found.append(Standing(one, rule, group, place, holds, acts, why))
    return found


def _acts(
    rule: Rule, one: ContainerTotals, unsure: str, now: HostMoment, *, is_under_way: bool
) -> tuple[bool, str]:
    """Whether the rule would act on it if there were room for nobody."""
    if unsure:
        return False, unsure
    state = one.container.state
    of_ended = rule.when is not None and rule.when.exited is not None
    if not state.is_running and not (of_ended and state in ENDED):
        return False, f"it is {state}, and this rule is for running ones"
    if is_under_way and state.is_running:
        return True, "it is under way"
    for verdict in verdicts(rule, one, now):
        if not verdict.met:
            return False, f"{verdict.condition} is {verdict.value}, not {verdict.threshold}"
    return True, "every condition holds"


def _unsure(
    rule: Rule,
    one: ContainerTotals,
    disputed: frozenset[ContainerKey],
    now: HostMoment,
    needed: Mapping[ContainerKey, str],
) -> str:
    """Why this one is spared and holds a first place, "" where it is known well enough."""
    if one.container.key in disputed:
        return "spared: the two witnesses disagree on it"
    if why := needed.get(one.container.key):
        return f"spared: {why}"
    for verdict in verdicts(rule, one, now):
        if verdict.met is None:
            return f"spared: {verdict.condition} is not known: {verdict.missing}"
    if rule.keep is None or not one.container.state.is_running:
        return ""
    unknown = {
        RuleOrder.HELD: "",
        RuleOrder.CPU: "" if math.isfinite(one.cpu_percent) else "its CPU is not known",
        RuleOrder.IDLE: "" if _idle_is_known(one, now) else "whether it is idle is not known",
    }.get(rule.order, "" if one.container.key in now.started_ns else "its start is not known")
    return f"spared: {unknown}" if unknown else ""


def _one_for_the_host(
    found: Sequence[Standing], spent: frozenset[tuple[str, ContainerKey]]
) -> list[Standing]:
    """A condition of the whole host makes one container act; the next after a fresh sample.

    One that a rule has done with, as by pausing it, and that is there still is no turn of its own.

    Of each rule that only reports, and one of all that do more: a report must not hold up a remedy.
    """
    taken: set[str] = set()
    kept: list[Standing] = []
    for one in sorted(found, key=lambda each: (each.group, each.place)):
        is_spent = (one.rule.name, one.totals.container.key) in spent
        of_host = one.rule.when is not None and one.rule.when.is_of_host
        if one.acts and of_host and not is_spent:
            turn = "" if one.rule.action.is_destructive else one.rule.name
            if turn in taken:
                why = "another acts first; the host is measured again before the next"
                kept.append(replace(one, acts=False, why=why))
                continue
            taken.add(turn)
        kept.append(one)
    return kept


def _rank(one: Standing, rules: RuleSet) -> tuple[object, ...]:
    """Own rules in the file's order; the built-in ones together, those that ended last."""
    if one.group < len(rules.own):
        return (one.group, False, one.place, *_largest(one.totals))
    return (one.group, one.totals.container.state in ENDED, 0, *_largest(one.totals))


def _order(rule: Rule, one: ContainerTotals, now: HostMoment) -> tuple[object, ...]:
    """Sort key of the rule's own order, the first to go first."""
    started_ns = now.started_ns.get(one.container.key, 0)
    first = {
        RuleOrder.HELD: 0.0,
        RuleOrder.CPU: -_cpu(one),
        RuleOrder.OLDEST: float(started_ns),
        RuleOrder.YOUNGEST: -float(started_ns),
        RuleOrder.IDLE: float(now.since.get((one.container.key, IDLE), now.now_ns)),
    }[rule.order]
    return (first, *_largest(one))


def _idle_is_known(one: ContainerTotals, now: HostMoment) -> bool:
    return (one.container.key, IDLE) in now.since or idle_level("0s", one, now).holds is False


def _largest(totals: ContainerTotals) -> tuple[int, float, int, str]:
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


def _reason(totals: ContainerTotals, *, built_in: bool) -> Reason:
    """What has ended is never killed for its removal, whoever's rule it is."""
    if totals.container.state in ENDED:
        return Reason.EXITED
    if not built_in:
        return Reason.RULE
    return Reason.EXCESS_LOW if totals.tier is Tier.LOW else Reason.EXCESS_HIGH


def _decision(one: Standing, rank: int, decision_id: str, rules: RuleSet) -> Decision:
    totals, rule = one.totals, one.rule
    container = totals.container
    of_host = rule.when is not None and rule.when.is_of_host
    return Decision(
        id=decision_id,
        container_id=container.id,
        container_name=container.name,
        image=container.image,
        created_ns=container.created_ns,
        tier=totals.tier,
        rank=rank,
        reason=_reason(totals, built_in=rules.is_built_in(rule)),
        held_mb=totals.held_kb / KB_PER_MB,
        cpu_percent=_cpu(totals),
        action=rule.action,
        rule=rule.name,
        engine=container.engine,
        grace_s=0 if of_host and rule.grace_s is None else rule.grace_s,
    )
