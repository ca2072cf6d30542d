"""The agent with BPF on in a guest, with the kernel modules as its first witness."""

from __future__ import annotations

import pytest

from tests.bpf_agent_cases import BpfAgentCases, place, two
from tests.bpf_cases import boxes, program
from tests.vm.test_bpf_witness import image

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

__all__ = ["boxes", "image", "place", "program", "two"]


@pytest.mark.usefixtures("image")
class TestBpfAgent(BpfAgentCases):
    words = ("--source", "modules")
