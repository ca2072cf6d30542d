"""What another container is built on is left by every action of one's own rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.config import PolicySettings
from agent.engine_api import schema
from agent.model.container import ContainerState, ContainerTotals, Need
from agent.model.removal import Action
from agent.policy import decide, dependants, governance, original
from agent.policy.dependants import needed_by
from tests.unit.policy.containers import OURS, container, ids_in_turn, totals
from tests.unit.policy.test_standings import acting, job, numbers, rule

JOBS = {"name": "job-*"}
NEEDS: list[tuple[dict[str, Any], str]] = [
    ({"HostConfig": {"VolumesFrom": ["job-1:ro"]}}, "uses its volumes"),
    ({"HostConfig": {"VolumesFrom": [f"{1:064x}"]}}, "uses its volumes"),
    ({"HostConfig": {"Links": ["/job-1:/web/db"]}}, "links to it"),
    ({"HostConfig": {"NetworkMode": f"container:{1:064x}"}}, "uses its network"),
    ({"HostConfig": {"PidMode": f"container:{1:064x}"}}, "uses its PID namespace"),
    ({"HostConfig": {"IpcMode": "container:job-1"}}, "uses its IPC namespace"),
]


def needs(answer: dict[str, Any]) -> tuple[Need, ...]:
    whole = {"Id": "a" * 64, "Created": "2026-11-24T15:35:10Z", "State": {}, "Config": {}, **answer}
    return schema.take_inspected(whole).HostConfig.needs


def beside(answer: dict[str, Any], state: ContainerState) -> ContainerTotals:
    """A container that no rule claims."""
    return totals(replace(container(9, name="web", state=state), needs=needs(answer)))


@pytest.mark.parametrize("state", [ContainerState.RUNNING, ContainerState.EXITED])
@pytest.mark.parametrize("action", [one for one in Action if one.is_destructive])
@pytest.mark.parametrize(("answer", "what"), NEEDS)
def test_one_that_another_is_built_on_is_spared_and_holds_its_place(
    action: Action, answer: dict[str, Any], what: str, state: ContainerState
) -> None:
    jobs = [job(1, 99), job(2, 50), job(3, 10)]
    other = beside(answer, state)
    mine = rule(keep=1, action=action, match=JOBS)
    assert numbers(acting([*jobs, other], mine)) == [2]
    assert numbers(acting(jobs, mine)) == [1, 2], "without it, it is one like any other"
    assert needed_by([one.container for one in (*jobs, other)]) == {
        jobs[0].container.key: f"web {what}"
    }


def test_a_report_is_made_of_it_all_the_same_and_its_later_step_spares_it() -> None:
    one, other = job(1), beside(NEEDS[0][0], ContainerState.RUNNING)
    (reported,) = acting([one, other], rule(keep=0, action="notify", match=JOBS))
    needed = needed_by([one.container, other.container])
    assert not dependants.spares(reported, needed)
    assert dependants.spares(replace(reported, action=Action.STOP), needed)


def test_the_built_in_set_goes_on() -> None:
    of = PolicySettings(keep_low=0, keep_high=0)
    ours = totals(container(1))
    needs = (Need(ours.container.name, "uses its volumes"),)
    other = replace(totals(replace(container(9, name="web"), needs=needs)), governed=False)
    seen = governance.claim(ours.container, original.rule_set(of), OURS)
    ours = replace(ours, tier=seen.tier, governed=seen.governed, rule=seen.rule)
    (gone,) = decide.decide([ours, other], frozenset(), of, ids_in_turn())
    assert gone.container == ours.container.key
    assert not dependants.spares(gone, needed_by([ours.container, other.container]))


def test_a_name_that_is_nobodys_and_a_container_that_names_itself_are_nothing() -> None:
    own = replace(container(1, name="a"), needs=(Need("a", "links to it"),))
    odd = replace(container(2, name="b"), needs=(Need("nobody", "x"), Need("0" * 12, "x")))
    assert needed_by([own, odd]) == {}


@pytest.mark.parametrize(
    "odd", [None, [], "x", {"VolumesFrom": "a", "Links": [1]}, {"NetworkMode": 5}]
)
def test_an_odd_host_config_is_no_need_and_hides_no_container(odd: object) -> None:
    assert needs({"HostConfig": odd}) == ()
