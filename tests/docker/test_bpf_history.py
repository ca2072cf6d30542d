"""The witness's own history on this machine's kernel, where that kernel has BPF."""

from __future__ import annotations

import pytest

from tests.bpf_cases import boxes, program, storms, witness
from tests.bpf_history_cases import BpfHistoryCases
from tests.docker.test_bpf_native import image

__all__ = ["boxes", "image", "program", "storms", "witness"]


@pytest.mark.usefixtures("image")
class TestBpfHistory(BpfHistoryCases):
    pass
