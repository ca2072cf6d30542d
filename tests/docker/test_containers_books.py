"""The books of removals close: every row of `deletions` against `docker events`.

One tick of the whole agent as its user runs it, processes read by psutil, on an engine of its own.
What the rows claim and what Docker saw has to be the same, container by container.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent_process import rows, run_agent
from tests.containers import STRESS, wait_until
from tests.docker.private_engine import DOCKERS, PrivateEngine, private_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD_MB = {0: 4, 1: 14, 2: 24, 3: 34, 4: 44}


@pytest.fixture(scope="module", params=DOCKERS)
def module_engine(request: pytest.FixtureRequest) -> Iterator[PrivateEngine]:
    with private_engine(request.param) as engine:
        yield engine


@pytest.fixture
def engine(module_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    yield module_engine
    module_engine.clear()
    subprocess.run(["rm", "-rf", str(module_engine.directory / "agent")], check=True)


def settings(engine: PrivateEngine) -> Path:
    """A configuration that keeps everything of the agent below the engine's directory."""
    place = engine.directory / "agent"
    place.mkdir(mode=0o750, exist_ok=True)
    file = place / "agent.toml"
    file.write_text(
        f'docker_host = "{engine.host}"\nsource = "psutil"\n[paths]\nrun = "{place}/run"\n'
        f'log = "{place}/log"\ndatabase = "{place}/db/metrics.db"\nbuild = "{place}/build"\n'
    )
    return file


def deletions(engine: PrivateEngine) -> dict[str, dict[str, Any]]:
    """Row by container name; no container has two."""
    found = rows(
        engine.directory / "agent/db/metrics.db", "SELECT * FROM deletions ORDER BY rank, id"
    )
    by_name = {row["container_name"].removeprefix("so1_contenedor_"): row for row in found}
    assert len(by_name) == len(found)
    return by_name


def one_tick(engine: PrivateEngine, *options: str) -> None:
    done = run_agent("start", "--once", "--no-bpf", "--config", str(settings(engine)), *options)
    assert done.returncode == 0, done.stdout + done.stderr


def holding(engine: PrivateEngine, number: int, *options: str) -> str:
    """A low container that holds `HELD_MB` of tmpfs."""
    fill = f"dd if=/dev/zero of=/dev/shm/x bs=1M count={HELD_MB[number]} 2>/dev/null"
    return engine.run(
        *("--name", f"so1_contenedor_{number}", *options),
        command=("sh", "-c", f"{fill}; touch /filled; exec sleep infinity"),
    )


def is_filled(engine: PrivateEngine, container: str) -> bool:
    return engine.docker("exec", container, "ls", "/filled", check=False) == "/filled"


@pytest.fixture
def population(engine: PrivateEngine) -> dict[str, str]:
    """Name → full id: five low ones, two high, one exited, and some that nobody may touch."""
    ids = {str(number): holding(engine, number) for number in range(4)}
    ids["4"] = holding(engine, 4, "--rm")
    for number in (5, 6, 7):
        ids[str(number)] = engine.run(
            *("--name", f"so1_contenedor_{number}"),
            image=STRESS,
            command=("stress", "--vm", "1", "--vm-bytes", f"{8 * number}M", "--vm-hang", "999"),
        )
    ids["exited"] = engine.run("--name", "so1_contenedor_exited", command=("true",))
    ids["protected"] = engine.run(
        "--name", "so1_contenedor_protected", "--label", "so1.protect=true"
    )
    ids["grafana"] = engine.run("--name", "grafana")
    ids["theirs"] = engine.run("--name", "theirs")
    wait_until(
        lambda: all(is_filled(engine, ids[str(number)]) for number in HELD_MB),
        "the low ones hold their memory",
    )
    wait_until(
        lambda: engine.inspect(ids["exited"])["State"]["Status"] == "exited", "one has exited"
    )
    return ids


