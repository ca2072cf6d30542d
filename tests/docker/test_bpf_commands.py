"""`agent bpf trace` and `check` on this machine's own kernel, where that kernel has BPF."""

from __future__ import annotations

import pytest

from tests.bpf_cases import boxes, program, storms, witness
from tests.bpf_command_cases import BpfCommandCases
from tests.docker.test_bpf_native import image

__all__ = ["boxes", "image", "program", "storms", "witness"]


@pytest.mark.usefixtures("storms")
class TestBpfCommands(BpfCommandCases):
    pass
