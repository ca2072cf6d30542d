"""Owners that bring back what the policy removed: counted, reported once, forgotten in time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from agent.model.container import Container, ContainerState, Tier
from agent.model.removal import Decision, Outcome, Reason, Removal
from agent.policy.recreation import RETURNS, WITHIN_NS, Recreations, owner_of

OURS = "0123456789abcdef" * 2
MINUTE_NS = 60 * 10**9
_ids = (f"{number:064x}" for number in itertools.count(1))

SWARM = {"com.docker.swarm.service.name": "web"}
COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "db"}
UNIT = {"PODMAN_SYSTEMD_UNIT": "job.service"}


def container(name: str = "so1_contenedor_1", **changed: Any) -> Container:
    return Container(next(_ids), name, "alpine", 0, ContainerState.RUNNING, **changed)


def removal(of: Container, outcome: Outcome = Outcome.REMOVED) -> Removal:
    decision = Decision(
        *("d", of.id, of.name, of.image, of.created_ns, Tier.LOW, 1, Reason.EXCESS_LOW, 1.0, 0.0)
    )
    return Removal(decision, outcome, 5)


def rounds(
    count: int, outcome: Outcome = Outcome.REMOVED, *, apart_ns: int = MINUTE_NS, **changed: Any
) -> tuple[Recreations, list[str]]:
    """`count` times a container is removed and another one like it made; what was reported."""
    recreations = Recreations(OURS)
    reported: list[str] = []
    one = container(**changed)
    now_ns = 0
    recreations.seen([one], now_ns)
    for _ in range(count):
        now_ns += apart_ns
        recreations.removed([removal(one, outcome)], now_ns)
        one = container(**changed)
        reported += recreations.seen([one], now_ns)
    return recreations, reported


@pytest.mark.parametrize(
    ("changed", "owner"),
    [
        ({"labels": SWARM}, "Swarm service web"),
        ({"labels": COMPOSE}, "compose service shop/db"),
        ({"labels": UNIT}, "systemd unit job.service"),
        ({}, "whatever makes so1_contenedor_1"),
        ({"restart_policy": "no"}, "whatever makes so1_contenedor_1"),
        ({"restart_policy": "always"}, "restart policy always of so1_contenedor_1"),
        ({"restart_policy": "always", "labels": SWARM}, "Swarm service web"),
        ({"labels": SWARM, "own_installation": OURS}, "Swarm service web"),
        ({"labels": {"com.docker.compose.project": "shop"}}, "whatever makes so1_contenedor_1"),
    ],
)
def test_an_owner_is_reported_once_when_the_third_comes_back(
    changed: dict[str, Any], owner: str
) -> None:
    assert owner_of(container(**changed), OURS) == owner
    assert rounds(RETURNS - 1, **changed)[1] == []
    recreations, reported = rounds(RETURNS + 4, **changed)
    assert reported == [owner]
    (problem,) = recreations.problems
    assert problem.startswith(f"owner-recreates: {owner} brought {RETURNS + 4} ")


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(Outcome.STOPPED, ContainerState.EXITED), (Outcome.PAUSED, ContainerState.PAUSED)],
)
def test_one_that_is_started_again_each_time_it_is_stopped_is_its_owners(
    outcome: Outcome, state: ContainerState
) -> None:
    recreations = Recreations(OURS)
    one = container("job", restart_policy="always")
    recreations.seen([one], 0)
    for count in range(1, RETURNS + 1):
        assert not recreations.is_returning(one.key)
        recreations.removed([removal(one, outcome)], count * MINUTE_NS)
        recreations.seen([replace(one, state=state)], count * MINUTE_NS + 1)
        recreations.seen([one], count * MINUTE_NS + 2)
        recreations.seen([one], count * MINUTE_NS + 3)
    assert recreations.is_returning(one.key)
    recreations.seen([one], count * MINUTE_NS + 4 + WITHIN_NS)
    assert not recreations.is_returning(one.key), "an hour later it is one like any other"


def test_one_that_stays_stopped_or_was_restarted_is_nobodys_return() -> None:
    recreations = Recreations(OURS)
    one = container("job")
    recreations.seen([one], 0)
    for count in range(1, 9):
        recreations.removed([removal(one, Outcome.RESTARTED)], count)
        recreations.seen([one], count)
    recreations.removed([removal(one, Outcome.STOPPED)], 10)
    recreations.seen([replace(one, state=ContainerState.EXITED)], 11)
    recreations.seen([], 12)
    recreations.seen([one], 13)
    assert recreations.returning == {}


def test_the_generators_own_are_never_reported() -> None:
    recreations, reported = rounds(9, own_installation=OURS)
    assert (reported, recreations.problems) == ([], ())


@pytest.mark.parametrize("outcome", [Outcome.GONE, Outcome.FAILED, Outcome.DRY_RUN])
def test_what_the_agent_did_not_remove_does_not_count(outcome: Outcome) -> None:
    assert rounds(9, outcome)[1] == []


def test_returns_more_than_an_hour_apart_do_not_count() -> None:
    assert rounds(9, apart_ns=WITHIN_NS)[1] == []


def test_an_owner_that_gave_up_is_forgotten_and_reported_again_later() -> None:
    recreations, _ = rounds(RETURNS, labels=SWARM)
    later_ns = RETURNS * MINUTE_NS + WITHIN_NS
    assert recreations.seen([], later_ns) == ()
    assert recreations.problems == ()
    one = container(labels=SWARM)
    reported: list[str] = []
    for _ in range(RETURNS + 1):
        reported += recreations.seen([one], later_ns)
        recreations.removed([removal(one)], later_ns)
        one = container(labels=SWARM)
    assert reported == ["Swarm service web"]


def test_others_of_the_same_name_are_not_what_came_back() -> None:
    """A service that is scaled up without a removal brings nothing back."""
    recreations = Recreations(OURS)
    there: list[Container] = []
    for number in range(9):
        there.append(container(labels=SWARM))
        assert recreations.seen(there, number) == ()
    assert recreations.problems == ()
