"""The agent ended at each step on an engine of its own, without the kernel modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docker.private_engine import PrivateEngine, private_engine
from tests.kill_cases import KillCases, place
from tests.leftover_cases import LeftoverCases

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["place"]


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    with private_engine() as engine:
        yield engine


class TestKillEachStep(KillCases):
    pass


class TestLeftovers(LeftoverCases):
    pass
