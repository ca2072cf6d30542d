"""Every safeguard of a removal holds for every action of a rule: nothing is touched.

The first case is the control: where nothing stands against it, each action is carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.actions import removal
from agent.model.container import Need
from agent.model.removal import Action
from agent.policy import governance
from agent.policy.recreation import Recreations
from tests.unit.actions.removal_engine import RemovalEngine, about, decision
from tests.unit.agent_scene import Host, alpine
from tests.unit.daemon.test_rules import deletions, jobs, rule, run
from tests.unit.policy.test_standings import acting, job
from tests.unit.policy.test_standings import rule as any_rule

if TYPE_CHECKING:
    from pathlib import Path

DONE = {"removed", "stopped", "restarted", "paused", "notified"}
Touched = Callable[[Action, "Path", pytest.MonkeyPatch], list[Any]]


def in_a_run(
    host: Host, one: dict[str, Any], seconds: float = 50, *, dry: bool = False
) -> list[Any]:
    """What a run did to anybody, and what it reported as done."""
    run(host, one, seconds=seconds, dry_run=dry)
    reported = [row for row in deletions(host) if row[5] in DONE]
    return [*host.docker.removed, *host.docker.acted, *reported]


def nothing_in_the_way(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    host = Host(place)
    jobs(host)
    return in_a_run(host, rule(action))


def protected(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    host = Host(place)
    jobs(host, labels={"so1.protect": ""})
    return in_a_run(host, rule(action))


def disputed(action: Action, _place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    one = job(1)
    return acting([one], any_rule(keep=0, action=action), disputed=frozenset({one.container.key}))


def changed(action: Action, place: Path, **now: object) -> list[Any]:
    """What the engine was asked to change once it describes another container than was meant."""
    engine = RemovalEngine(place)
    try:
        engine.kinds["look"] = lambda _: (200, about(**now))  # type: ignore[arg-type]
        one = replace(decision(), action=action, rule="mine")
        removal.attempt(engine.host, one, 1, governance.still_stands)
        return [kind for kind in engine.order if kind != "look"]
    finally:
        engine.stop()


def renamed(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    return changed(action, place, Name="/database")


def replaced(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    return changed(action, place, Created="2026-11-25T00:00:00Z")


def orchestrated(action: Action, place: Path, patch: pytest.MonkeyPatch) -> list[Any]:
    """Its owner has brought it back three times within the hour."""
    patch.setattr(Recreations, "is_returning", lambda *_: True)
    host = Host(place)
    jobs(host)
    return [one for one in in_a_run(host, rule(action)) if "notify" not in one]


def engine_back(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    """It answers from 30 s on: the look at 40 s is the first whole one."""
    host = Host(place)
    jobs(host)
    host.docker.away = True
    host.time.at(30, lambda: setattr(host.docker, "away", False))
    return in_a_run(host, rule(action))


def dry_run(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    host = Host(place)
    jobs(host)
    return in_a_run(host, rule(action), dry=True)


def labels_of_the_image(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    host = Host(place)
    jobs(host, labels={"job": "7"})
    found = in_a_run(host, rule(action, match={"label": "job=*"}))
    return [one for one in found if "notify" not in one]


def built_on(action: Action, place: Path, _: pytest.MonkeyPatch) -> list[Any]:
    host = Host(place)
    jobs(host, 1)
    host.docker.run(alpine(50, name="web", needs=(Need("job-0", "uses its volumes"),)))
    found = in_a_run(host, rule(action, keep=0))
    return [one for one in found if "notify" not in one]


CASES: tuple[Touched, ...] = (
    *(protected, disputed, renamed, replaced, orchestrated, engine_back, dry_run),
    *(labels_of_the_image, built_on),
)


@pytest.mark.parametrize("action", list(Action))
def test_without_anything_in_the_way_each_action_is_carried_out(
    action: Action, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nothing_in_the_way(action, tmp_path, monkeypatch) != []


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_is_touched(
    case: Touched, action: Action, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert case(action, tmp_path, monkeypatch) == []
