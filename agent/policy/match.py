"""Which rule claims a container: the first one of which every key of `match` holds. Pure.

A label is the workload's word. One that a container has from its image can bring it under a rule
that only reports, and so spare it; never under one that touches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from agent.engine_api.ownership import COMPOSE_PROJECT_LABEL
from agent.model.container import Container
from agent.policy import image
from agent.policy.rules import Match, Rule, patterns, states


def claiming(rules: Sequence[Rule], container: Container, *, managed: bool) -> Rule | None:
    """The rule that claims it, None where none does. `managed`: it is this installation's."""
    return next((one for one in rules if not failing(one, container, managed=managed)), None)


def failing(rule: Rule, container: Container, *, managed: bool) -> str:
    """The first key of `match` that does not hold, with what it found; "" where all hold."""
    match = rule.match
    labels = container.own_labels if rule.is_destructive else container.labels
    tests = (
        ("managed", not match.managed or managed, "no"),
        ("engine", _any(match.engine, container.engine), container.engine),
        (
            "state",
            not match.state or container.state in states(match.state),
            str(container.state),
        ),
        ("name", _any(match.name, container.name), container.name),
        ("image", _image(match, container), container.image),
        (
            "image_contains",
            not match.image_contains
            or any(one in container.image for one in patterns(match.image_contains)),
            container.image,
        ),
        ("label", _label(match, labels), _inherited(match, container, labels)),
        (
            "project",
            not match.project
            or (
                COMPOSE_PROJECT_LABEL in labels
                and _any(match.project, labels[COMPOSE_PROJECT_LABEL])
            ),
            labels.get(COMPOSE_PROJECT_LABEL, "none of its own"),
        ),
    )
    return next((f"{key} ({found})" for key, holds, found in tests if not holds), "")


def label_matches(pattern: str, labels: Mapping[str, str]) -> bool:
    """`key=value` globs over both; `key` alone is any value."""
    if "=" in pattern:
        return any(fnmatchcase(f"{key}={value}", pattern) for key, value in labels.items())
    return any(fnmatchcase(key, pattern) for key in labels)


def _any(wanted: str | tuple[str, ...], text: str) -> bool:
    return not wanted or any(fnmatchcase(text, one) for one in patterns(wanted))


def _image(match: Match, container: Container) -> bool:
    return not match.image or any(
        image.matches(one, container.image) for one in patterns(match.image)
    )


def _label(match: Match, labels: Mapping[str, str]) -> bool:
    return not match.label or any(label_matches(one, labels) for one in patterns(match.label))


def _inherited(match: Match, container: Container, labels: Mapping[str, str]) -> str:
    if not _label(match, labels) and _label(match, container.labels):
        return "from its image: spares, never costs"
    return "none such"
