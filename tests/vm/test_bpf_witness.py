"""The second witness in a guest, on every kernel and mode of cgroups of the lab."""

from __future__ import annotations

import pytest

from tests.bpf_cases import BpfCases, boxes, program, storms, witness
from tests.bpf_history_cases import BpfHistoryCases
from tests.vm.conftest import Images

# Minutes of guest time: beyond what CI has for one guest.
pytestmark = pytest.mark.full

__all__ = ["boxes", "program", "storms", "witness"]


@pytest.fixture(scope="module")
def image(images: Images) -> str:
    return images.alpine


@pytest.mark.usefixtures("image")
class TestBpf(BpfCases):
    pass


@pytest.mark.usefixtures("image")
class TestBpfHistory(BpfHistoryCases):
    pass
