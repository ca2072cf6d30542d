"""A tick beside `agent policy apply`: nobody is acted on twice, and nobody is forgotten."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agent.model.container import Tier
from agent.model.removal import Action, Decision, Outcome, Reason, Removal, RemovalPass
from agent.store import handover
from agent.store.under_way import UnderWay, under_way
from tests.unit.agent_scene import Host, alpine
from tests.unit.daemon.test_rules import deletions, jobs, rule, run

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent.model.container import ContainerKey
    from agent.sources.engine.inventory import Listing


def test_a_tick_waits_for_whoever_is_applying_a_plan(tmp_path: Path) -> None:
    host = Host(tmp_path)
    jobs(host)
    data = tmp_path / "data"
    data.mkdir(0o750)
    seen: list[int] = []
    with ExitStack() as at_work:
        at_work.enter_context(handover.alone(data))
        host.time.at(50, lambda: seen.append(len(deletions(host))))
        host.time.at(50, at_work.close)
        run(host, rule(Action.REMOVE))
    assert seen == [0], "ticks at 0, 20 and 40 s"
    assert len(deletions(host)) == len(host.docker.removed) == 2


def test_a_tick_does_not_do_again_what_was_applied_since_it_began(tmp_path: Path) -> None:
    """Its look still has the container; what was done to it lies beside the database."""
    host = Host(tmp_path)
    jobs(host)
    taken = host.docker.containers[f"{2:064x}"]
    one = Decision(
        *("d", taken.id, taken.name, "alpine", 0, Tier.NONE, 1, Reason.RULE, 1.0, 0.0),
        rule="jobs",
        action=Action.RESTART,
    )
    done = RemovalPass((Removal(one, Outcome.RESTARTED, 5),), 1024, 2048)
    lists = host.docker.list

    def applied_meanwhile() -> Listing:
        found = lists()
        if not left:
            left.append(handover.leave(tmp_path / "data", done))
        return found

    left: list[Path] = []
    host.docker.list = applied_meanwhile  # type: ignore[method-assign]
    run(host, rule(Action.RESTART))
    names = [row[0] for row in deletions(host)]
    assert sorted(names) == ["job-1", "job-2"]
    assert len(host.docker.acted) == 1


def test_a_tick_decides_nothing_in_place_of_what_a_plan_took_since_it_began(
    tmp_path: Path,
) -> None:
    """Two of five are too many, and a plan takes two that hold less."""
    host = Host(tmp_path)
    host.docker.run(*(alpine(number) for number in range(5)))
    lists = host.docker.list

    def applied_meanwhile() -> Listing:
        found = lists()
        if not left:
            gone = [one for one in host.docker.containers.values() if one.name[-1] in "01"]
            removals = []
            for one in gone:
                decision = Decision(
                    *(one.name, one.id, one.name, "alpine", 0, Tier.LOW, 1, Reason.RULE, 1.0, 0.0)
                )
                removals.append(Removal(decision, Outcome.REMOVED, 5))
                host.docker.containers.pop(one.id)
            left.append(handover.leave(tmp_path / "data", RemovalPass(tuple(removals), 1, 2)))
        return found

    left: list[Path] = []
    host.docker.list = applied_meanwhile  # type: ignore[method-assign]
    run(host)
    assert host.docker.removed == []
    assert sorted(one.name for one in host.docker.containers.values()) == [
        f"so1_contenedor_{number}" for number in (2, 3, 4)
    ]


def test_whom_the_ticks_act_on_is_known_beside_them_until_it_has_ended(tmp_path: Path) -> None:
    host, data = Host(tmp_path), tmp_path / "data"
    host.docker.run(*(alpine(number) for number in range(5)))
    host.docker.slow = True
    seen: list[set[str]] = []
    for second in (10, 30, 70):
        host.time.at(second, lambda: seen.append({key.id for key in under_way(data)}))
    host.time.at(50, host.docker.finish)
    run(host)
    # The scene's cgroups hold more the later their name comes.
    assert seen == [{f"{3:064x}", f"{4:064x}"}] * 2 + [set()]


def test_a_tick_that_waits_for_a_plan_acts_on_nobody(tmp_path: Path) -> None:
    """It says whom it is to act on before it asks who is at work, and takes it back."""
    host, data = Host(tmp_path), tmp_path / "data"
    data.mkdir(0o750)
    host.docker.run(*(alpine(number) for number in range(5)))
    seen: list[frozenset[ContainerKey]] = []
    with ExitStack() as at_work:
        at_work.enter_context(handover.alone(data))
        host.time.at(30, lambda: seen.append(under_way(data)))
        host.time.at(50, at_work.close)
        run(host)
    assert seen == [frozenset()]
    assert len(host.docker.removed) == 2


def test_it_is_said_before_it_is_asked_who_else_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both could look before either has said anything."""
    host = Host(tmp_path)
    host.docker.run(*(alpine(number) for number in range(5)))
    asked: list[int] = []

    def is_at_work(directory: Path) -> bool:
        asked.append(len(under_way(directory)))
        return False

    monkeypatch.setattr(handover, "is_at_work", is_at_work)
    run(host)
    assert asked == [2]


@pytest.mark.parametrize(("action", "dry_run"), [(Action.REMOVE, True), (Action.NOTIFY, False)])
def test_whom_nothing_is_done_to_is_not_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action, *, dry_run: bool
) -> None:
    host = Host(tmp_path)
    jobs(host)
    said: list[Collection[ContainerKey]] = []
    monkeypatch.setattr(UnderWay, "say", lambda _, containers: said.append(containers))
    run(host, rule(action), dry_run=dry_run)
    assert len(deletions(host)) == 2
    assert said
    assert not any(said)
