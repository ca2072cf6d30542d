"""containerd by CRI: what the agent says of its pods against `ctr` and /proc.

Natively, on whatever cgroups this machine has, processes read by psutil. The oracle knows a
container's processes from the cgroup of its first process, which `ctr` names, and from what a test
did by hand. The helper is the real one, in an environment that the product's script has made.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.analysis.attribution import attribute
from agent.clock import SystemClock
from agent.config import EngineKind, EngineSettings
from agent.daemon.engines import cri_helper
from agent.errors import EngineUnavailableError
from agent.model.attribution import AttributedProcess
from agent.model.container import Container
from agent.sources import psutil_source
from agent.sources.cgroup import reader
from agent.sources.engine.cri import CriEngine, cri_version
from tests.agent_process import AgentProcess, rows, run_agent
from tests.attribution_support import host_cgroup, move
from tests.containers import cgroup_directory, wait_until
from tests.docker.cgroups_left import no_cgroup_left
from tests.docker.engine_tree import SUITES
from tests.docker.private_containerd import IMAGE, PAUSE, PrivateContainerd, private_containerd

FAMILY = ("sh", "-c", "/bin/sleep 9999 & /bin/sleep 9999; true")
CGROUP_PARENT = "/so1-test-kubepods/burstable/pod0b1c"


@pytest.fixture(scope="module", params=SUITES)
def module_containerd(request: pytest.FixtureRequest) -> Iterator[PrivateContainerd]:
    with (
        no_cgroup_left("k8s.io", CGROUP_PARENT.split("/")[1]),
        private_containerd(request.param) as made,
    ):
        yield made


@pytest.fixture
def containerd(module_containerd: PrivateContainerd) -> Iterator[PrivateContainerd]:
    yield module_containerd
    if module_containerd.daemon is None:
        module_containerd.start()
    module_containerd.clear()


class Look:
    """The agent's own parts on one containerd, as its service puts them together."""

    def __init__(self, containerd: PrivateContainerd) -> None:
        settings = EngineSettings(
            name="k8s",
            socket=containerd.socket,
            kind=EngineKind.CRI,
            environment=str(containerd.environment),
        )
        self.helper = cri_helper(settings, SystemClock())
        self.engine = CriEngine(self.helper, SystemClock(), "k8s")
        self.layout = reader.detect()

    def containers(self) -> dict[str, Container]:
        return {f"{one.pod}/{one.name}": one for one in self.engine.list().containers}

    def rows(self) -> dict[int, AttributedProcess]:
        """pid → what is said of it; cgroups that nobody knows are asked for once more."""
        unknown: frozenset[int] = frozenset()
        for _ in range(2):
            snapshot = psutil_source.read(SystemClock(), self.layout)
            listed = self.engine.list().containers
            view = reader.read(self.layout, listed, unknown)
            found = attribute(snapshot, view, listed)
            unknown = found.unknown_cgroups
        return {row.process.pid: row for row in found.rows}


@pytest.fixture
def look(containerd: PrivateContainerd) -> Iterator[Look]:
    made = Look(containerd)
    yield made
    made.engine.close()


def pids_of(first: int) -> set[int]:
    """Every process in the cgroup of a container's first one, and below."""
    directory = cgroup_directory(first)
    found = set()
    for file in (directory / "cgroup.procs", *directory.rglob("*/cgroup.procs")):
        found |= {int(word) for word in file.read_text().split()}
    return found


def by_ctr(containerd: PrivateContainerd) -> dict[int, str]:
    """pid → full id, of sandboxes and containers that run."""
    return {pid: box for box, first in containerd.first_pids().items() for pid in pids_of(first)}


def check(
    containerd: PrivateContainerd, look: Look, moved: dict[int, str] | None = None
) -> dict[int, str]:
    """Each process of each container is that container's, and no other row is containerd's.

    `moved` are processes that a test put elsewhere, with the container that they are still of.
    """
    wanted = by_ctr(containerd) | (moved or {})
    told = {
        pid: row.container.id for pid, row in look.rows().items() if row.container.engine == "k8s"
    }
    assert wanted == by_ctr(containerd) | (moved or {}), "something came or went meanwhile"
    assert wanted, "the oracle knows no process"
    assert told == wanted
    return told


def test_names_pods_images_and_states_are_kubernetes(
    containerd: PrivateContainerd, look: Look
) -> None:
    shop = containerd.pod("shop")
    till = containerd.run(shop, "till")
    later = containerd.create(shop, "later")
    over = containerd.run(shop, "over", "true")
    dns = containerd.pod("dns", "kube-system")
    wait_until(lambda: over not in containerd.first_pids(), "its end")
    wait_until(lambda: str(look.containers()["default/shop/over"].state) == "exited", "its state")
    found = look.containers()
    firsts = containerd.first_pids()
    assert {name: (one.id, str(one.state)) for name, one in found.items()} == {
        "default/shop/(sandbox)": (shop, "running"),
        "default/shop/till": (till, "running"),
        "default/shop/later": (later, "created"),
        "default/shop/over": (over, "exited"),
        "kube-system/dns/(sandbox)": (dns, "running"),
    }
    assert firsts.keys() == {shop, till, dns}
    for one in found.values():
        assert one.first_pid == firsts.get(one.id, 0)
        assert one.observed_only
    assert found["default/shop/till"].image == IMAGE
    assert found["default/shop/(sandbox)"].image == PAUSE
    assert found["default/shop/till"].labels["io.kubernetes.pod.uid"] == "uid-of-shop"
    check(containerd, look)


