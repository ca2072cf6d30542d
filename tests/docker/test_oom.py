"""OOM kills in containers of this machine's own engine, where its kernel has BPF."""

from __future__ import annotations

import pytest

from tests.bpf_agent_cases import place
from tests.bpf_cases import boxes
from tests.docker.test_bpf_native import image
from tests.oom_cases import OomCases, eater, ground, kmsg, shared

__all__ = ["boxes", "eater", "ground", "image", "kmsg", "place", "shared"]

pytestmark = pytest.mark.oom_kill


@pytest.mark.usefixtures("image")
class TestOom(OomCases):
    words = ("--source", "psutil")
