"""The image of packaging/container, built without a network and run on an engine of its own.

What a container is called and which processes it has is asked of Docker and the kernel, never of
the agent.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent_process import rows
from tests.containers import DockerCommandError, wait_until
from tests.packages.conftest import IMAGE, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.private_engine import PrivateEngine

DOCUMENT = PROJECT / "docs/install.md"


@pytest.fixture
def place(engine: PrivateEngine) -> Iterator[Path]:
    """The agent's history, as the host sees it."""
    made = Path(tempfile.mkdtemp(prefix="history-", dir=engine.directory))
    made.chmod(0o750)
    yield made
    engine.clear()
    subprocess.run(["rm", "-rf", str(made)], check=True)


def documented_options() -> list[str]:
    """The options of `docker run` in docs/install.md, without its mounts, name and restart."""
    text = DOCUMENT.read_text(encoding="utf-8")
    command = re.search(r"docker run (-d .*?) so1-agent\n```", text, re.S)
    assert command is not None
    words = command[1].replace("\\\n", " ").split()
    options: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("-v", "--name", "--restart"):
            skip = True
        elif word != "-d":
            options.append(word)
    return options


def start(
    engine: PrivateEngine,
    place: Path,
    *more: str,
    without: str = "",
    words: tuple[str, ...] = (),
    more_settings: str = "",
) -> str:
    """Starts the agent's container as docs/install.md has it; its full id."""
    options = [one for one in documented_options() if one != without]
    settings = place / "agent.toml"
    settings.write_text("interval_s = 1\n[policy]\nkeep_low = 0\nkeep_high = 0\n" + more_settings)
    command = words or ("start", "--source", "psutil", "--no-cron", "--no-grafana", "--no-bpf")
    return engine.docker(
        *("run", "-d", "--name", "so1_agent", *options, *more),
        *("-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"),
        *("-v", f"{engine.directory}/docker.sock:/var/run/docker.sock"),
        *("-v", f"{place}:/var/lib/so1", "-v", f"{settings}:/etc/so1/agent.toml:ro"),
        *(IMAGE, *command),
    )


def stored(database: Path) -> bool:
    """Whether the schema is there; the file is earlier."""
    made = "SELECT name FROM sqlite_master WHERE name IN ('metrics', 'container_stats')"
    return database.exists() and len(rows(database, made)) == 2


def ticks(place: Path) -> int:
    database = place / "metrics.db"
    if not stored(database):
        return 0
    return int(rows(database, "SELECT count(*) AS n FROM metrics")[0]["n"])


def wait_for_ticks(engine: PrivateEngine, place: Path, number: int) -> None:
    def there() -> bool:
        state = engine.inspect("so1_agent")["State"]
        assert state["Running"], engine.docker("logs", "so1_agent")
        return ticks(place) >= number

    wait_until(there, f"{number} ticks", timeout_s=240)


def named(place: Path) -> dict[int, str]:
    """pid → container's name, of every stored row of a process in a container."""
    query = "SELECT DISTINCT pid, container_name FROM container_stats"
    return {row["pid"]: row["container_name"] for row in rows(place / "metrics.db", query)}


def pids(engine: PrivateEngine, container: str) -> set[int]:
    """By `docker top`, which asks the kernel for the cgroup's processes."""
    lines = engine.docker("top", container, "-eo", "pid").splitlines()[1:]
    return {int(line) for line in lines}


def test_the_agent_in_its_container_names_every_row_rightly(
    engine: PrivateEngine, place: Path
) -> None:
    loop = ("sh", "-c", "sleep 1000 & sleep 1001 & wait")
    for number in range(3):
        engine.run("--name", f"job_{number}", command=loop)
    expected = {pid: f"job_{n}" for n in range(3) for pid in pids(engine, f"job_{n}")}
    assert len(expected) == 9
    start(engine, place)
    wait_for_ticks(engine, place, 3)
    found = named(place)
    own = pids(engine, "so1_agent")
    assert {pid: name for pid, name in found.items() if name.startswith("job_")} == expected
    assert {name for pid, name in found.items() if pid in own} <= {"so1_agent"}
    said = json.loads(engine.docker("exec", "so1_agent", "/usr/bin/agent", "status", "--json"))
    assert said["running"] is True
    assert said["problems"] == []


