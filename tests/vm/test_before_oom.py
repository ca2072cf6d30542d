"""Before the OOM killer, on a real kernel: the eater goes, its neighbour and the agent stay.

The oracle is the kernel's log, `/proc/meminfo` read here, and Docker's own events. The interval is
ten minutes, so that no tick helps. How large the host is the guest says (`--memory`); by default it
is the short version, one run with MemAvailable eaten down to near the bound first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests import containers
from tests.agent_process import AgentProcess, rows
from tests.containers import docker, inspect, wait_until
from tests.vm.zram import zram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.vm.conftest import Images

BOUND_MB = 400
START_MB = 560
"""The eater takes all down to this at once, then goes on at its pace."""
RUNS = 10
SWAP_RUNS = 2
PROGRAM = Path(__file__).parent / "programs/eater.c"
KILLED = re.compile(r"Out of memory: Killed process \d+ \((?P<comm>[^)]*)\)")
AVAILABLE_RULE = f"available_mb = {BOUND_MB}"
PRESSURE_RULE = 'available_mb = 150, pressure = { memory = 5, for = "1s" }'
"""Both: little is available while swap is still empty, and where swap is quick little time is lost
until it is full."""
OOM_LOG = pytest.mark.allow_kernel_log("Out of memory: ")


@dataclass
class Run:
    """What one run of the eater came to. Times in seconds after the bound was passed."""

    setting: str
    mb_per_s: int
    eater: str = ""
    """`removed` or `oom-killed`."""
    oom_killed: list[str] = field(default_factory=list)
    """Whom the kernel killed, by its log."""
    innocent_alive: bool = True
    agent_alive: bool = True
    request_s: float | None = None
    """Until the engine was asked to kill (its event `kill`)."""
    gone_s: float | None = None
    lowest_mb: float = 0.0
    removed_rows: int = 0


class Meminfo(threading.Thread):
    """Reads MemAvailable every 20 ms, and notes when it fell below the bound."""

    def __init__(self, bound_mb: float = BOUND_MB) -> None:
        super().__init__(daemon=True)
        self._bound_mb = bound_mb
        self._over = threading.Event()
        self.passed_at: float | None = None
        self.lowest_mb = float("inf")

    def run(self) -> None:
        while not self._over.wait(0.02):
            mb = available_mb()
            self.lowest_mb = min(self.lowest_mb, mb)
            if mb < self._bound_mb and self.passed_at is None:
                self.passed_at = time.time()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def available_mb() -> float:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s*(\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def total_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


@contextmanager
def kernel_words() -> Iterator[list[str]]:
    """What the kernel's log says from here on, once the block is over."""
    words: list[str] = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(descriptor, 0, os.SEEK_END)
    try:
        yield words
        with suppress(BlockingIOError):
            while True:
                with suppress(BrokenPipeError):
                    words.append(os.read(descriptor, 8192).decode(errors="replace"))
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """The eater under two names, so that the kernel's log tells them apart."""
    directory = Path(tempfile.mkdtemp(prefix="so1-eater-", dir="/var/tmp"))
    directory.chmod(0o755)
    eater = directory / "eater"
    subprocess.run(["gcc", "-O1", "-static", "-o", eater, PROGRAM], check=True)
    shutil.copy(eater, directory / "innocent")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def database() -> Iterator[Path]:
    parent = Path("/var/lib/so1-test")
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    yield directory / "metrics.db"
    shutil.rmtree(directory)


@pytest.fixture
def innocent(images: Images, programs: Path, started: containers.Containers) -> str:
    """A container that no rule claims; it holds more than the eater will where there is room."""
    # More than the eater will have when nothing is left, so that the kernel takes this one.
    held = int(available_mb() * 0.55) if total_mb() > 1500 else 32
    name = "db-innocent"
    mount = f"{programs}:/eat:ro"
    identity = started.run(
        images.alpine,
        ["/eat/innocent", "0", "0", str(held)],
        name=name,
        options=["-v", mount],
    )
    wait_until(lambda: "eating" in docker("logs", identity), "the innocent holds its memory")
    return identity


@pytest.fixture
def swap() -> Iterator[Path]:
    """A swap file of 1 GB."""
    path = Path("/var/tmp/so1-swap")
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=1024"], check=True)
    path.chmod(0o600)
    subprocess.run(["mkswap", path], check=True)
    subprocess.run(["swapon", path], check=True)
    yield path
    subprocess.run(["swapoff", path], check=True)
    path.unlink()


@pytest.fixture(name="zram")
def half_a_gigabyte_of_zram() -> Iterator[Path]:
    with zram(512) as device:
        yield device


@contextmanager
def agent(database: Path, when: str) -> Iterator[AgentProcess]:
    """One that has made its first tick; `when` is the condition of its rule, "" without one."""
    file = Path("/etc/so1-before-oom.toml")
    text = (
        ""
        if not when
        else (
            '[[policy.rule]]\nname = "before-oom"\nmatch = { name = "job-*" }\n'
            f'when = {{ {when} }}\naction = "remove"\n'
        )
    )
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)
    words = ("--no-cron", "--no-grafana", "--no-bpf", "--interval", "600")
    more = ("--config", str(file), "--database", str(database))
    with AgentProcess((*words, *more)) as running:
        running.wait_for_tick(1)
        yield running


