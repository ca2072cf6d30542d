"""`agent bpf check` sees what a tick sees, other engines' containers included."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import pytest

from agent.cli.commands.bpf_check import Observer
from agent.clock import SystemClock
from agent.config import Config
from agent.model.bpf import BpfView
from agent.model.process import ProcessKey, Snapshot
from agent.sources.bpf import witness as bpf
from agent.sources.engine.inventory import Engine, Listing
from tests.unit.builders import candidate, process, snapshot
from tests.unit.sources.fake_host import FakeHost, container, full_id


class FakeWitness:
    def __init__(self, cgroup_ids: dict[ProcessKey, int]) -> None:
        self.cgroup_ids = cgroup_ids

    def witness(self, snapshot_ns: int) -> BpfView:
        return BpfView(
            snapshot_ns, self.cgroup_ids, {}, {}, {}, {}, frozenset(), frozenset(), 0, bpf.Seam()
        )


class FakeEngine:
    def __init__(self) -> None:
        self.asked = 0

    def list(self) -> Listing:
        self.asked += 1
        return Listing((container("a"),), 0, 0)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def observer(host: FakeHost, seen: Snapshot, cgroup_ids: dict[ProcessKey, int]) -> Observer:
    witness = cast("bpf.Witness", FakeWitness(cgroup_ids))
    one = Observer(Config(), SystemClock(), host.layout(), witness)
    one._engine = cast("Engine", FakeEngine())
    one._snapshot = lambda: seen  # type: ignore[method-assign]
    return one


def test_a_container_of_another_docker_is_in_the_table(host: FakeHost) -> None:
    own = host.cgroup(f"/system.slice/docker-{full_id('a')}.scope")
    other = host.cgroup(f"/other/docker-{full_id('f')}.scope")
    processes = [process(pid, cgroup_id=group) for pid, group in ((7, own), (8, other))]
    seen = dataclasses.replace(
        snapshot(*processes),
        candidates=tuple(candidate(one.pid, cgroup_id=one.cgroup_id) for one in processes),
    )
    one = observer(host, seen, {process.key: process.cgroup_id for process in processes})

    answer = one.observe().answer

    assert {row.process.pid: row.container_id for row in answer.rows} == {
        7: full_id("a"),
        8: full_id("f"),
    }
    assert (answer.counts.agree, answer.counts.dropped) == (2, 0)


def test_docker_is_asked_once_more_and_not_for_ever_for_what_it_does_not_explain(
    host: FakeHost,
) -> None:
    unit = host.cgroup("/system.slice/private.service")
    seen = dataclasses.replace(
        snapshot(process(9, cgroup_id=unit + 1000)),
        candidates=(candidate(9, cgroup_id=unit + 1000),),
    )
    one = observer(host, seen, {})
    engine = cast("FakeEngine", one._engine)

    one.observe()
    assert engine.asked == 2
    one.observe()
    assert engine.asked == 3