def test_every_row_is_what_docker_saw_and_docker_saw_no_more(
    engine: PrivateEngine, population: dict[str, str]
) -> None:
    since = engine.now()
    one_tick(engine)
    destroyed = {which for _, which in engine.events(since, "destroy")}
    written = deletions(engine)
    assert {name: row["outcome"] for name, row in written.items()} == {
        "3": "removed",
        "4": "gone",  # `--rm`: Docker itself took it away once it had been stopped
        "7": "removed",
        "exited": "removed",
    }
    assert destroyed == {population[name] for name in written}
    for name, row in written.items():
        assert population[name].startswith(row["container_id"])
        assert row["error"] == ""
    assert [written[name]["reason"] for name in ("3", "4", "7", "exited")] == [
        "excess-low",
        "excess-low",
        "excess-high",
        "exited",
    ]
    for name in ("3", "4"):
        assert HELD_MB[int(name)] <= written[name]["held_mb"] <= HELD_MB[int(name)] + 8
    (metrics,) = rows(engine.directory / "agent/db/metrics.db", "SELECT * FROM metrics")
    assert metrics["deleted_count"] == 3
    # Running ones that remain, Grafana not counted.
    assert metrics["container_count"] == len(engine.names()) - 1
    # One tick leaves containers alone when it ends, and a second has nothing to decide.
    since = engine.now()
    one_tick(engine)
    assert engine.events(since, "stop", "kill", "destroy") == []
    assert deletions(engine).keys() == written.keys()


def test_a_dry_run_writes_the_same_decisions_and_docker_sees_none_of_them(
    engine: PrivateEngine, population: dict[str, str]
) -> None:
    since = engine.now()
    one_tick(engine, "--dry-run")
    assert engine.events(since, "stop", "kill", "die", "destroy", "pause", "rename") == []
    written = deletions(engine)
    assert written.keys() == {"3", "4", "7", "exited"}
    assert {row["outcome"] for row in written.values()} == {"dry-run"}


def test_scope_all_governs_strangers_and_still_spares_the_protected(
    engine: PrivateEngine, population: dict[str, str]
) -> None:
    for number in range(4):
        engine.run("--name", f"stranger{number}")
    since = engine.now()
    one_tick(engine, "--scope", "all")
    destroyed = {which for _, which in engine.events(since, "destroy")}
    # Of ten low and three high ones five stay; the exited one goes too.
    assert len(destroyed) == 7 + 1 + 1
    assert {population[name] for name in ("grafana", "protected")} & destroyed == set()
    low = [name for name in engine.names() if name not in {"grafana", "so1_contenedor_protected"}]
    assert len(low) == 3 + 2


def _upper_directory(engine: PrivateEngine, container: str) -> str | None:
    """None where Docker does not say: with containerd's image store it has no graph driver."""
    about = engine.inspect(container).get("GraphDriver") or {}
    found: str | None = (about.get("Data") or {}).get("UpperDir")
    return found


def test_one_that_cannot_be_removed_is_written_as_failed_and_no_other_goes(
    engine: PrivateEngine, population: dict[str, str]
) -> None:
    upper = _upper_directory(engine, population["4"])
    file = Path(str(upper)) / "fixed"
    if upper is None or subprocess.run(["touch", str(file)]).returncode != 0:
        pytest.skip("the engine's storage driver is not overlay2")
    if subprocess.run(["chattr", "+i", str(file)], capture_output=True).returncode != 0:
        pytest.skip("the file system takes no `chattr +i`")
    try:
        since = engine.now()
        one_tick(engine)
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)
    written = deletions(engine)
    destroyed = {which for _, which in engine.events(since, "destroy")}
    assert {population[name] for name, row in written.items() if row["outcome"] != "failed"} == (
        destroyed
    )
    assert population["4"] not in destroyed
    assert written["4"]["outcome"] in {"failed", "gone"}
    assert written.keys() == {"3", "4", "7", "exited"}


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent's start needs root")