def eat(
    setting: str, mb_per_s: int, running: AgentProcess, innocent: str, tools: Any, database: Path
) -> Run:
    """One run: the eater until it is gone, and what was seen meanwhile."""
    images, programs, started = tools
    found = Run(setting, mb_per_s)
    # What does not compress at all would fill zram with itself.
    half = ["half"] if setting == "zram" else []
    before = removed_rows(database)
    pid = containers.first_pid(innocent)
    began_at = time.time()
    with kernel_words() as words, Meminfo() as memory:
        identity = started.run(
            images.alpine,
            ["/eat/eater", str(mb_per_s), str(START_MB), "999999", *half],
            # A name that comes back is its owner's, and left to it the fourth time.
            name=f"job-eater-{time.time_ns()}",
            options=["-v", f"{programs}:/eat:ro"],
        )
        # By its process: the docker command line would take the emulated CPU from the agent.
        first = eaters_pid(identity)
        wait_until(lambda: not Path(f"/proc/{first}").exists(), "the eater is gone", timeout_s=300)
        wait_until(lambda: available_mb() > BOUND_MB, "memory is back", timeout_s=120)
    told = "".join(words)
    found.oom_killed = [match["comm"] for match in KILLED.finditer(told)]
    found.eater = "oom-killed" if "eater" in found.oom_killed else "removed"
    found.innocent_alive = is_running(innocent) and containers.first_pid(innocent) == pid
    found.agent_alive = running.process.poll() is None
    found.lowest_mb = round(memory.lowest_mb, 1)
    for event in events(identity, began_at):
        at = event["timeNano"] / 10**9
        if memory.passed_at is not None and event["Action"] == "kill" and found.request_s is None:
            found.request_s = round(at - memory.passed_at, 3)
        if memory.passed_at is not None and event["Action"] == "die":
            found.gone_s = round(at - memory.passed_at, 3)
    with suppress(containers.DockerCommandError):
        docker("rm", "-f", identity)
    if running.process.poll() is None and found.eater == "removed":
        wait_until(lambda: removed_rows(database) > before, "the removal is a row", timeout_s=60)
    found.removed_rows = removed_rows(database) - before
    print(json.dumps(asdict(found)), flush=True)
    note(found)
    return found


def eaters_pid(identity: str) -> int | str:
    """Its first process, "gone" where it is gone already."""
    try:
        return containers.first_pid(identity)
    except containers.DockerCommandError:
        return "gone"


def is_running(identity: str) -> bool:
    try:
        return bool(inspect(identity)["State"]["Running"])
    except containers.DockerCommandError:
        return False


def events(identity: str, since: float) -> list[dict[str, Any]]:
    """The engine's own word of what happened to one container."""
    told = docker(
        *("events", "--since", f"{since:.3f}", "--until", f"{time.time():.3f}"),
        *("--filter", f"container={identity}", "--format", "{{json .}}"),
    )
    return [json.loads(line) for line in told.splitlines()]


def removed_rows(database: Path) -> int:
    found = rows(
        database,
        "SELECT count(*) AS n FROM deletions WHERE rule = 'before-oom' AND outcome = 'removed'",
    )
    return int(found[0]["n"])


def note(found: Run) -> None:
    """Brings the figures out of the guest."""
    directory = Path(os.environ.get("SO1_LAB_RESULTS", "/results"))
    if directory.is_dir():
        with (directory / "before-oom.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"total_mb": total_mb(), **asdict(found)}) + "\n")


@pytest.fixture
def tools(images: Images, programs: Path, started: containers.Containers) -> Any:
    return images, programs, started


def assert_the_eater_alone_went(found: list[Run]) -> None:
    """In every run, by the agent, and never by the kernel."""
    assert [one.oom_killed for one in found] == [[]] * len(found)
    assert [one.eater for one in found] == ["removed"] * len(found)
    assert [one.removed_rows for one in found] == [1] * len(found)
    assert all(one.innocent_alive and one.agent_alive for one in found)


@pytest.mark.any_kernel
def test_an_eater_is_gone_before_the_oom_killer_acts(
    modules: object, innocent: str, tools: Any, database: Path
) -> None:
    """The short version: one run at the faster pace."""
    with agent(database, AVAILABLE_RULE) as running:
        found = eat("available", 100, running, innocent, tools, database)
    assert_the_eater_alone_went([found])


@pytest.mark.full
@pytest.mark.parametrize("mb_per_s", [100, 20])
def test_in_ten_of_ten_runs_the_eater_goes_and_nobody_else(
    modules: object, innocent: str, tools: Any, database: Path, mb_per_s: int
) -> None:
    with agent(database, AVAILABLE_RULE) as running:
        found = [
            eat("available", mb_per_s, running, innocent, tools, database) for _ in range(RUNS)
        ]
    assert_the_eater_alone_went(found)


@pytest.mark.full
@OOM_LOG
@pytest.mark.parametrize("mb_per_s", [100, 20])
def test_without_the_rule_the_oom_killer_acts(
    modules: object, innocent: str, tools: Any, database: Path, mb_per_s: int
) -> None:
    """Whom it takes is in the report: the eater, or the one that holds more."""
    with agent(database, "") as running:
        found = eat("no rule", mb_per_s, running, innocent, tools, database)
    assert found.oom_killed
    assert found.removed_rows == 0


@pytest.mark.full
@pytest.mark.parametrize("kind", ["swap", "zram"])
@pytest.mark.parametrize("mb_per_s", [100, 20])
def test_with_swap_pressure_acts_before_the_oom_killer(
    request: pytest.FixtureRequest,
    modules: object,
    innocent: str,
    tools: Any,
    database: Path,
    mb_per_s: int,
    kind: str,
) -> None:
    request.getfixturevalue(kind)
    with agent(database, PRESSURE_RULE) as running:
        found = [eat(kind, mb_per_s, running, innocent, tools, database) for _ in range(SWAP_RUNS)]
    assert_the_eater_alone_went(found)
