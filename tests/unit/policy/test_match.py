"""Which rule claims a container: references by parts, globs, and labels that may only spare."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from agent.config import PolicySettings, Scope
from agent.model.container import ContainerState, Tier
from agent.model.removal import Action
from agent.policy import governance, image, original
from agent.policy.match import failing
from agent.policy.rules import Match, Rule, Rules, Step, When
from tests.unit.policy.containers import OURS, container


def rule(called: str = "mine", action: Action = Action.REMOVE, **match: object) -> Rule:
    return msgspec.convert({"name": called, "match": match, "keep": 0, "action": action}, Rule)


@pytest.mark.parametrize(
    ("pattern", "reference"),
    [
        ("alpine", "alpine"),
        ("alpine", "alpine:3.20"),
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine", "index.docker.io/library/alpine"),
        ("docker.io/library/alpine:latest", "alpine"),
        ("alpine", "alpine@sha256:" + "0" * 64),
        ("polinux/stress", "docker.io/polinux/stress:1"),
        ("registry.example/ci/*", "registry.example/ci/app:7"),
        ("registry.example/ci/*", "registry.example/ci/team/app"),
        ("*.example/ci/app:v*", "registry.example/ci/app:v2"),
        ("localhost:5000/app", "localhost:5000/app:1"),
        ("localhost/app", "localhost/app"),
        ("alpine@sha256:00*", "alpine:3@sha256:00ff"),
        ("*", "sha256:" + "a" * 64),
        ("sha256:" + "a" * 64, "a" * 64),
    ],
)
def test_references_are_compared_by_the_parts_that_docker_normalises_them_to(
    pattern: str, reference: str
) -> None:
    assert image.matches(pattern, reference)


@pytest.mark.parametrize(
    ("pattern", "reference"),
    [
        ("alpine", "evil.example/alpine"),
        ("alpine", "evil.example/library/alpine"),
        ("alpine", "someone/alpine"),
        ("alpine", "alpine-postgres"),
        ("alpine:3", "alpine"),
        ("alpine:latest", "alpine@sha256:" + "0" * 64),
        ("registry.example/ci/*", "registry.example:5000/ci/app"),
        ("registry.example/ci/*", "ci/app"),
        ("registry.example/ci/*", "evil.example/registry.example/ci/app"),
        ("app:7", "localhost:7/app"),
        ("alp*", "sha256:" + "a" * 64),
        ("a*", "a" * 64),
    ],
)
def test_a_reference_with_another_part_is_another_image(pattern: str, reference: str) -> None:
    assert not image.matches(pattern, reference)


def test_all_keys_of_match_must_hold_and_of_a_list_any_may() -> None:
    mine = rule(image=("redis", "alpine"), state=ContainerState.RUNNING)
    assert failing(mine, container(image="redis:7"), managed=False) == ""
    assert "image" in failing(mine, container(image="nginx"), managed=False)
    paused = container(state=ContainerState.PAUSED)
    assert "state (paused)" in failing(mine, paused, managed=False)


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("key", ["label", "project"])
def test_a_label_of_the_image_may_spare_a_container_and_never_cost_it(
    action: Action, key: str
) -> None:
    labels = {"com.docker.compose.project": "ci", "job": "7"}
    wanted = {"label": "job=*", "project": "ci"}[key]
    mine = rule(action=action, **{key: wanted})
    inherited = container(labels=labels)
    itself = replace(inherited, own_labels=labels)
    assert not failing(mine, itself, managed=False)
    assert bool(failing(mine, inherited, managed=False)) is action.is_destructive


def test_a_later_step_that_touches_a_container_makes_its_rule_destructive() -> None:
    stepped = Rule(
        name="mine",
        match=Match(label="job"),
        when=When(held_mb=1),
        step=(Step(after="1h", action=Action.STOP),),
    )
    assert failing(stepped, container(labels={"job": ""}), managed=False)


def test_a_label_s_key_alone_takes_any_value_and_a_value_is_compared_whole() -> None:
    one = replace(container(), own_labels={"job": "7", "team": "db"})
    taken = [
        not failing(rule(label=wanted), one, managed=False)
        for wanted in ("job", "job=*", "job=7", "jo*", "job=8", "db", "7", "job=7*")
    ]
    assert taken == [True, True, True, True, False, False, False, True]


def test_the_first_rule_in_the_file_s_order_claims_and_the_built_in_set_comes_last() -> None:
    settings = PolicySettings(rule=(rule("a", name="x"), rule("b", name="*x*")))
    rules = original.rule_set(settings)
    found = [
        governance.claim(container(name=name), rules, OURS)
        for name in ("x", "xx", "so1_contenedor_1", "db")
    ]
    assert [one.rule for one in found] == ["a", "b", "original-low", ""]
    assert [one.governed for one in found] == [True, True, True, False]
    assert [one.tier for one in found] == [Tier.NONE, Tier.NONE, Tier.LOW, Tier.NONE]


def test_protection_wins_over_every_rule() -> None:
    rules = original.rule_set(PolicySettings(rule=(rule("all", name="*"),)))
    spared = container(labels={"so1.protect": ""})
    assert governance.claim(spared, rules, OURS).governed is False


OWN = (rule("own", image="registry.example/ci/*"),)


@pytest.mark.parametrize(
    ("rules", "own", "scope", "claims_database"),
    [
        (None, (), Scope.MANAGED, False),
        (None, (), Scope.ALL, True),
        (Rules.ORIGINAL, (), Scope.ALL, True),
        (Rules.ORIGINAL, (), Scope.MANAGED, False),
        (None, OWN, Scope.ALL, False),
        (Rules.ORIGINAL, OWN, Scope.MANAGED, False),
        (Rules.ORIGINAL, OWN, Scope.ALL, True),
        (Rules.NONE, OWN, Scope.ALL, False),
        (Rules.NONE, (), Scope.ALL, False),
    ],
)
def test_beside_rules_of_one_s_own_the_built_in_set_takes_a_database_only_where_both_are_written(
    rules: Rules | None, own: tuple[Rule, ...], scope: Scope, claims_database: bool
) -> None:
    """A host with 39 containers lost 37, a database first, where one key implied the other."""
    settings = PolicySettings(rules=rules, rule=own, scope=scope)
    database = container(name="db", image="postgres:16")
    found = governance.claim(database, original.rule_set(settings), OURS)
    assert found.governed is claims_database


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("rules", [None, *Rules])
def test_one_s_own_rules_govern_what_they_match_whatever_scope_says(
    scope: Scope, rules: Rules | None
) -> None:
    settings = PolicySettings(scope=scope, rules=rules, rule=OWN)
    job = container(name="job", image="registry.example/ci/app:7")
    assert governance.claim(job, original.rule_set(settings), OURS).rule == "own"
