"""The agent with BPF on, on this machine's own kernel and the fallback source of processes."""

from __future__ import annotations

import pytest

from tests.bpf_agent_cases import BpfAgentCases, place, two
from tests.bpf_cases import boxes, program
from tests.docker.test_bpf_native import image

__all__ = ["boxes", "image", "place", "program", "two"]


@pytest.mark.usefixtures("image")
class TestBpfAgent(BpfAgentCases):
    words = ("--source", "psutil")
