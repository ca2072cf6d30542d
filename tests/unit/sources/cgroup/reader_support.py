"""Hosts for the tests of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.model.container import DOCKER, ContainerKey
from tests.unit.sources.fake_host import FakeHost, full_id

A, B, F = full_id("a"), full_id("b"), full_id("f")


def docker(container_id: str) -> ContainerKey:
    return ContainerKey(DOCKER, container_id)


@pytest.fixture(params=["v2", "v1", "hybrid"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path, request.param)


@pytest.fixture
def v2(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path, "v2")
