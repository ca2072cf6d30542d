"""A container's lives between two ticks, in a guest: with the modules as source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.private_engine import PrivateEngine
from tests.lives_cases import LivesCases, agent

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

__all__ = ["agent"]


@pytest.fixture(scope="module")
def engine(images: object) -> PrivateEngine:
    """The guest's own, which is nobody else's either."""
    return PrivateEngine(Path("/run"))


class TestLives(LivesCases):
    words = ("--source", "modules", "--no-bpf")
    # A restart takes some seconds there and is to lie between two ticks.
    interval_s = 15


class TestLivesWithBpf(LivesCases):
    words = ("--source", "modules")
    has_bpf = True
    interval_s = 15
