"""packaging/swarm/stack.yml on a Swarm of one node: an engine of its own, without a network."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import rows
from tests.containers import wait_until
from tests.packages.conftest import IMAGE, PROJECT, node_directories
from tests.packages.test_container import named, pids, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.private_engine import PrivateEngine

STACK = PROJECT / "packaging/swarm/stack.yml"
AGENT = "so1-agent"


@contextmanager
def one_node(engine: PrivateEngine) -> Iterator[None]:
    """The engine is a Swarm for the block."""
    engine.in_its_network()
    engine.docker(
        *("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
    )
    try:
        yield
    finally:
        engine.docker("swarm", "leave", "--force")


@pytest.fixture(scope="module")
def swarm(engine: PrivateEngine) -> Iterator[PrivateEngine]:
    with one_node(engine):
        yield engine


@pytest.fixture
def place(swarm: PrivateEngine) -> Iterator[Path]:
    made = node_directories(swarm)
    (made / "settings/agent.toml").write_text("interval_s = 1\n")
    yield made
    swarm.docker("stack", "rm", "so1", check=False)
    wait_until(lambda: not swarm.docker("service", "ls", "-q"), "no service is left")
    swarm.clear()
    subprocess.run(["rm", "-rf", str(made)], check=True)


def deploy(swarm: PrivateEngine, place: Path, **environment: str) -> None:
    subprocess.run(
        [
            "docker",
            "-H",
            swarm.host,
            "stack",
            "deploy",
            "--resolve-image",
            "never",
            "-c",
            STACK,
            "so1",
        ],
        env={
            **os.environ,
            "SO1_IMAGE": IMAGE,
            "SO1_SOCKET": f"{swarm.directory}/docker.sock",
            "SO1_HISTORY": str(place / "history"),
            "SO1_SETTINGS": str(place / "settings"),
            "SO1_NETWORK": "none",
            **environment,
        },
        check=True,
        capture_output=True,
        timeout=120,
    )


def task_logs(swarm: PrivateEngine) -> str:
    return swarm.docker("service", "ps", "--no-trunc", "so1_agent") + swarm.docker(
        "ps", "-a", "--format", "{{.Names}} {{.Status}}"
    )


def test_one_agent_a_node_names_rightly_and_goes_with_the_stack(
    swarm: PrivateEngine, place: Path
) -> None:
    swarm.run("--name", "job")
    expected = dict.fromkeys(pids(swarm, "job"), "job")
    deploy(swarm, place)
    database = place / "history/metrics.db"

    def there() -> bool:
        count = "SELECT count(*) AS n FROM metrics"
        return stored(database) and int(rows(database, count)[0]["n"]) >= 3

    try:
        wait_until(there, "three ticks", timeout_s=300)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{task_logs(swarm)}") from None
    found = named(place / "history")
    assert {pid: name for pid, name in found.items() if name == "job"} == expected
    host = swarm.inspect(AGENT)["HostConfig"]
    assert (host["PidMode"], host["Privileged"], host["CapDrop"]) == ("host", False, ["ALL"])
    assert [one.removeprefix("CAP_") for one in host["CapAdd"]] == ["SYS_PTRACE"]
    assert len(swarm.docker("ps", "-q", "--filter", f"name=^{AGENT}$").split()) == 1

    # A task that is killed leaves the agent; the next one takes its place.
    (task,) = swarm.docker(
        "ps", "-q", "--filter", "label=com.docker.swarm.service.name=so1_agent"
    ).split()
    first = swarm.inspect(AGENT)["Id"]
    swarm.docker("kill", "-s", "KILL", task)

    def replaced() -> bool:
        known = swarm.docker("ps", "-q", "--no-trunc", "--filter", f"name=^{AGENT}$")
        return bool(known) and known != first

    wait_until(replaced, "another agent runs", timeout_s=240)
    swarm.docker("stack", "rm", "so1")
    wait_until(
        lambda: AGENT not in swarm.names("-a"), "the agent is gone with the stack", timeout_s=240
    )
    assert "job" in swarm.names()
