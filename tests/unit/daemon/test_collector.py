"""What one look makes of Docker's list: who is governed, and what is warned of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.config import Scope
from agent.daemon.collector import Collector, Stopwatch, look
from agent.engine_api.own_container import OwnContainer
from agent.model.bpf import BpfView
from agent.model.container import Container, ContainerKey, Governance
from agent.model.process import Snapshot
from agent.model.tick import Carried, Part, Tick
from agent.policy import governance
from agent.sources import host_metrics
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Listing
from agent.sources.engine.lists import EngineLists
from agent.sources.engine.lives import EngineLives
from tests.unit import builders
from tests.unit.sources.fake_host import FakeHost

A, B = "a" * 64, "b" * 64


class List:
    """Docker's list as a test has it."""

    def __init__(self, *containers: Container) -> None:
        self.listing = Listing(containers, 0, 0)

    def list(self, *, fresh: bool = False) -> Listing:
        return self.listing


class World:
    """A host with containers A and B, each with a process of its own in its own cgroup."""

    def __init__(self, directory: Path) -> None:
        self.host = FakeHost(directory)
        self.cgroup_of = {key: self.host.cgroup(f"/docker/{key}") for key in (A, B)}
        self.containers = (builders.container("a"), builders.container("b"))

    def snapshot(self) -> Snapshot:
        processes = (
            builders.process(70, cgroup_id=self.cgroup_of[A]),
            builders.process(80, cgroup_id=self.cgroup_of[B]),
        )
        plain = builders.snapshot(*processes)
        return Snapshot(plain.source, plain.snapshot_ns, plain.memory, processes, ())

    def read_bpf(self) -> Part[BpfView]:
        return Part(None, 0, "none here")

    def runs_as(self, pid: int) -> OwnContainer:
        """The agent's own process, in a container whose namespaces tell nothing."""
        (self.host.proc / "self").rename(self.host.proc / "4")
        (self.host.proc / "self").symlink_to(str(pid))
        (self.host.proc / str(pid)).mkdir()
        (self.host.proc / str(pid) / "cgroup").write_text("0::/\n")
        (self.host.proc / str(pid) / "mountinfo").write_text("\n".join(self.host.mounts) + "\n")
        return OwnContainer(self.host.proc)

    def looker(self, own: OwnContainer, scope: Scope = Scope.ALL) -> Callable[[], Tick]:
        """Looks as a tick does."""
        clock = SystemClock()
        listed: Any = List(*self.containers)
        collector = Collector(
            read_processes=self.snapshot,
            engines=EngineLists({"docker": listed}),
            layout=self.host.layout(),
            read_cgroups=reader.read,
            read_bpf=self.read_bpf,
            read_host=host_metrics.read,
            stopwatch=Stopwatch(clock),
        )

        def govern(one: Container) -> Governance:
            return governance.classify(one, "", scope, own.ids)

        return lambda: look(collector, own, Carried(), govern)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_under_scope_all_the_agents_own_container_is_the_one_that_is_not_governed(
    world: World,
) -> None:
    observed = world.looker(world.runs_as(70))()
    assert {one.container.id: one.governed for one in observed.totals} == {A: False, B: True}


def test_on_a_host_scope_all_governs_every_container(world: World) -> None:
    observed = world.looker(world.runs_as(7))()
    assert {one.container.id: one.governed for one in observed.totals} == {A: True, B: True}


def test_an_odd_protecting_label_is_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.containers = (
        builders.container("a", labels={"so1.protect": "ture"}),
        builders.container("b", labels={"so1.protect": "yes"}),
    )
    see = world.looker(world.runs_as(7))
    for _ in range(3):
        observed = see()
    assert [one.governed for one in observed.totals] == [False, False]
    assert caplog.text.count("'ture'") == 1
    assert "'yes'" not in caplog.text


def test_what_an_engine_reports_while_the_kernel_is_read_is_the_next_sample_s(
    tmp_path: Path,
) -> None:
    """The kernel's counters were read before it, so they have it at the next tick too."""
    world, lives = World(tmp_path), EngineLives(tmp_path)
    lives.note("oom", A)

    def read_bpf() -> Part[Any]:
        lives.note("oom", A)
        return Part(None, 0, "none here")

    listed: Any = List(*world.containers)
    collector = Collector(
        read_processes=world.snapshot,
        engines=EngineLists({"docker": listed}),
        layout=world.host.layout(),
        read_cgroups=reader.read,
        read_bpf=read_bpf,
        read_host=host_metrics.read,
        stopwatch=Stopwatch(SystemClock()),
        lives={"docker": lives},
    )
    counted = [
        collector.collect(frozenset(), for_tick=False).engine_ooms[ContainerKey("docker", A)]
        for _ in range(2)
    ]
    assert counted == [1, 2]
