"""podman beside Docker: what the agent says of its containers against `podman inspect` and /proc.

Natively, on whatever cgroups this machine has, processes read by psutil. The oracle knows a
container's processes from the cgroup of its first process, which podman names, and from what a test
did by hand.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.analysis.attribution import attribute
from agent.clock import SystemClock
from agent.engine_api.address import PODMAN_KIND, Address
from agent.model.attribution import AttributedProcess
from agent.model.container import Container
from agent.sources import psutil_source
from agent.sources.cgroup import reader
from agent.sources.engine.events import EngineEvents
from agent.sources.engine.inventory import Engine
from tests.agent_process import rows, run_agent
from tests.attribution_support import host_cgroup, move
from tests.containers import cgroup_directory, wait_until
from tests.docker.cgroups_left import no_cgroup_left
from tests.docker.engine_tree import SUITES
from tests.docker.private_podman import IMAGE, PrivatePodman, private_podman

PARENT = "so1-test-podman"
FAMILY = ("sh", "-c", "/bin/sleep 9999 & /bin/sleep 9999; true")


@pytest.fixture(scope="module", params=SUITES)
def module_podman(request: pytest.FixtureRequest) -> Iterator[PrivatePodman]:
    with no_cgroup_left("libpod_parent", PARENT), private_podman(request.param) as made:
        yield made


@pytest.fixture
def podman(module_podman: PrivatePodman) -> Iterator[PrivatePodman]:
    yield module_podman
    module_podman.clear()


class Look:
    """The agent's own parts on one podman, as its service puts them together."""

    def __init__(self, podman: PrivatePodman, observed_only: str = "") -> None:
        self.engine = Engine(
            Address(podman.socket, PODMAN_KIND),
            SystemClock(),
            name="podman",
            observed_only=observed_only,
        )
        self.layout = reader.detect()

    def containers(self) -> dict[str, Container]:
        return {one.name: one for one in self.engine.list().containers}

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
def look(podman: PrivatePodman) -> Iterator[Look]:
    made = Look(podman)
    yield made
    made.engine.close()


def pids_by_first(podman: PrivatePodman, container: str) -> set[int]:
    """Every process in the cgroup of the first one, and below."""
    directory = cgroup_directory(podman.first_pid(container))
    found = set()
    for file in (directory / "cgroup.procs", *directory.rglob("*/cgroup.procs")):
        found |= {int(word) for word in file.read_text().split()}
    return found


def by_podman(podman: PrivatePodman) -> dict[int, str]:
    """pid → full id, of all that have processes; `podman ps` leaves paused ones out."""
    living = podman.ids("--filter", "status=running", "--filter", "status=paused")
    return {pid: box for box in living for pid in pids_by_first(podman, box)}


def check(podman: PrivatePodman, look: Look, *, moved: dict[int, str] | None = None) -> None:
    """Each process of each running container is that container's, and no other row is podman's.

    `moved` are processes that a test put elsewhere, with the container that they are still of.
    """
    wanted = by_podman(podman) | (moved or {})
    told = {
        pid: row.container.id
        for pid, row in look.rows().items()
        if row.container.engine == "podman"
    }
    after = by_podman(podman) | (moved or {})
    stayed = {pid: one for pid, one in wanted.items() if after.get(pid) == one}
    assert stayed, "the oracle knows no process"
    assert {pid: told.get(pid) for pid in stayed} == stayed
    odd = {pid: one for pid, one in told.items() if one not in (wanted.get(pid), after.get(pid))}
    assert odd == {}


def test_names_images_labels_and_states_are_podmans(podman: PrivatePodman, look: Look) -> None:
    podman.run("--name", "web", "--label", "tier=front", "--label", "empty=")
    podman.run("--name", "held")
    podman.podman("pause", "held")
    podman.run("--name", "over", command=("true",))
    podman.podman("wait", "over")
    podman.podman("create", "--name", "made", "--network=none", IMAGE, "true")
    podman.run("--name", "before")
    podman.podman("rename", "before", "behind")
    found = look.containers()
    try:
        assert {name: str(one.state) for name, one in found.items()} == {
            "web": "running",
            "held": "paused",
            "over": "exited",
            "made": "created",
            "behind": "running",
        }
        for name, one in found.items():
            about = podman.inspect(name)
            assert (one.id, one.first_pid) == (about["Id"], about["State"]["Pid"])
            assert one.image == about["ImageName"]
            assert dict(one.labels) == (about["Config"]["Labels"] or {})
            assert (one.engine, one.pod, one.observed_only) == ("podman", "", "")
    finally:
        podman.podman("unpause", "held")


