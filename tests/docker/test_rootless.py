"""Engines of a user's: what the agent, which is root's, says of his containers against /proc.

On cgroup v1 they have no cgroup of their own. So the oracle takes the first process that the engine
names, and every process in the PID namespace that this one is in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.analysis.attribution import attribute
from agent.clock import SystemClock
from agent.engine_api.address import PODMAN_KIND, Address
from agent.model.attribution import AttributedProcess
from agent.sources import psutil_source
from agent.sources.cgroup import reader
from agent.sources.engine.inventory import Engine
from tests.agent_process import rows, run_agent
from tests.containers import STRESS, DockerCommandError, wait_until
from tests.docker.engine_tree import INSTALLED, OTHERS
from tests.docker.private_engine import PrivateEngine, rootless_engine
from tests.docker.private_podman import PrivatePodman, rootless_podman
from tests.docker.rootless import his_processes

# A user's engines fall over where the machine is busy: not CI's to judge.
pytestmark = pytest.mark.full

FAMILY = ("sh", "-c", "/bin/sleep 9999 & /bin/sleep 9999; true")
KEPT_HIGH = 2


@dataclass(frozen=True, slots=True)
class His:
    """One engine of the user's; `run` and `inspect` are both engines' own."""

    engine: PrivatePodman | PrivateEngine

    @property
    def kind(self) -> str:
        return "podman" if isinstance(self.engine, PrivatePodman) else "docker"

    @property
    def socket(self) -> str:
        one = self.engine
        return one.socket if isinstance(one, PrivatePodman) else one.host

    def command(self, *words: str) -> str:
        one = self.engine
        return one.podman(*words) if isinstance(one, PrivatePodman) else one.docker(*words)

    def run(self, *options: str, image: str = "", command: tuple[str, ...] = ()) -> str:
        one = self.engine
        if isinstance(one, PrivatePodman):
            image = image and f"localhost/{image}"
        more = {"image": image} if image else {}
        return one.run(*options, command=command, **more)

    def first_pid(self, container: str) -> int:
        return int(self.engine.inspect(container)["State"]["Pid"])

    def look(self) -> dict[int, AttributedProcess]:
        """pid → what the agent says of it; cgroups that nobody knows are asked for once more."""
        address = Address(self.socket, PODMAN_KIND) if self.kind == "podman" else self.socket
        engine, layout = Engine(address, SystemClock(), name="his"), reader.detect()
        try:
            unknown: frozenset[int] = frozenset()
            for _ in range(2):
                snapshot = psutil_source.read(SystemClock(), layout)
                listed = engine.list().containers
                found = attribute(snapshot, reader.read(layout, listed, unknown), listed)
                unknown = found.unknown_cgroups
            return {row.process.pid: row for row in found.rows}
        finally:
            engine.close()


# Docker's of other suites refuse rootlesskit without a network of its own, and their trees have no
# slirp4netns.
_ENGINES = [
    pytest.param(("podman", INSTALLED), id="podman-installed"),
    pytest.param(("docker", INSTALLED), id="docker-installed"),
    *(pytest.param(("podman", suite), id=f"podman-{suite}") for suite in OTHERS),
]


@pytest.fixture(scope="module", params=_ENGINES)
def module_engine(request: pytest.FixtureRequest) -> Iterator[His]:
    kind, suite = request.param
    with rootless_podman(suite) if kind == "podman" else rootless_engine(suite) as made:
        yield His(made)


@pytest.fixture
def his(module_engine: His) -> Iterator[His]:
    yield module_engine
    module_engine.engine.clear()


def pids_by_namespace(first: int) -> set[int]:
    """Every process in the PID namespace of a container's first one."""
    wanted = os.readlink(f"/proc/{first}/ns/pid")
    assert wanted != os.readlink("/proc/self/ns/pid")
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                link = os.readlink(f"/proc/{name}/ns/pid")
            except OSError:
                continue
            if link == wanted:
                found.add(int(name))
    return found


