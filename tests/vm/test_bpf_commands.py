"""`agent bpf trace` and `check` in a guest, beside running probes."""

from __future__ import annotations

import pytest

from tests.bpf_cases import boxes, program, storms, witness
from tests.bpf_command_cases import BpfCommandCases
from tests.vm.conftest import Modules
from tests.vm.test_bpf_witness import image

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

__all__ = ["boxes", "image", "program", "storms", "witness"]


@pytest.mark.usefixtures("storms")
class TestBpfCommands(BpfCommandCases):
    @pytest.fixture(autouse=True, scope="class")
    def _with_modules(self, modules: Modules) -> None:
        """The first witness is the modules', as in production."""
