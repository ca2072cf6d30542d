"""Cgroups of a moment and their names on this machine's kernel, where that kernel has BPF."""

from __future__ import annotations

from tests.bpf_cases import witness
from tests.bpf_name_cases import BpfNameCases

__all__ = ["witness"]


class TestBpfNames(BpfNameCases):
    pass