def test_his_processes_are_his_containers_and_nobody_elses(his: His) -> None:
    boxes = [
        his.run("--name", "family", command=FAMILY),
        his.run("--name", "alone"),
        his.run("--name", "uts", "--uts=host"),
    ]
    his.command("exec", "-d", "alone", "sleep", "8701")
    first = {box: his.first_pid(box) for box in boxes}
    wait_until(lambda: len(pids_by_namespace(first[boxes[0]])) == 3, "the shell's children")
    wait_until(lambda: len(pids_by_namespace(first[boxes[1]])) == 2, "exec's process")
    wanted = {pid: box for box, one in first.items() for pid in pids_by_namespace(one)}
    assert len(wanted) == 6
    assert wanted.keys() <= his_processes()
    told = {
        pid: row.container.id for pid, row in his.look().items() if row.container.engine == "his"
    }
    assert told == wanted


def test_one_with_the_hosts_pids_and_no_cgroup_has_no_rows_and_takes_nobody_elses(
    his: His,
) -> None:
    """docs/engines.md, «A user's engines»: the engine's word alone proves nothing."""
    try:
        box = his.run("--name", "hosts", "--pid=host", command=FAMILY)
    except DockerCommandError as error:
        if 'mounting "proc"' not in str(error):
            raise
        pytest.skip("needs a kernel that lets a user's engine mount /proc of the host's processes")
    first = his.first_pid(box)
    assert os.readlink(f"/proc/{first}/ns/pid") == os.readlink("/proc/self/ns/pid")
    if box in Path(f"/proc/{first}/cgroup").read_text():
        pytest.skip("needs a rootless engine without cgroups (cgroup v1)")
    assert [row for row in his.look().values() if row.container.engine == "his"] == []


def test_a_restarted_one_is_the_same_with_another_process(his: His) -> None:
    box = his.run("--name", "again")
    before = his.first_pid(box)
    his.command("restart", "-t", "0", box)
    now = his.first_pid(box)
    assert now != before
    assert {pid: row.container.id for pid, row in his.look().items() if pid == now} == {now: box}


def one_tick(his: His, place: Path, *more: str) -> None:
    """Without root's Docker: the user's engine is this host's only one."""
    file = place / "agent.toml"
    os.chmod(place, 0o755)
    file.write_text(
        'docker_host = ""\nsource = "psutil"\n[policy]\nscope = "all"\n[[engine]]\n'
        f'name = "his"\nkind = "{his.kind}"\nsocket = "{his.socket}"\n'
        f"{''.join(f'{line}{os.linesep}' for line in more)}"
        f'[paths]\nrun = "{place}/run"\nlog = "{place}/log"\n'
        f'database = "{place}/db/metrics.db"\nbuild = "{place}/build"\n',
        encoding="utf-8",
    )
    done = run_agent("start", "--once", "--no-bpf", "--config", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def holding(his: His, name: str, megabytes: int) -> None:
    """A container whose one worker keeps that much: what `rss` shows, since it has no cgroup."""
    words = ("stress", "--vm", "1", "--vm-bytes", f"{megabytes}M", "--vm-keep")
    box = his.run("--name", name, image=STRESS, command=words)
    first = his.first_pid(box)

    def is_filled() -> bool:
        texts = [Path(f"/proc/{pid}/smaps_rollup") for pid in pids_by_namespace(first)]
        held = [int(one.read_text().partition("Rss:")[2].split()[0]) for one in texts]
        return sum(held) >= megabytes * 1024

    wait_until(is_filled, f"{name} holds its memory")


@pytest.mark.parametrize("govern", [False, True], ids=["observed", "governed"])
def test_rows_are_his_and_with_govern_the_largest_go(
    his: His, tmp_path: Path, govern: bool
) -> None:
    for number in range(KEPT_HIGH + 2):
        holding(his, f"load-{number}", 12 + 14 * number)
    names = his.engine.names("-a")
    processes = {name: len(pids_by_namespace(his.first_pid(name))) for name in names}
    one_tick(his, tmp_path, f"govern = {str(govern).lower()}")
    gone = names - his.engine.names("-a")
    assert gone == ({"load-2", "load-3"} if govern else set())
    database = tmp_path / "db/metrics.db"
    stored = rows(
        database, "SELECT container_name, engine, governed, processes FROM container_totals"
    )
    assert {one["container_name"]: one["processes"] for one in stored} == processes
    assert {(one["engine"], one["governed"]) for one in stored} == {("his", int(govern))}
    removed = rows(database, "SELECT container_name, outcome FROM deletions")
    assert {one["container_name"] for one in removed} == gone
    assert {one["outcome"] for one in removed} <= {"removed"}
