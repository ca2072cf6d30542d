"""The main job end to end on a real kernel, as its user runs it.

Nine containers, some of them awkward; the oracle is a shell's view of `cgroup.procs` and Docker's
own word, taken before the agent starts.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import containers
from tests.agent_process import AgentProcess, rows, run_agent
from tests.containers import docker, inspect, pids_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.conftest import Images

CRON_FILE = Path("/etc/cron.d/so1-agent")
CRONTABS = Path("/var/spool/cron/crontabs")
PREFIX = "so1_contenedor_"
CRONTAB = b"# mine\n17 4 * * 1 /usr/bin/true 100\\% mine\n"
QUIET = ("--no-grafana", "--no-bpf")


def hold(mb: int) -> list[str]:
    """Holds `mb` of tmpfs, which counts as held memory, in a shell with a name of its own."""
    return [
        "sh",
        "-c",
        f"dd if=/dev/zero of=/dev/shm/x bs=1M count={mb} 2>/dev/null; sleep 9999 & wait",
    ]


def keep(mb: int) -> list[str]:
    """Holds `mb` and sleeps: without --vm-hang it would touch them for ever, on a CPU of ours."""
    words = f"stress --vm 1 --vm-bytes {mb}M --vm-keep --vm-hang 9999"
    return words.split()


def odd_name() -> list[str]:
    """A process whose name would end a JSON string."""
    name = r"""printf '"},{"a\\b' > /proc/$$/comm"""
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=26 2>/dev/null"
    script = f"{name}; {fill}; sleep 9999 & wait"
    return ["sh", "-c", script]


@pytest.fixture
def database() -> Iterator[Path]:
    # A directory that others can write is refused, and pytest's own is below /tmp.
    parent = Path("/var/lib/so1-test")
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    yield directory / "metrics.db"
    shutil.rmtree(directory)


@pytest.fixture
def nine(images: Images) -> Iterator[dict[str, str]]:
    """Name → full id of nine governed containers; the least hungry come first in each tier."""
    mine = containers.Containers()
    run = mine.run
    ids = {}

    def make(number: int, image: str, command: list[str], *options: str) -> None:
        name = f"{PREFIX}{number}"
        ids[name] = run(image, command, name=name, options=options)

    try:
        make(1, images.alpine, hold(2), "--uts=host")
        make(2, images.alpine, hold(10), "--pid=host")
        make(3, images.alpine, hold(18))
        make(4, images.alpine, odd_name())
        make(5, images.alpine, hold(40))
        make(6, images.stress, ["stress", "--cpu", "1"], "--cpus=0.2")
        make(7, images.stress, keep(24))
        make(8, images.stress, keep(48))
        make(9, images.stress, keep(72))
        docker("exec", "-d", ids[f"{PREFIX}3"], "sleep", "7777")
        for name, mb in ((f"{PREFIX}5", 40), (f"{PREFIX}9", 72)):
            wait_until(partial(_holds, ids[name], mb), f"{name} holds {mb} MB")
        wait_until(lambda: len(pids_of(ids[f"{PREFIX}3"])) >= 3, "the exec'd process is there")
        yield ids
    finally:
        mine.close()


def _holds(container: str, mb: int) -> bool:
    return held_mb(container) >= mb


def held_mb(container: str) -> float:
    """anon + shmem of the container's cgroup, read here."""
    directory = containers.cgroup_directory(containers.first_pid(container))
    text = (directory / "memory.stat").read_text(encoding="ascii")
    figures = dict(line.split() for line in text.splitlines())
    wanted = ("anon", "shmem") if "anon" in figures else ("total_rss", "total_shmem")
    return sum(int(figures[name]) for name in wanted) / 2**20


def oracle(ids: dict[str, str]) -> dict[int, str]:
    """pid → container name by `cgroup.procs`."""
    return {pid: name for name, identity in ids.items() for pid in pids_of(identity)}


def running(prefix: str = PREFIX) -> set[str]:
    return {
        name for name in docker("ps", "--format", "{{.Names}}").split() if name.startswith(prefix)
    }


def loaded_modules() -> set[str]:
    return {name for name in ("sysinfo", "continfo") if Path(f"/sys/module/{name}").exists()}


