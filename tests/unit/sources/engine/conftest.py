"""Fixtures of the tests that meet an engine: the fake one, its client, and a clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.sources.engine.inventory import Engine
from tests.unit.sources.engine.fake_engine import Clock, FakeEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    made = FakeEngine(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(fake: FakeEngine, clock: Clock) -> Iterator[Engine]:
    made = Engine(fake.host, clock, deadline_s=1.0)
    yield made
    made.close()
