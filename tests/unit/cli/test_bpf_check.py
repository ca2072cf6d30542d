"""`agent bpf check` sees what a tick sees, other engines' containers included."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import SystemClock
from agent.config import Config
from agent.daemon.outside import Outside
from agent.daemon.watch import Watch
from agent.engine_api.own_container import OwnContainer
from agent.model.bpf import BpfView, Seam
from agent.model.process import ProcessKey, Snapshot
from agent.sources.bpf.witness import Witness
from agent.sources.engine.inventory import Listing
from tests.unit.builders import candidate, process, snapshot
from tests.unit.sources.fake_host import FakeHost, container, full_id


class FakeWitness:
    def __init__(self, cgroup_ids: dict[ProcessKey, int]) -> None:
        self.cgroup_ids = cgroup_ids

    def poll(self) -> SimpleNamespace:
        return SimpleNamespace(status="ready", reason="", hint="")

    def read(self) -> BpfView:
        return BpfView(0, self.cgroup_ids, {}, {}, {}, {}, frozenset(), frozenset(), 0, Seam())

    def mark(self, snapshot_ns: int) -> None:
        pass


class OneContainer:
    """An engine whose list has one container."""

    def __init__(self) -> None:
        self.asked = 0

    def list(self) -> Listing:
        self.asked += 1
        return Listing((container("a"),), 0, 0)

    def close(self) -> None:
        pass


class FakeOutside(Outside):
    """A host whose processes and engine are a test's, and whose cgroups are real directories."""

    def __init__(self, host: FakeHost, seen: Snapshot, engine: OneContainer) -> None:
        super().__init__(Config(), SystemClock(), lambda _: None)  # type: ignore[arg-type]
        self._host, self._seen, self._engine = host, seen, engine

    def own_container(self) -> OwnContainer:
        return OwnContainer(self._host.proc / "nobody")

    def engine(self) -> Any:
        return self._engine

    def read_modules(self) -> Snapshot:
        return self._seen


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def engine() -> OneContainer:
    return OneContainer()


def watch(
    host: FakeHost, engine: OneContainer, seen: Snapshot, cgroup_ids: dict[ProcessKey, int]
) -> Watch:
    witness = cast("Witness", FakeWitness(cgroup_ids))
    return Watch(FakeOutside(host, seen, engine), host.layout(), witness)


def test_a_container_of_another_docker_is_in_the_table(
    host: FakeHost, engine: OneContainer
) -> None:
    own = host.cgroup(f"/system.slice/docker-{full_id('a')}.scope")
    other = host.cgroup(f"/other/docker-{full_id('f')}.scope")
    processes = [process(pid, cgroup_id=group) for pid, group in ((7, own), (8, other))]
    seen = dataclasses.replace(
        snapshot(*processes),
        candidates=tuple(candidate(one.pid, cgroup_id=one.cgroup_id) for one in processes),
    )
    ids = {process.key: process.cgroup_id for process in processes}

    answer = watch(host, engine, seen, ids).look().attribution

    assert {row.process.pid: row.container_id for row in answer.rows} == {
        7: full_id("a"),
        8: full_id("f"),
    }
    assert (answer.counts.agree, answer.counts.dropped) == (2, 0)


def test_docker_is_asked_once_more_and_not_for_ever_for_what_it_does_not_explain(
    host: FakeHost, engine: OneContainer
) -> None:
    unit = host.cgroup("/system.slice/private.service")
    seen = dataclasses.replace(
        snapshot(process(9, cgroup_id=unit + 1000)),
        candidates=(candidate(9, cgroup_id=unit + 1000),),
    )
    one = watch(host, engine, seen, {})

    one.look()
    assert engine.asked == 2
    one.look()
    assert engine.asked == 3
