"""Which container the agent finds itself in, by what the kernel writes in each kind of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.engine_api.own_container import OwnContainer, ids_of
from agent.model.attribution import Basis
from agent.model.container import DOCKER, ContainerKey
from tests.unit import builders
from tests.unit.builders import process, row

A, B, C = "a" * 64, "b" * 64, "c" * 64


def docker(container_id: str) -> ContainerKey:
    return ContainerKey(DOCKER, container_id)


V2 = f"0::/system.slice/docker-{A}.scope\n"
V1 = f"12:memory:/docker/{A}\n4:cpu,cpuacct:/docker/{A}\n0::/docker/{A}\n"
PRIVATE_V2, PRIVATE_V1 = "0::/\n", "12:memory:/\n4:cpu,cpuacct:/\n0::/\n"
HOST = "12:memory:/system.slice/so1-agent.service\n0::/system.slice/so1-agent.service\n"


def mount(root: str, point: str) -> str:
    return f"1500 1433 254:1 {root} {point} rw,relatime - ext4 /dev/vda1 rw\n"


FILES = "".join(
    mount(f"/var/lib/docker/containers/{A}/{name}", f"/etc/{name}")
    for name in ("resolv.conf", "hostname", "hosts")
)
PODMAN = mount(f"/overlay-containers/{A}/userdata/hostname", "/etc/hostname")
HOSTS_TABLE = (
    mount("/", "/")
    + f"90 31 0:52 / /var/lib/docker/overlay2/{B}/merged rw - overlay overlay rw\n"
    + f"91 31 0:53 / /var/lib/docker/containers/{C}/mounts/shm rw - tmpfs shm rw\n"
)


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "found"),
    [
        (V2, "", {A}),
        (V1, "", {A}),
        (V1, FILES, {A}),
        (PRIVATE_V2, FILES, {A}),
        (PRIVATE_V1, HOSTS_TABLE + FILES, {A}),
        (PRIVATE_V2, PODMAN, {A}),
        (f"0::/docker/{A}/docker/{B}\n", "", {A, B}),
        # --network=container:A, and the host's cgroup namespace: both are spared.
        (f"0::/system.slice/docker-{B}.scope\n", FILES, {A, B}),
        (HOST, HOSTS_TABLE, set()),
        (HOST, "", set()),
        ("", "", set()),
        ("nonsense", "a b c\n\n", set()),
    ],
    ids=[
        *("v2", "v1", "v1 with files", "private v2", "private v1", "podman", "nested"),
        *("another's network", "a host", "a host without mounts", "nothing", "nonsense"),
    ],
)
def test_the_own_container_is_found_and_a_hosts_mounts_name_none(
    cgroup: str, mountinfo: str, found: set[str]
) -> None:
    assert ids_of(cgroup, mountinfo) == found


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "4242").mkdir()
    (tmp_path / "self").symlink_to("4242")
    (tmp_path / "4242" / "cgroup").write_text(PRIVATE_V2)
    (tmp_path / "4242" / "mountinfo").write_text(mount("/", "/"))
    return tmp_path


def test_where_proc_says_nothing_the_attribution_of_the_own_process_does(proc: Path) -> None:
    own = OwnContainer(proc)
    assert own.ids == frozenset()
    own.learn(
        [
            row(process(7), container=docker(B)),
            row(process(4242), container=docker(A)),
        ]
    )
    own.learn([row(process(7), container=docker(C))])
    assert own.ids == {A}


def test_one_that_was_moved_out_of_its_container_is_still_that_containers(proc: Path) -> None:
    own = OwnContainer(proc)
    own.learn([row(process(4242), container=docker(A), basis=Basis.STRAYED)])
    assert own.ids == {A}


def test_where_that_says_nothing_the_processes_of_a_containers_cgroup_do(
    proc: Path, tmp_path: Path
) -> None:
    root = tmp_path / "cgroup"
    for path, pids in ((f"docker/{A}/deep", os.getpid()), (f"docker/{B}", 1), (f"docker/{A}", 2)):
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path / "cgroup.procs").write_text(f"7\n{pids}\n")
    own = OwnContainer(proc)
    cgroups = (
        builders.cgroup("a", path=f"/docker/{A}"),
        builders.cgroup("b", path=f"/docker/{B}"),
        builders.cgroup("c", path=""),
    )
    own.look_into(root, cgroups)
    assert own.ids == {A}


def test_a_proc_that_cannot_be_read_tells_of_no_container(tmp_path: Path) -> None:
    assert OwnContainer(tmp_path / "none").ids == frozenset()
