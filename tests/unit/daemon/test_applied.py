"""A tick beside `agent policy apply`: nobody is acted on twice, and nobody is forgotten."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.model.container import Tier
from agent.model.removal import Action, Decision, Outcome, Reason, Removal, RemovalPass
from agent.store import handover
from tests.unit.agent_scene import Host, alpine
from tests.unit.daemon.test_rules import deletions, jobs, rule, run

if TYPE_CHECKING:
    from pathlib import Path

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
