"""Actions of rules on a real engine, by `docker inspect` and `docker events` as the oracle."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.actions.remover import Remover
from agent.clock import SystemClock
from agent.config import PolicySettings, decode_config
from agent.model.activity import Activity
from agent.model.container import Container
from agent.model.removal import Action, Outcome, Reason
from agent.policy import governance, original
from agent.policy.dependants import needed_by
from agent.sources import activity
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Engine
from tests.containers import ALPINE, wait_until
from tests.docker.private_engine import PrivateEngine
from tests.docker.removals import decision, soon

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGES = ("kill", "die", "stop", "restart", "pause", "destroy")
RULES = """
[[policy.rule]]
name = "labelled"
match = { label = "job=*" }
keep = 0
action = "ACTION"
"""


@pytest.fixture
def remover(engine: PrivateEngine) -> Iterator[Remover]:
    remover = Remover(engine.host, SystemClock(), grace_s=1, still_allowed=governance.still_stands)
    yield remover
    remover.close(60)


def act(
    engine: PrivateEngine,
    remover: Remover,
    action: Action,
    container: str,
    reason: Reason = Reason.RULE,
) -> tuple[Outcome, str]:
    one = replace(decision(engine, container, reason=reason), action=action, rule="mine")
    (removal,) = remover.remove([one], soon())
    return removal.outcome, removal.error


def test_a_stop_ends_it_and_leaves_it_there_even_where_docker_would_restart_it(
    engine: PrivateEngine, remover: Remover
) -> None:
    one, other = engine.run("--restart=always"), engine.run()
    assert act(engine, remover, Action.STOP, one) == (Outcome.STOPPED, "")
    assert engine.inspect(one)["State"]["Status"] == "exited"
    assert engine.inspect(other)["State"]["Running"]
    since = engine.now()
    assert act(engine, remover, Action.STOP, one)[0] is Outcome.GONE
    assert engine.events(since, *CHANGES) == []


def test_a_restart_gives_it_another_first_process(engine: PrivateEngine, remover: Remover) -> None:
    one = engine.run()
    before = engine.inspect(one)["State"]["Pid"]
    assert act(engine, remover, Action.RESTART, one) == (Outcome.RESTARTED, "")
    state = engine.inspect(one)["State"]
    assert state["Running"]
    assert state["Pid"] != before


def test_one_that_has_ended_is_started_by_a_restart(
    engine: PrivateEngine, remover: Remover
) -> None:
    one = engine.run()
    engine.docker("kill", one)
    ended = act(engine, remover, Action.RESTART, one, Reason.EXITED)
    assert ended == (Outcome.RESTARTED, "")
    assert engine.inspect(one)["State"]["Running"]


def test_a_pause_freezes_it_once(engine: PrivateEngine, remover: Remover) -> None:
    one = engine.run()
    assert act(engine, remover, Action.PAUSE, one) == (Outcome.PAUSED, "")
    assert engine.inspect(one)["State"]["Paused"]
    since = engine.now()
    assert act(engine, remover, Action.PAUSE, one) == (Outcome.GONE, "it is paused already")
    assert engine.events(since, *CHANGES) == []


@pytest.mark.parametrize("action", list(Action))
def test_one_that_was_renamed_or_is_protected_is_left_alone_by_every_action(
    engine: PrivateEngine, remover: Remover, action: Action
) -> None:
    renamed = engine.run("--name", "job")
    decided = replace(decision(engine, renamed), action=action, rule="mine")
    engine.docker("rename", "job", "database")
    protected = engine.run("--label", "so1.protect")
    since = engine.now()
    (left,) = remover.remove([decided], soon())
    assert left.outcome is Outcome.GONE
    assert act(engine, remover, action, protected)[0] is Outcome.GONE
    assert engine.events(since, *CHANGES) == []


@pytest.mark.parametrize("action", list(Action))
def test_a_label_of_the_image_brings_nothing_under_a_rule_that_touches_it(
    engine: PrivateEngine, action: Action
) -> None:
    labelled = "so1-job-alpine:local"
    engine.docker(
        *("import", "-c", "LABEL job=7", "-", labelled),
        data=(engine.directory / "root.tar").read_bytes(),
    )
    inherits = engine.run(image=labelled, command=("/bin/sleep", "infinity"))
    overrides = engine.run("--label", "job=8", image=labelled, command=("/bin/sleep", "infinity"))
    itself = engine.run("--label", "job=7")
    policy: PolicySettings = decode_config(RULES.replace("ACTION", action), "rules").policy
    rules = original.rule_set(policy)
    source = Engine(engine.host, SystemClock(), all_labels=True)
    claimed = {one.id: governance.claim(one, rules, "").rule for one in source.list().containers}
    source.close()
    expected = "" if action.is_destructive else "labelled"
    assert claimed == {inherits: expected, overrides: "labelled", itself: "labelled"}


def test_the_health_of_a_container_is_docker_s_word(engine: PrivateEngine) -> None:
    sick = engine.run("--health-cmd", "false", "--health-interval=1s", "--health-retries=1")
    plain = engine.run()
    wait_until(
        lambda: (
            json.loads(engine.docker("inspect", "-f", "{{json .State.Health.Status}}", sick))
            == "unhealthy"
        ),
        "it is unhealthy",
    )
    source = Engine(engine.host, SystemClock())
    found = {one.id: one.health for one in source.list().containers}
    source.close()
    assert found == {sick: "unhealthy", plain: ""}


def seen(engine: PrivateEngine) -> dict[str, Container]:
    source = Engine(engine.host, SystemClock())
    try:
        return {one.id: one for one in source.list().containers}
    finally:
        source.close()


def inside(engine: PrivateEngine, other: str) -> str:
    """A container in the network of another; the engine of the tests has no bridge to link by."""
    words = ("--network", f"container:{other}", ALPINE, "sleep", "infinity")
    return engine.docker("run", "-d", *words)


def test_what_others_are_built_on_is_known(engine: PrivateEngine) -> None:
    data, net = engine.run("--name", "data"), engine.run()
    app = engine.run("--volumes-from", "data:ro", "--restart", "always")
    within = inside(engine, net)
    found = seen(engine)
    assert needed_by(found.values()) == {
        found[data].key: f"{found[app].name} uses its volumes",
        found[net].key: f"{found[within].name} uses its network",
    }
    assert (found[app].restart_policy, found[net].restart_policy) == ("always", "no")


def counted(engine: PrivateEngine) -> dict[str, Activity]:
    containers = tuple(seen(engine).values())
    layout = reader.detect()
    found = activity.read(layout, containers, reader.read(layout, containers))
    return {key.id: one for key, one in found.items()}


def test_what_a_container_does_is_counted_and_a_resting_one_stands_still(
    engine: PrivateEngine,
) -> None:
    rests, works = engine.run(), engine.run("-v", f"{engine.directory}:/data")
    shares = inside(engine, rests)
    before = counted(engine)
    assert before[shares].missing == before[rests].missing != ""
    engine.docker("rm", "-f", shares)
    before = counted(engine)
    uncounted = activity.host_io_problem()
    assert (before[rests].missing, before[works].missing) == (uncounted, uncounted)
    sync = "dd if=/dev/zero of=/data/x bs=4096 count=4 conv=fsync"
    engine.docker("exec", works, "sh", "-c", sync)
    after = counted(engine)
    if not uncounted:
        assert after[works].io_operations > before[works].io_operations
    assert after[works].cpu_ns > before[works].cpu_ns
    assert after[rests] == replace(before[rests], read_ns=after[rests].read_ns)