def test_processes_of_every_kind_of_container_are_its_own(
    containerd: PrivateContainerd, look: Look
) -> None:
    shop = containerd.pod("shop")
    family = containerd.run(shop, "family", *FAMILY)
    containerd.run(shop, "hosts-pids", host_pid=True)
    held = containerd.run(shop, "held")
    # As the kubelet with cgroupfs: a pod's own directory, and the id alone in it.
    burst = containerd.pod("burst", cgroup_parent=CGROUP_PARENT)
    containerd.run(burst, "loud", *FAMILY)
    containerd.ctr("tasks", "pause", held)
    exec_words = ("tasks", "exec", "--detach", "--exec-id", "e1", family, "sleep", "8702")
    containerd.ctr(*exec_words)
    try:
        firsts = containerd.first_pids()
        wait_until(lambda: len(pids_of(firsts[family])) == 4, "the shell's children and exec's")
        told = check(containerd, look)
        assert len(told) == 2 + 4 + 1 + 1 + 3
    finally:
        containerd.ctr("tasks", "resume", held)


def test_a_process_moved_by_hand_to_the_host_is_still_its_containers(
    containerd: PrivateContainerd, look: Look
) -> None:
    shop = containerd.pod("shop")
    box = containerd.run(shop, "family", *FAMILY)
    first = containerd.first_pids()[box]
    wait_until(lambda: len(pids_of(first)) == 3, "the shell's children")
    gone = max(pids_of(first))
    with host_cgroup() as elsewhere:
        move(gone, elsewhere)
        check(containerd, look, moved={gone: box})
        assert str(look.rows()[gone].basis) == "strayed"
        containerd.cri("StopContainer", container_id=box)


def test_a_container_that_is_made_again_is_another_one(
    containerd: PrivateContainerd, look: Look
) -> None:
    shop = containerd.pod("shop")
    first = containerd.run(shop, "till")
    assert look.containers()["default/shop/till"].id == first
    containerd.cri("StopContainer", container_id=first)
    containerd.cri("RemoveContainer", container_id=first)
    second = containerd.run(shop, "till")
    found = look.containers()["default/shop/till"]
    assert (found.id, found.first_pid) == (second, containerd.first_pids()[second])
    check(containerd, look)


def test_a_helper_that_is_killed_or_hangs_is_started_again(
    containerd: PrivateContainerd, look: Look
) -> None:
    containerd.pod("shop")
    look.containers()
    for number, sentence in ((signal.SIGKILL, "ended by signal 9"), (signal.SIGSTOP, "in 0.2 s")):
        assert look.helper._program is not None
        before = look.helper._program.pid
        os.kill(before, number)
        with pytest.raises(EngineUnavailableError, match=sentence.replace("in ", "within ")):
            look.helper.ask("list", 0.2)
        assert not Path(f"/proc/{before}").exists()
        wait_until(lambda: _answers(look), "it is back after its pause", timeout_s=30)
        assert look.helper._program.pid != before


def _answers(look: Look) -> bool:
    try:
        return "default/shop/(sandbox)" in look.containers()
    except EngineUnavailableError:
        return False


def test_a_runtime_that_hangs_or_is_gone_is_one_sentence_and_costs_no_helper(
    containerd: PrivateContainerd, look: Look
) -> None:
    containerd.pod("shop")
    look.containers()
    assert look.helper._program is not None
    helper = look.helper._program.pid
    containerd.hang()
    try:
        with pytest.raises(EngineUnavailableError, match="does not answer in time"):
            look.helper.ask("list", 1)
    finally:
        containerd.wake()
    wait_until(lambda: _answers(look), "it answers again", timeout_s=30)
    containerd.end(signal.SIGKILL)
    with pytest.raises(EngineUnavailableError, match=r"does not answer: .*systemctl start"):
        look.containers()
    Path(containerd.path).unlink()
    with pytest.raises(EngineUnavailableError, match="No such file or directory"):
        look.containers()
    containerd.start()
    wait_until(lambda: _answers(look), "it is back", timeout_s=30)
    assert look.helper._program.pid == helper


def test_what_listens_there_may_be_no_runtime_or_one_without_cri(
    containerd: PrivateContainerd, look: Look
) -> None:
    assert cri_version(look.helper, 10)[1] == "v1"
    wrong = Look(containerd)
    wrong.helper = cri_helper(
        EngineSettings(
            name="k8s",
            socket=f"unix://{containerd.path}.ttrpc",
            kind=EngineKind.CRI,
            environment=str(containerd.environment),
        ),
        SystemClock(),
    )
    with pytest.raises(EngineUnavailableError, match=r"The CRI runtime at .* does not answer"):
        cri_version(wrong.helper, 10)
    wrong.helper.close()


