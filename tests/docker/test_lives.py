"""A container's lives between two ticks, on an engine of its own, with the fallback source."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.sources.bpf.support import probe_support
from tests.docker.private_engine import PrivateEngine, private_engine
from tests.lives_cases import LivesCases, agent

__all__ = ["agent"]

pytestmark = pytest.mark.oom_kill


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as made:
        yield made


class TestLives(LivesCases):
    words = ("--source", "psutil", "--no-bpf")
    interval_s = 3


class TestLivesWithBpf(LivesCases):
    words = ("--source", "psutil")
    interval_s = 3
    has_bpf = True

    @pytest.fixture(autouse=True)
    def bpf(self) -> None:
        problem = probe_support().problem
        if problem:
            pytest.skip(f"needs BPF: {problem[0]}")
