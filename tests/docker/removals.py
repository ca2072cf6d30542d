"""What tests of removals share: decisions on real containers, and one that cannot be removed."""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.actions.remover import Remover
from agent.clock import SystemClock
from agent.engine_api.timestamps import parse_time_ns
from agent.model.container import Tier
from agent.model.removal import Decision, Outcome, Reason, Removal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.docker.private_engine import PrivateEngine

OURS = uuid.uuid4().hex
IGNORES_TERM = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")


@pytest.fixture
def remover(engine: PrivateEngine) -> Iterator[Remover]:
    remover = Remover(engine.host, SystemClock(), grace_s=1)
    yield remover
    remover.close(60)


def decision(
    engine: PrivateEngine, container: str, *, reason: Reason = Reason.EXCESS_LOW
) -> Decision:
    about = engine.inspect(container)
    return Decision(
        id=uuid.uuid4().hex[:12],
        container_id=about["Id"],
        container_name=about["Name"].lstrip("/"),
        image=about["Config"]["Image"],
        created_ns=parse_time_ns(about["Created"]),
        tier=Tier.LOW,
        rank=1,
        reason=reason,
        held_mb=1.0,
        cpu_percent=0.0,
    )


def soon(seconds: float = 60) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 10**9)


def outcomes(removals: Sequence[Removal]) -> dict[str, Outcome]:
    return {one.decision.container_id: one.outcome for one in removals}


@contextlib.contextmanager
def unremovable(engine: PrivateEngine, container: str) -> Iterator[None]:
    """A file in the container's upper directory that not even root can delete."""
    upper = engine.inspect(container)["GraphDriver"]["Data"].get("UpperDir")
    if upper is None:
        pytest.skip("the engine's storage driver is not overlay2")
    file = Path(upper) / "fixed"
    file.touch()
    if subprocess.run(["chattr", "+i", str(file)], capture_output=True).returncode != 0:
        pytest.skip("the file system takes no `chattr +i`")
    try:
        yield
    finally:
        if file.exists():
            subprocess.run(["chattr", "-i", str(file)], check=True)
