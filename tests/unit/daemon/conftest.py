"""The host of the tests of a whole agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.agent_scene import Host

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)
