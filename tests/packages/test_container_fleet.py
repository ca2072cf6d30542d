"""The image and the Swarm's stack ship to a real PostgreSQL as docs/install.md and fleet.md say.

What arrived is asked of psql; what the agent has, of its own SQLite.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import rows
from tests.containers import wait_until
from tests.packages.centre_server import CentreServer, centre_server
from tests.packages.conftest import IMAGE, node_directories
from tests.packages.test_container import documented_options
from tests.packages.test_swarm import deploy, one_node, task_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.private_engine import PrivateEngine

TABLES = {
    "removals": "deletions",
    "stops": "agent_stops",
    "host_1m": "rollup_host_1m",
    "container_1m": "rollup_container_1m",
    "host_5m": "rollup_host_5m",
    "container_5m": "rollup_container_5m",
}
"""The centre's → the agent's own."""


@pytest.fixture(scope="module")
def centre(engine: PrivateEngine) -> Iterator[CentreServer]:
    with centre_server(engine) as one:
        yield one


@pytest.fixture
def place(engine: PrivateEngine) -> Iterator[Path]:
    made = node_directories(engine)
    yield made
    engine.clear()
    subprocess.run(["rm", "-rf", str(made)], check=True)


def options(engine: PrivateEngine, place: Path) -> list[str]:
    """Of `docker run` as docs/install.md has them for a host that ships."""
    documented = documented_options()
    assert "--network=none" in documented
    return [
        *("--network=host" if one == "--network=none" else one for one in documented),
        *("-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"),
        *("-v", f"{engine.directory}/docker.sock:/var/run/docker.sock"),
        *("-v", f"{place}/history:/var/lib/so1", "-v", f"{place}/settings:/etc/so1:ro"),
    ]


def own(place: Path, table: str) -> int:
    count = f"SELECT count(*) AS n FROM {table}"
    return int(rows(place / "history/metrics.db", count)[0]["n"])


def installation_of(place: Path) -> str:
    file = place / "history/installation"
    wait_until(lambda: file.exists() and file.read_text().strip(), "an installation's id")
    return file.read_text().strip()


def arrived(centre: CentreServer, installation: str, table: str, what: str = "count(*)") -> str:
    query = f"SELECT {what} FROM so1.{table} WHERE installation = '{installation}'"
    return "\n".join(sorted(centre.ask(query)))


def test_an_agent_in_its_container_ships_every_row_that_it_has(
    engine: PrivateEngine, centre: CentreServer, place: Path
) -> None:
    settings = "interval_s = 1\n[policy]\nkeep_low = 0\nkeep_high = 0\n"
    centre.write_settings(place / "settings", settings)
    start = ("start", "--source", "psutil", "--no-cron", "--no-grafana", "--no-bpf")
    shared = options(engine, place)
    engine.docker("run", "-d", "--name", "so1_agent", *shared, IMAGE, *start)
    installation = installation_of(place)
    centre.enroll(installation, place / "settings")
    # Of this installation, so that the policy removes them.
    label = ("--label", f"so1.installation={installation}")
    others = [engine.run("--name", f"other_{number}", *label) for number in range(3)]

    def all_there() -> bool:
        state = engine.inspect("so1_agent")["State"]
        assert state["Running"], engine.docker("logs", "so1_agent")
        removed = arrived(centre, installation, "removals", "container_id").split()
        minutes = int(arrived(centre, installation, "host_1m"))
        return removed == sorted(one[:12] for one in others) and minutes >= 1

    try:
        wait_until(all_there, "removals and a minute at the centre", timeout_s=400)
    except AssertionError as error:
        said = engine.docker("exec", "so1_agent", "agent", "fleet", "status", check=False)
        raise AssertionError(f"{error}\n{said}") from None
    assert engine.docker("exec", "so1_agent", "agent", "fleet", "status")
    engine.docker("stop", "-t", "60", "so1_agent")
    # What came after its last flush.
    engine.docker("run", "--rm", *shared, IMAGE, "fleet", "ship")
    counts = {name: own(place, table) for name, table in TABLES.items()}
    assert counts["removals"] == 3
    assert {name: int(arrived(centre, installation, name)) for name in TABLES} == counts
    assert len(centre.logins()) >= 2
    assert all("SSL enabled" in one for one in centre.logins())


def test_the_stack_of_a_swarm_ships_its_nodes_rows_and_leaves_what_its_page_says(
    engine: PrivateEngine, centre: CentreServer, place: Path
) -> None:
    centre.write_settings(place / "settings", "interval_s = 1\n")
    with one_node(engine):
        engine.run("--name", "job")
        before = {path.name for path in (place / "settings").iterdir()}
        deploy(engine, place, SO1_NETWORK="host")
        try:
            installation = installation_of(place)
            centre.enroll(installation, place / "settings")
            wait_until(
                lambda: "job" in arrived(centre, installation, "container_1m", "container_name"),
                "the job's minutes at the centre",
                timeout_s=400,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{task_logs(engine)}") from None
        engine.docker("stack", "rm", "so1")
        wait_until(lambda: engine.names("-a") == {"job"}, "the agent is gone", timeout_s=240)
        assert engine.docker("volume", "ls", "-q") == ""
        assert engine.docker("config", "ls", "-q") == ""
    engine.docker("run", "--rm", *options(engine, place), IMAGE, "fleet", "ship")
    counts = {name: own(place, table) for name, table in TABLES.items()}
    assert counts["container_1m"] >= 1
    assert {name: int(arrived(centre, installation, name)) for name in TABLES} == counts
    # On the node: its history, and what the administrator put there.
    assert (place / "history/metrics.db").stat().st_size > 0
    after = {path.name for path in (place / "settings").iterdir()}
    assert after == before | {"fleet.secret"}