def agent_processes() -> str:
    done = subprocess.run(
        ["pgrep", "-af", "m agent start|generar_contenedores|agent.sources"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_every_stored_row_names_the_right_container_and_a_dry_run_touches_nothing(
    nine: dict[str, str], database: Path
) -> None:
    expected = oracle(nine)
    done = run_agent("start", "--once", "--dry-run", *QUIET, "--database", str(database))
    assert done.returncode == 0, done.stderr + done.stdout
    found = rows(
        database,
        "SELECT pid, process_name, container_name, container_id, basis, verified"
        " FROM container_stats",
    )
    assert {row["pid"]: row["container_name"] for row in found} == expected
    assert all(nine[row["container_name"]].startswith(row["container_id"]) for row in found)
    assert {row["process_name"] for row in found} >= {'"},{"a\\b', "stress", "sleep"}
    assert rows(database, "SELECT source FROM metrics") == [{"source": "modules"}]
    assert {row["verified"] for row in found} == {"unverified"}
    by_name = {row["container_name"]: row["basis"] for row in found}
    assert by_name[f"{PREFIX}1"] == "cgroup"  # its PID namespace is its own
    assert running() == set(nine)
    decided = rows(database, "SELECT container_name, outcome, rank FROM deletions ORDER BY rank")
    assert {row["container_name"] for row in decided} == {f"{PREFIX}{n}" for n in (4, 5, 8, 9)}
    assert {row["outcome"] for row in decided} == {"dry-run"}
    assert loaded_modules() == set()
    assert not CRON_FILE.exists()


def test_the_first_tick_leaves_the_ones_that_hold_least_and_nothing_else_is_touched(
    nine: dict[str, str], database: Path, images: Images, started: containers.Containers
) -> None:
    first = run_agent("start", "--once", "--dry-run", *QUIET, "--database", str(database))
    assert first.returncode == 0, first.stderr
    installation = (database.parent / "installation").read_text(encoding="ascii").strip()
    labelled = "so1-test-labelled-alpine:local"
    archive = docker("create", images.alpine, "true")
    subprocess.run(
        f"docker export {archive} | docker import -c 'ENV PATH=/bin'"
        f" -c 'LABEL so1.installation={installation}' - {labelled}",
        shell=True,
        check=True,
        capture_output=True,
    )
    docker("rm", archive)
    bystanders = {
        "bystander": started.run(images.alpine, ["sleep", "9999"], name="bystander"),
        "my_grafana": started.run(images.alpine, ["sleep", "9999"], name="my_grafana"),
        "protected": started.run(
            images.alpine,
            ["sleep", "9999"],
            name=f"{PREFIX}777",
            options=["--label", "so1.protect=true"],
        ),
        "labelled": started.run(labelled, ["sleep", "9999"], name="labelled"),
    }
    docker("kill", nine[f"{PREFIX}7"])  # an exited governed one goes too
    CRONTABS.mkdir(parents=True, exist_ok=True)
    subprocess.run(["crontab", "-"], input=CRONTAB, check=True)
    words = ("--no-cron", *QUIET, "--interval", "600", "--database", str(database))
    with AgentProcess(words) as agent:
        began = time.monotonic()
        line = agent.wait_for_tick(1)
        took = time.monotonic() - began
        keep = {f"{PREFIX}{n}" for n in (1, 2, 3, 6, 8)}
        kept_ids = {nine[name][:12] for name in keep}
        # A tick waits five seconds for its removals, which an emulated engine may outlast.
        wait_until(lambda: running() - {f"{PREFIX}777"} == keep, "those that hold least are left")
        print(f"from start to the policy held: {took:.1f} s; {line}")
        metrics = rows(database, "SELECT * FROM metrics ORDER BY id DESC LIMIT 1")[0]
        if metrics["deleted_count"] == 4:
            assert metrics["container_count"] == len(keep) + 3  # the bystanders without Grafana
        else:
            assert metrics["container_count"] > len(keep) + 3

        # The limit: an eleventh governed one starts a pass at once, long before the next tick.
        extra = [
            started.run(images.alpine, ["sleep", "9999"], name=f"{PREFIX}{n}")
            for n in range(20, 26)
        ]
        assert len(extra) == 6
        wait_until(lambda: len(running() - {f"{PREFIX}777"}) == 5, "the pass at once")
        assert len(rows(database, "SELECT id FROM metrics WHERE deleted_count >= 0")) == 2

        agent.signal(signal.SIGTERM)
        assert agent.wait_end() == 0, agent.output
    gone = [
        row
        for row in rows(database, "SELECT * FROM deletions WHERE outcome != 'dry-run'")
        if row["container_id"] in {identity[:12] for identity in nine.values()} - kept_ids
    ]
    assert {row["container_name"]: row["reason"] for row in gone} == {
        f"{PREFIX}4": "excess-low",
        f"{PREFIX}5": "excess-low",
        f"{PREFIX}9": "excess-high",
        f"{PREFIX}7": "exited",
    }
    assert {row["outcome"] for row in gone} == {"removed"}
    in_all = "SELECT count(*) AS n FROM deletions WHERE outcome = 'removed'"
    counted = rows(database, "SELECT sum(deleted_count) AS n FROM metrics")
    assert counted == rows(database, in_all)
    for name, identity in bystanders.items():
        assert inspect(identity)["State"]["Running"], name
    assert subprocess.run(["crontab", "-l"], capture_output=True, check=True).stdout == CRONTAB
    assert loaded_modules() == set()
    docker("rm", "-f", bystanders["labelled"])
    docker("rmi", labelled)


@pytest.fixture
def settings(images: Images, database: Path) -> Path:
    """A configuration that makes load of the stand-ins."""
    path = database.parent / "agent.toml"
    path.write_text(
        f'interval_s = 3\n[images]\nlow = "{images.alpine}"\nhigh = "{images.stress}"\n'
        f'[grafana]\nenabled = false\n[bpf]\nenabled = false\n[paths]\ndatabase = "{database}"\n',
        encoding="utf-8",
    )
    return path


def assert_nothing_is_left(crontabs: dict[str, bytes]) -> None:
    assert loaded_modules() == set()
    assert not CRON_FILE.exists()
    assert docker("ps", "-aq", "--filter", f"name={PREFIX}") == ""
    assert agent_processes() == ""
    assert {path.name: path.read_bytes() for path in CRONTABS.iterdir()} == crontabs


@pytest.fixture
def crontabs() -> dict[str, bytes]:
    subprocess.run(["crontab", "-"], input=CRONTAB, check=True)
    return {path.name: path.read_bytes() for path in CRONTABS.iterdir()}


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.any_kernel),
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.any_kernel),
    ],
)
def test_a_signal_takes_down_all_that_the_agent_brought_and_nothing_else(
    settings: Path, database: Path, crontabs: dict[str, bytes], number: signal.Signals
) -> None:
    with AgentProcess(("--config", str(settings))) as agent:
        agent.wait_for_tick(1)
        assert CRON_FILE.exists()
        assert loaded_modules() == {"sysinfo", "continfo"}
        wait_until(running, "load is generated")
        agent.signal(number)
        assert agent.wait_end() == 0, agent.output
    assert "Traceback" not in agent.output
    assert_nothing_is_left(crontabs)
    assert not database.with_name("metrics.db-wal").exists()


