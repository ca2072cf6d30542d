"""Which containers the agent governs, and which are never touched: the one place that says so.

A label is the workload's word: one that is inherited from an image may spare a container, never
bring it under the policy. Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from agent.config import Scope
from agent.engine_api import ownership
from agent.model.container import Container, Governance, Tier
from agent.model.removal import Decision
from agent.policy import original
from agent.policy.match import claiming
from agent.policy.rules import RuleSet

NAME_PREFIX = "so1_contenedor_"
"""Names of generated containers, as the original called them."""
PROTECT_LABEL = "so1.protect"
PROTECT_YES = frozenset({"", "1", "true", "yes", "on", "y", "t"})
"""A bare label (`--label so1.protect`) has the value ""."""
PROTECT_NO = frozenset({"0", "false", "no", "off", "n", "f"})


def classify(
    container: Container, installation: str, scope: Scope, own_ids: Collection[str] = ()
) -> Governance:
    """How the policy sees one container.

    `installation` is this installation's id, `own_ids` the full ids that the container which the
    agent itself runs in may have (none on a host). Protection wins over everything, `Scope.ALL`
    included.
    """
    built_in = original.built_in(0, 0, managed=scope is Scope.MANAGED)
    return claim(container, RuleSet((), built_in), installation, own_ids)


def claim(
    container: Container, rules: RuleSet, installation: str, own_ids: Collection[str] = ()
) -> Governance:
    """Which of the rules claims one container. Protection wins over every rule.

    A tier has only what the built-in set claims: the tiers are its own.
    """
    protected = protection(container, own_ids)
    if protected is not None:
        return Governance(Tier.NONE, governed=False, protected=protected)
    rule = claiming(rules.rules, container, managed=is_managed(container, installation))
    if rule is None:
        return Governance(Tier.NONE, governed=False, protected=None)
    tier = _tier(container) if rules.is_built_in(rule) else Tier.NONE
    return Governance(tier, governed=True, protected=None, rule=rule.name)


def is_managed(container: Container, installation: str) -> bool:
    """Whether it was generated, by its name, or carries this installation's label itself."""
    return container.name.startswith(NAME_PREFIX) or is_own(container, installation)


def protection(container: Container, own_ids: Collection[str] = ()) -> str | None:
    """Why this container is never touched, or None.

    A label protects wherever it comes from, the container or its image: an inherited one can only
    spare a container, never cost one. So does one whose value says neither yes nor no
    (`odd_protection`): to spare one container too many costs less than to remove it.
    """
    if container.id in own_ids:
        return "the agent runs in it"
    if container.observed_only:
        return container.observed_only
    protect = _protect_value(container)
    if protect is not None and protect not in PROTECT_NO:
        shown = f"={protect}" if protect in PROTECT_YES and protect else ""
        return f"label {PROTECT_LABEL}{shown}"
    if ownership.is_our_grafana(container.labels):
        return f"compose project {ownership.GRAFANA_PROJECT}"
    return "Grafana" if is_grafana(container) else None


def odd_protection(container: Container) -> str | None:
    """The value of a protecting label that says neither yes nor no, None where there is none."""
    protect = _protect_value(container)
    if protect is None or protect in PROTECT_YES or protect in PROTECT_NO:
        return None
    return container.labels[PROTECT_LABEL]


def _protect_value(container: Container) -> str | None:
    value = container.labels.get(PROTECT_LABEL)
    return None if value is None else value.strip().casefold()


def is_grafana(container: Container) -> bool:
    """Whether it is a Grafana, ours or anybody's: never removed, never counted."""
    return ownership.is_our_grafana(container.labels) or any(
        "grafana" in text.casefold() for text in (container.name, container.image)
    )


def is_own(container: Container, installation: str) -> bool:
    """Whether the container itself, not its image, carries this installation's label."""
    return bool(installation) and container.own_installation == installation


def still_stands(decision: Decision, now: Container, own_ids: Collection[str] = ()) -> bool:
    """Whether a decision may be carried out on the container as it is this moment.

    Not on one that was renamed since: its name may have been what made it governed, and one that is
    still to go is decided on again at the next tick.
    """
    return now.name in ("", decision.container_name) and protection(now, own_ids) is None


def _tier(container: Container) -> Tier:
    return Tier.LOW if original.LOW_IMAGE in container.image else Tier.HIGH