def test_under_scope_all_all_others_go_and_its_own_container_stays(
    engine: PrivateEngine, place: Path
) -> None:
    others = [engine.run("--name", f"other_{number}") for number in range(3)]
    words = (
        "start",
        "--source",
        "psutil",
        "--no-cron",
        "--no-grafana",
        "--no-bpf",
        "--scope",
        "all",
    )
    own = start(engine, place, words=words)
    wait_until(
        lambda: not any(engine.exists(one) for one in others), "the others are gone", timeout_s=240
    )
    wait_for_ticks(engine, place, ticks(place) + 2)
    assert engine.exists(own)
    gone = {row["container_id"] for row in rows(place / "metrics.db", "SELECT * FROM deletions")}
    assert gone == {one[:12] for one in others}


def test_a_stop_of_the_container_is_a_clean_stop_of_the_agent(
    engine: PrivateEngine, place: Path
) -> None:
    own = start(engine, place)
    wait_for_ticks(engine, place, 1)
    engine.docker("stop", "-t", "60", own)
    assert engine.inspect(own)["State"]["ExitCode"] == 0
    assert not (place / "metrics.db-wal").exists()
    assert "Stopped." in engine.docker("logs", own)


def test_without_the_hosts_processes_none_is_named(engine: PrivateEngine, place: Path) -> None:
    assert "--pid=host" in documented_options()
    engine.run("--name", "job")
    start(engine, place, without="--pid=host")
    wait_for_ticks(engine, place, 3)
    assert "job" not in named(place).values()


@pytest.mark.parametrize("without", ["", "--cap-add=SYS_PTRACE"])
def test_the_capability_is_what_namespaces_are_looked_at_by(
    engine: PrivateEngine, place: Path, without: str
) -> None:
    """By its namespaces a process is known that has left its container's cgroup."""
    assert "--cap-add=SYS_PTRACE" in documented_options()
    job = engine.run("--name", "job", "--user", "1234:1234")
    pid = engine.inspect(job)["State"]["Pid"]
    start(engine, place, without=without)
    link = f"/proc/{pid}/ns/pid"
    said = engine.docker("exec", "so1_agent", "readlink", link, check=False)
    assert said == ("" if without else str(Path(link).readlink()))


def test_it_has_no_right_beyond_those_of_the_documents(engine: PrivateEngine, place: Path) -> None:
    own = start(engine, place)
    wait_for_ticks(engine, place, 1)
    status = Path(f"/proc/{engine.inspect(own)['State']['Pid']}/status").read_text()
    effective = re.search(r"^CapEff:\s+([0-9a-f]+)$", status, re.M)
    assert effective is not None
    # CAP_SYS_PTRACE is 19 (capabilities(7), linux/capability.h).
    assert int(effective[1], 16) == 1 << 19
    host = engine.inspect(own)["HostConfig"]
    assert (host["Privileged"], host["NetworkMode"]) == (False, "none")


def test_the_second_witness_works_with_two_more_rights(engine: PrivateEngine, place: Path) -> None:
    engine.run("--name", "job")
    words = ("start", "--source", "psutil", "--no-cron", "--no-grafana")
    try:
        start(engine, place, "--cap-add=BPF", "--cap-add=PERFMON", words=words)
    except DockerCommandError as error:
        # Docker 20.10 knows neither of the two; there both are part of a third.
        assert 'unknown capability: "CAP_BPF"' in str(error)
        start(engine, place, "--cap-add=SYS_ADMIN", words=words)

    def verdicts() -> set[str]:
        if not stored(place / "metrics.db"):
            return set()
        query = "SELECT DISTINCT verified FROM container_stats WHERE container_name = 'job'"
        return {row["verified"] for row in rows(place / "metrics.db", query)}

    wait_until(lambda: "agree" in verdicts(), "both witnesses agree", timeout_s=300)
    assert "conflict" not in verdicts()


def test_with_the_hosts_run_directory_a_second_agent_is_refused(
    engine: PrivateEngine, place: Path
) -> None:
    """As docs/install.md has it; each with a history of its own."""
    assert "`-v /run/so1:/run/so1`" in DOCUMENT.read_text(encoding="utf-8")
    share = ("-v", f"{place}/run:/run/so1")
    start(engine, place, *share)
    wait_for_ticks(engine, place, 1)
    second = engine.docker(
        *("run", "-d", *documented_options(), *share, "-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"),
        *("-v", f"{engine.directory}/docker.sock:/var/run/docker.sock", IMAGE),
    )
    assert engine.docker("wait", second) != "0"
    done = subprocess.run(
        ["docker", "-H", engine.host, "logs", second], capture_output=True, text=True, check=True
    )
    assert "already runs" in done.stdout + done.stderr
    assert engine.inspect("so1_agent")["State"]["Running"]
