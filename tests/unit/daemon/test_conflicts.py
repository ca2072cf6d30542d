"""Witnesses that disagree: all sources are read once more, and a second disagreement stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.bpf import BpfView, Seam
from agent.model.container import ContainerKey
from agent.model.process import ProcessKey
from agent.model.tick import Part
from tests.unit.daemon.test_collector import A, B, World


class TwoWitnesses(World):
    """A host whose BPF says of A's process, look after look, that it is in the cgroup of …"""

    def __init__(self, directory: Path, *says: str) -> None:
        super().__init__(directory)
        self.says: Iterator[str] = iter(says)

    def read_bpf(self) -> Part[BpfView]:
        (first, second) = self.snapshot().processes
        ids = {
            ProcessKey(first.pid, first.start_ns): self.cgroup_of[next(self.says)],
            ProcessKey(second.pid, second.start_ns): self.cgroup_of[B],
        }
        none = frozenset[int]()
        return Part(BpfView(0, ids, {}, {}, {}, {}, none, none, 0, Seam()), 0)


def test_one_that_moved_between_two_readings_is_looked_at_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = TwoWitnesses(tmp_path, B, A)
    tick = world.looker(world.runs_as(7))()
    assert (tick.attribution.counts.conflict, tick.attribution.counts.agree) == (0, 2)
    assert list(world.says) == []
    assert "conflict" not in caplog.text


def test_a_second_disagreement_stands_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = TwoWitnesses(tmp_path, B, B, A)
    tick = world.looker(world.runs_as(7))()
    assert tick.attribution.counts.conflict == 1
    assert ContainerKey("docker", A) in tick.attribution.disputed
    assert list(world.says) == [A]  # no third look
    assert caplog.text.count("attribution=conflict rows=1") == 1
    assert A[:12] in caplog.text