@pytest.mark.any_kernel
def test_after_kill_9_the_next_run_and_cleanup_reach_the_same_end(
    settings: Path, database: Path, crontabs: dict[str, bytes]
) -> None:
    with AgentProcess(("--config", str(settings))) as agent:
        agent.wait_for_tick(1)
        wait_until(running, "load is generated")
        beside = run_agent("cleanup", "--config", str(settings))
        assert beside.returncode != 0
        assert "Another agent already runs" in beside.stderr
        agent.signal(signal.SIGKILL)
        agent.wait_end()
    assert CRON_FILE.exists()
    with AgentProcess(("--config", str(settings))) as agent:
        agent.wait_for_tick(1)
        stopped = run_agent("stop", "--config", str(settings))
        assert stopped.returncode == 0, stopped.stderr
        assert agent.wait_end() == 0, agent.output
    assert_nothing_is_left(crontabs)

    with AgentProcess(("--config", str(settings))) as agent:
        agent.wait_for_tick(1)
        agent.signal(signal.SIGKILL)
        agent.wait_end()
    cleaned = run_agent("cleanup", "--config", str(settings))
    assert cleaned.returncode == 0, cleaned.stderr
    wait_until(lambda: not agent_processes(), "no process is left")
    assert_nothing_is_left(crontabs)


DELETIONS = "SELECT container_id FROM deletions WHERE outcome != 'dry-run'"


@pytest.mark.any_kernel
def test_docker_away_and_back_is_said_and_costs_no_container_in_the_first_whole_tick(
    nine: dict[str, str], database: Path
) -> None:
    def metrics() -> list[dict[str, object]]:
        return rows(database, "SELECT timestamp, container_count, deleted_count FROM metrics")

    subprocess.run(["systemctl", "stop", "docker.socket", "docker"], check=True, timeout=120)
    try:
        words = ("--no-cron", *QUIET, "--interval", "5", "--database", str(database))
        with AgentProcess(words) as agent:
            assert "Docker is away" in agent.wait_for_tick(1)
            assert metrics()[0]["container_count"] is None
            subprocess.run(["systemctl", "start", "docker"], check=True, timeout=120)
            agent.wait_for("docker=back")
            # The engine's stop ended them all: exited and governed, they go, but not at once.
            wait_until(lambda: not set(nine) & all_names(), "the exited ones go")
            # On a slow host an attempt may run into a time limit and be made again.
            wait_until(
                lambda: (
                    {one["container_id"] for one in rows(database, DELETIONS)}
                    == {identity[:12] for identity in nine.values()}
                ),
                "their rows are stored",
            )
            known = [row for row in metrics() if row["container_count"] is not None]
            assert known[0]["deleted_count"] == 0
            first_removal = rows(database, "SELECT min(timestamp) AS at FROM deletions")[0]["at"]
            assert first_removal > known[0]["timestamp"]
            agent.signal(signal.SIGINT)
            assert agent.wait_end() == 0, agent.output
            assert agent.output.count("docker=away") == 1
    finally:
        subprocess.run(["systemctl", "start", "docker"], check=False, timeout=120)


def all_names() -> set[str]:
    return set(docker("ps", "-a", "--format", "{{.Names}}").split())
