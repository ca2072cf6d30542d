"""What one observation makes of Docker's list: who is governed, what is warned of or missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent.model.accounts import Reading
from agent.model.container import Container
from agent.model.process import Snapshot

from agent.clock import SystemClock
from agent.config import PolicySettings, Scope, SourceChoice
from agent.daemon.collector import Observation, Observer, Stopwatch
from agent.sources.engine.inventory import Listing
from agent.sources.own_container import OwnContainer
from agent.sources.process_source import ProcessReader
from tests.unit import builders
from tests.unit.sources.fake_host import FakeHost

A, B = "a" * 64, "b" * 64


class List:
    """Docker's list as a test has it."""

    def __init__(self, *containers: Container, left_out: int = 0) -> None:
        self.listing = Listing(containers, 0, 0, left_out)

    def list(self, *, anew: bool = False) -> Listing:
        return self.listing


class World:
    """A host with containers A and B, each with a process of its own in its own cgroup."""

    def __init__(self, directory: Path) -> None:
        self.host = FakeHost(directory)
        self.cgroup_of = {key: self.host.cgroup(f"/docker/{key}") for key in (A, B)}
        self.containers = (builders.container("a"), builders.container("b"))
        self.left_out = 0
        self.odd = 0

    def snapshot(self) -> Snapshot:
        processes = (
            builders.process(70, cgroup_id=self.cgroup_of[A]),
            builders.process(80, cgroup_id=self.cgroup_of[B]),
        )
        plain = builders.snapshot(*processes)
        return Snapshot(plain.source, plain.snapshot_ns, plain.memory, processes, (), 0, self.odd)

    def runs_as(self, pid: int) -> OwnContainer:
        """The agent's own process, in a container whose namespaces tell nothing."""
        (self.host.proc / "self").rename(self.host.proc / "4")
        (self.host.proc / "self").symlink_to(str(pid))
        (self.host.proc / str(pid)).mkdir()
        (self.host.proc / str(pid) / "cgroup").write_text("0::/\n")
        (self.host.proc / str(pid) / "mountinfo").write_text("\n".join(self.host.mounts) + "\n")
        return OwnContainer(self.host.proc)

    def observer(self, own: OwnContainer, scope: Scope = Scope.ALL) -> Observer:
        clock = SystemClock()
        reader = ProcessReader(
            SourceChoice.MODULES,
            read_modules=self.snapshot,
            read_psutil=self.snapshot,
            load_modules=lambda: None,
            clock=clock,
        )
        listed: Any = List(*self.containers, left_out=self.left_out)
        return Observer(
            reader=reader,
            engine=listed,
            layout=self.host.layout(),
            settings=PolicySettings(scope=scope),
            installation="",
            stopwatch=Stopwatch(clock),
            own=own,
        )

    def observe(self, observer: Observer) -> Observation:
        return observer.observe(Reading(), 0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_under_scope_all_the_agents_own_container_is_the_one_that_is_not_governed(
    world: World,
) -> None:
    observed = world.observe(world.observer(world.runs_as(70)))
    assert {one.container.id: one.governed for one in observed.totals} == {A: False, B: True}


def test_on_a_host_scope_all_governs_every_container(world: World) -> None:
    observed = world.observe(world.observer(world.runs_as(7)))
    assert {one.container.id: one.governed for one in observed.totals} == {A: True, B: True}


def test_an_odd_protecting_label_is_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.containers = (
        builders.container("a", labels={"so1.protect": "ture"}),
        builders.container("b", labels={"so1.protect": "yes"}),
    )
    observer = world.observer(world.runs_as(7))
    for _ in range(3):
        observed = world.observe(observer)
    assert [one.governed for one in observed.totals] == [False, False]
    assert caplog.text.count("'ture'") == 1
    assert "'yes'" not in caplog.text


def test_what_is_left_out_of_a_source_is_in_the_notices(world: World) -> None:
    own = world.runs_as(7)
    observer = world.observer(own)
    world.observe(observer)
    assert observer.notices == ()
    world.left_out, world.odd = 2, 3
    observer = world.observer(own)
    world.observe(observer)
    docker, modules = observer.notices
    assert "2 entries" in docker
    assert "3 entries" in modules
