"""Fixtures of the tests of removals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.actions import removal
from tests.unit.actions.removal_engine import RemovalEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RemovalEngine]:
    """An engine that removes as it is asked to."""
    fake = RemovalEngine(tmp_path)
    yield fake
    fake.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of an answer that never comes: the calls wait for moments only."""
    monkeypatch.setattr(removal, "CALL_TIMEOUT_S", 0.3)
    monkeypatch.setattr(removal, "GONE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(removal, "POLL_TIMEOUT_S", 0.3)
