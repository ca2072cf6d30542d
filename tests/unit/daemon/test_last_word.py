"""What is disarmed or changed while decisions wait in the queue holds for them too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.config import Config, with_overrides
from agent.daemon.composition import Options, start
from agent.daemon.signals import RELOAD
from agent.model.removal import Action
from tests.unit.agent_scene import Host, signal_self
from tests.unit.daemon.test_disarmed import (
    arm,
    deletions,
    disarm,
    each_action,
    jobs,
    rule,
    run,
    touched,
)

if TYPE_CHECKING:
    from pathlib import Path


ACTION = Action.REMOVE


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """One whose removals wait until somebody finishes them."""
    made = Host(tmp_path)
    made.docker.slow = True
    return made


@each_action
def test_what_waits_when_it_is_disarmed_is_withheld_once_and_done_once_armed(
    host: Host, action: Action
) -> None:
    jobs(host)
    host.time.at(25, disarm(host, "now"))
    host.time.at(26, host.docker.finish)
    seen: list[object] = []
    host.time.at(89, lambda: seen.extend([*touched(host), *deletions(host)]))
    host.time.at(90, arm(host))
    host.time.at(105, host.docker.finish)
    run(host, rule(action), seconds=110)
    withheld = [(f"job-{n}", str(action), "notified") for n in (1, 2)]
    assert sorted(seen) == withheld, "nothing is touched, and each is one row"  # type: ignore[type-var]
    assert len(touched(host)) == 2


@each_action
def test_what_was_begun_before_it_was_disarmed_has_one_row(host: Host, action: Action) -> None:
    jobs(host)
    host.time.at(25, disarm(host))
    # Their threads looked before that.
    host.time.at(50, lambda: setattr(host.docker, "last_word", lambda _: None))
    host.time.at(50, host.docker.finish)
    run(host, rule(action), seconds=59)
    assert len(touched(host)) == 2
    rows = deletions(host)
    assert sorted(name for name, _, _ in rows) == ["job-1", "job-2"]
    assert "notified" not in {outcome for _, _, outcome in rows}


def reloading(host: Host, *rules: object) -> None:
    """The rules are these from second 25 on, and what waits ends after that."""
    outside = host.outside(policy__rule=[rule(ACTION)])

    def again() -> Config:
        return with_overrides(outside.config, policy__rule=rules)

    host.time.at(25, lambda: signal_self(RELOAD))
    host.time.at(36, host.docker.finish)
    host.time.at(39, signal_self)
    start(outside.config, Options(read_again=again), outside.clock, outside.say, outside)


@pytest.mark.parametrize("kept", [{}, {"match": {"name": "other"}}, {"keep": 2}])
def test_what_waits_is_not_done_where_its_rule_is_another_after_a_reload(
    host: Host, kept: dict[str, object]
) -> None:
    jobs(host)
    reloading(host, *([rule(ACTION) | kept] if kept else []))
    assert touched(host) == []
    assert {row[2] for row in deletions(host)} == {"gone"}
    assert host.rows("SELECT DISTINCT error FROM deletions") == [
        ("the rules were changed since jobs decided",)
    ]


def test_a_rule_before_it_may_claim_first_and_one_behind_it_changes_nothing(host: Host) -> None:
    jobs(host)
    first = {"name": "first", "match": {"name": "job-2"}, "action": "notify"}
    reloading(host, first, rule(ACTION))
    assert touched(host) == []


def test_a_reload_that_leaves_its_rule_as_it_is_revokes_nothing(host: Host) -> None:
    jobs(host)
    behind = {"name": "behind", "match": {"name": "x"}, "action": "notify"}
    reloading(host, rule(ACTION), behind)
    assert len(touched(host)) == 2
