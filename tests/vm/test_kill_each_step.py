"""The agent ended at each step in a guest, with the kernel modules."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import containers
from tests.kill_cases import MODULE_STEPS, KillCases, Place, Step, cases, end_at, place
from tests.leftover_cases import LeftoverCases

if TYPE_CHECKING:
    from tests.vm.conftest import Images

__all__ = ["place"]

# Fifty starts at a guest's pace: beyond what CI has for one guest.
pytestmark = pytest.mark.full


@dataclass(frozen=True, slots=True)
class GuestEngine:
    """The guest's own engine, where only tests make containers."""

    host: str = containers.HOST

    def docker(self, *words: str) -> str:
        return containers.docker(*words)


@pytest.fixture(scope="module")
def engine(images: Images) -> GuestEngine:
    assert os.environ.get("SO1_LAB") == "1"
    return GuestEngine()


class TestKillEachStep(KillCases):
    source = "modules"

    @pytest.mark.parametrize(("step", "way"), cases(MODULE_STEPS))
    def test_killed_while_the_modules_are_unloaded(
        self, place: Place, step: Step, way: str
    ) -> None:
        end_at(place, step)
        place.bring_to_an_end(way)


class TestLeftovers(LeftoverCases):
    source = "modules"
