"""Cgroups of a moment and their names in a guest, on every kernel and mode of cgroups."""

from __future__ import annotations

import pytest

from tests.bpf_cases import witness
from tests.bpf_name_cases import BpfNameCases

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

__all__ = ["witness"]


class TestBpfNames(BpfNameCases):
    pass