def settings(place: Path, containerd: PrivateContainerd, more: str = "") -> Path:
    """Without Docker: containerd is this host's only engine."""
    file = place / "agent.toml"
    file.write_text(
        'docker_host = ""\ninterval_s = 2\nsource = "psutil"\n'
        '[policy]\nscope = "all"\nmax_containers = 1\nkeep_low = 0\nkeep_high = 0\n'
        f'[[engine]]\nname = "k8s"\nkind = "cri"\nsocket = "{containerd.socket}"\n'
        f'environment = "{containerd.environment}"\n{more}\n'
        f'[paths]\nrun = "{place}/run"\nlog = "{place}/log"\n'
        f'database = "{place}/db/metrics.db"\nbuild = "{place}/build"\n',
        encoding="utf-8",
    )
    os.chmod(place, 0o755)
    return file


def of_last_tick(place: Path) -> dict[str, dict[str, Any]]:
    database = place / "db/metrics.db"
    if not database.exists():
        return {}
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                "SELECT * FROM container_totals WHERE engine = 'k8s'"
                " AND timestamp = (SELECT max(timestamp) FROM metrics)"
            ).fetchall()
    except sqlite3.OperationalError:
        return {}
    return {f"{row['pod']}/{row['container_name']}": dict(row) for row in found}


def test_pods_are_rows_and_none_goes_under_any_scope(
    containerd: PrivateContainerd, tmp_path: Path
) -> None:
    shop = containerd.pod("shop")
    boxes = {f"load-{number}": containerd.run(shop, f"load-{number}") for number in range(3)}
    before = containerd.first_pids()
    config = settings(tmp_path, containerd)
    done = run_agent("start", "--once", "--no-bpf", "--config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert containerd.first_pids() == before
    found = of_last_tick(tmp_path)
    assert set(found) == {f"default/shop/{name}" for name in (*boxes, "(sandbox)")}
    assert {one["governed"] for one in found.values()} == {0}
    for name, box in boxes.items():
        assert found[f"default/shop/{name}"]["processes"] == len(pids_of(before[box]))
    assert rows(tmp_path / "db/metrics.db", "SELECT * FROM deletions") == []
    shown = run_agent("top", "--once", "--config", str(config))
    assert "default/shop/load-1" in shown.stdout, shown.stdout + shown.stderr
    doctor = run_agent("doctor", "--json", "--config", str(config))
    row = next(one for one in json.loads(doctor.stdout)["checks"] if one["name"] == "engine k8s")
    assert row["state"] == "ok"
    assert row["finding"].startswith("containerd ")
    assert row["finding"].endswith(", CRI v1, observed only")


def test_a_setting_that_would_govern_them_is_refused(
    containerd: PrivateContainerd, tmp_path: Path
) -> None:
    config = settings(tmp_path, containerd, "govern = true")
    done = run_agent("start", "--once", "--no-bpf", "--config", str(config))
    assert done.returncode == 2
    assert "govern = true cannot be used for the engine k8s" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_goes_on_while_its_helper_and_its_runtime_come_and_go(
    containerd: PrivateContainerd, tmp_path: Path
) -> None:
    shop = containerd.pod("shop")
    containerd.run(shop, "till")
    config = settings(tmp_path, containerd)
    wanted = {"default/shop/(sandbox)", "default/shop/till"}
    words = ("--config", str(config), "--no-bpf", "--no-cron", "--no-grafana")
    with AgentProcess(words) as agent:
        wait_until(lambda: set(of_last_tick(tmp_path)) == wanted, "its rows", timeout_s=60)
        (helper,) = helpers_of(agent)
        os.kill(helper, signal.SIGKILL)
        wait_until(lambda: helpers_of(agent) - {helper}, "another helper", timeout_s=60)
        wait_until(lambda: set(of_last_tick(tmp_path)) == wanted, "its rows", timeout_s=60)
        containerd.end()
        wait_until(lambda: not of_last_tick(tmp_path), "no rows", timeout_s=60)
        said = json.loads(run_agent("status", "--json", "--config", str(config)).stdout)["status"]
        assert said["engines"]["k8s"].startswith("away: The CRI runtime at unix://")
        containerd.start()
        wait_until(lambda: set(of_last_tick(tmp_path)) == wanted, "its rows again", timeout_s=60)
        (helper,) = helpers_of(agent)
    wait_until(lambda: not Path(f"/proc/{helper}").exists(), "the helper ended", timeout_s=30)


def helpers_of(agent: AgentProcess) -> set[int]:
    """The helpers among the children of the agent's threads."""
    found = set()
    for children in Path(f"/proc/{agent.process.pid}/task").glob("*/children"):
        for word in children.read_text().split():
            words = Path(f"/proc/{word}/cmdline").read_bytes().split(b"\0")
            if b"agent.cri.helper" in words:
                found.add(int(word))
    return found