def test_a_pods_containers_carry_its_name_and_its_infra_container_is_never_touched(
    podman: PrivatePodman, look: Look
) -> None:
    podman.pod("shop")
    podman.run("--name", "till", "--pod", "shop")
    podman.run("--name", "alone")
    found = look.containers()
    infra = next(one for one in found.values() if one.name.endswith("-infra"))
    about = podman.inspect(infra.id)
    assert about["IsInfra"]
    assert (infra.pod, infra.observed_only) == ("shop", "the infra container of pod shop")
    assert (found["till"].pod, found["till"].observed_only) == ("shop", "")
    assert (found["alone"].pod, found["alone"].observed_only) == ("", "")
    check(podman, look)


def test_where_podman_does_not_say_what_holds_a_pod_nothing_is_governed(
    podman: PrivatePodman, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    podman.run("--name", "web")
    monkeypatch.setattr("agent.sources.engine.pods._LIST", "/v4.0.0/libpod/nothing")
    assert "does not say" in look.containers()["web"].observed_only
    monkeypatch.undo()
    assert look.containers()["web"].observed_only == ""


def test_processes_of_every_kind_of_container_are_its_own(
    podman: PrivatePodman, look: Look
) -> None:
    podman.run("--name", "family", command=FAMILY)
    podman.run("--name", "own-pid", "--uts=host")
    podman.run("--name", "hosts", "--pid=host", "--uts=host", "--ipc=host")
    owner = podman.run("--name", "owner")
    podman.run("--name", "guest", f"--pid=container:{owner}")
    podman.run("--name", "parent", "--cgroup-parent", f"/{PARENT}")
    podman.run("--name", "held")
    podman.podman("pause", "held")
    podman.pod("shop")
    podman.run("--name", "till", "--pod", "shop")
    podman.run("--name", "shared", "--pod", "shop", command=FAMILY)
    for name in ("family", "hosts", "till"):
        podman.podman("exec", "-d", name, "sleep", "8701")
    try:
        wait_until(lambda: len(pids_by_first(podman, "till")) == 2, "exec's process")
        wait_until(lambda: len(pids_by_first(podman, "family")) == 4, "the shell's children")
        check(podman, look)
    finally:
        podman.podman("unpause", "held")


def test_no_monitor_is_a_containers(podman: PrivatePodman, look: Look) -> None:
    podman.run("--name", "web")
    listed = subprocess.run(["pgrep", "-x", "conmon"], capture_output=True, text=True, check=True)
    monitors = {int(word) for word in listed.stdout.split()}
    assert monitors
    assert not monitors & set(look.rows())


def test_a_process_moved_by_hand_to_the_host_is_still_its_containers(
    podman: PrivatePodman, look: Look
) -> None:
    box = podman.run("--name", "family", command=FAMILY)
    wait_until(lambda: len(pids_by_first(podman, box)) == 3, "the shell's children")
    look.rows()
    gone = max(pids_by_first(podman, box))
    with host_cgroup() as elsewhere:
        move(gone, elsewhere)
        check(podman, look, moved={gone: box})
        assert str(look.rows()[gone].basis) == "strayed"
        podman.podman("rm", "-f", "-t", "0", box)


def test_one_restarted_is_the_same_container_with_another_process(
    podman: PrivatePodman, look: Look
) -> None:
    box = podman.run("--name", "again")
    before = look.containers()["again"].first_pid
    podman.podman("restart", "-t", "0", box)
    assert look.containers()["again"].first_pid == podman.first_pid(box) != before
    check(podman, look)


def test_its_events_arrive_in_dockers_words(podman: PrivatePodman) -> None:
    heard: list[tuple[str, str]] = []
    events = EngineEvents(
        Address(podman.socket, PODMAN_KIND), SystemClock(), lambda *one: heard.append(one)
    )
    events.start()
    try:
        wait_until(lambda: events.quiet_since_ns is not None, "the stream is there")
        box = podman.run("--name", "short", command=("true",))
        wait_until(lambda: ("die", box) in heard, "its end")
        podman.podman("rm", "-f", "-t", "0", box)
        wait_until(lambda: ("destroy", box) in heard, "its removal")
        kinds = [kind for kind, which in heard if which == box]
        assert kinds[:2] == ["create", "start"]
    finally:
        events.close()


def settings(place: Path, podman: PrivatePodman, *more: str) -> Path:
    """Without Docker: podman is this host's only engine."""
    file = place / "agent.toml"
    file.write_text(
        'docker_host = ""\nsource = "psutil"\n'
        f'[policy]\nscope = "all"\n[[engine]]\nname = "podman"\nkind = "podman"\n'
        f'socket = "{podman.socket}"\n{"".join(f"{line}{os.linesep}" for line in more)}'
        f'[paths]\nrun = "{place}/run"\nlog = "{place}/log"\n'
        f'database = "{place}/db/metrics.db"\nbuild = "{place}/build"\n',
        encoding="utf-8",
    )
    os.chmod(place, 0o755)
    return file


def one_tick(config: Path) -> None:
    done = run_agent("start", "--once", "--no-bpf", "--config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr


def populated(podman: PrivatePodman) -> None:
    podman.pod("shop")
    podman.run("--name", "till", "--pod", "shop")
    for number in range(5):
        fill = f"dd if=/dev/zero of=/dev/shm/x bs=1M count={10 * number + 2} 2>/dev/null"
        podman.run(
            *("--name", f"load-{number}"),
            command=("sh", "-c", f"{fill}; touch /filled; exec sleep infinity"),
        )
    for number in range(5):
        box = f"load-{number}"
        wait_until(lambda box=box: podman.podman("exec", box, "ls", "/tmp", "/filled"), box)  # type: ignore[misc]


def in_history(place: Path, query: str) -> list[dict[str, Any]]:
    return rows(place / "db/metrics.db", query)


def test_podmans_containers_are_rows_and_none_goes_unless_that_is_asked_for(
    podman: PrivatePodman, tmp_path: Path
) -> None:
    populated(podman)
    before = podman.ids("-a")
    one_tick(settings(tmp_path, podman))
    assert podman.ids("-a") == before
    stored = in_history(
        tmp_path, "SELECT container_name, engine, pod, governed, processes FROM container_totals"
    )
    assert {one["container_name"] for one in stored} == podman.names("-a")
    assert {one["engine"] for one in stored} == {"podman"}
    assert {one["governed"] for one in stored} == {0}
    pods = {one["container_name"]: one["pod"] for one in stored if one["pod"]}
    assert set(pods.values()) == {"shop"}
    assert len(pods) == 2
    assert in_history(tmp_path, "SELECT * FROM deletions") == []
    for one in stored:
        held = len(pids_by_first(podman, one["container_name"]))
        assert (one["container_name"], one["processes"]) == (one["container_name"], held)


def test_with_govern_the_largest_go_and_what_holds_a_pod_stays(
    podman: PrivatePodman, tmp_path: Path
) -> None:
    populated(podman)
    names = podman.names("-a")
    one_tick(settings(tmp_path, podman, "govern = true"))
    # Low tier (the image's name has alpine): the three that hold least stay of six, infra aside.
    gone = names - podman.names("-a")
    assert gone == {"load-2", "load-3", "load-4"}
    stored = in_history(tmp_path, "SELECT container_name, outcome FROM deletions")
    assert {one["container_name"] for one in stored} == gone
    assert {one["outcome"] for one in stored} == {"removed"}
    infra = [name for name in podman.names("-a") if name.endswith("-infra")]
    assert len(infra) == 1


def test_pids_of_the_shared_oracle_and_of_this_one_are_the_same(podman: PrivatePodman) -> None:
    """So that a fault of one is not taken for the agent's."""
    box = podman.run("--name", "family", command=FAMILY)
    wait_until(lambda: len(pids_by_first(podman, box)) == 3, "the shell's children")
    top = podman.podman("top", box, "hpid").split()[1:]
    assert {int(pid) for pid in top} == pids_by_first(podman, box)
