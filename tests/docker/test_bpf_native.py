"""The second witness on this machine's own kernel, where that kernel has BPF."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sources.bpf.support import probe_support
from tests import containers
from tests.bpf_cases import BpfCases, boxes, program, storms, witness

__all__ = ["boxes", "program", "storms", "witness"]

# Storms of this machine's own, judged to two percent: not beside whatever else it runs.
pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An empty image: what runs in it is mounted."""
    problem = probe_support().problem
    if problem:
        pytest.skip(f"needs BPF: {problem[0]}")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not containers.engine_answers():
        pytest.skip("needs a Docker engine")
    name = f"so1-test-bpf:{uuid.uuid4().hex[:8]}"
    empty = subprocess.run(["tar", "-cT", "/dev/null"], capture_output=True, check=True)
    archive = Path(f"/var/tmp/{name.replace(':', '-')}.tar")
    archive.write_bytes(empty.stdout)
    try:
        containers.import_image(name, archive)
    finally:
        archive.unlink()
    yield name
    containers.docker("image", "rm", "--force", name)


@pytest.mark.usefixtures("image")
class TestBpf(BpfCases):
    pass
