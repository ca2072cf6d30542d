"""Whose each cgroup is: by name, by first process, and against names that lie."""

from __future__ import annotations

import errno
import shutil

import pytest

from agent.model.container import ContainerState, Hierarchy
from agent.sources import procfs
from agent.sources.cgroup import reader
from tests.unit.sources.cgroup.reader_support import A, B, F, docker, host, v2
from tests.unit.sources.fake_host import HOST_PID_NS, HOST_UTS_NS, FakeHost, container

__all__ = ["host", "v2"]

PLACES = {
    "systemd driver": "/system.slice/docker-{}.scope",
    "cgroupfs driver": "/docker/{}",
    "cgroup parent": "/so1/deep/down/{}",
    "a slice": "/so1.slice/so1-deep.slice/docker-{}.scope",
    "rootless": "/user.slice/user-1.slice/user@1.service/app.slice/docker-{}.scope",
    "another prefix": "/x/balena-{}.scope",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_the_full_id_in_the_name_finds_it_wherever_it_is(host: FakeHost, place: str) -> None:
    own = host.cgroup(place.format(A))
    below = [host.cgroup(f"{place.format(A)}/{name}") for name in ("x", "x/y")]
    other = host.cgroup(place.format(B))
    host.cgroup("/system.slice/cron.service")
    view = reader.read(host.layout(), [container("a"), container("b")])
    assert view.containers[docker(A)].ids == {own, *below}
    assert view.containers[docker(B)].ids == {other}
    assert view.containers[docker(A)].path == place.format(A)


def test_the_hierarchy_and_the_hosts_namespaces_are_told(host: FakeHost) -> None:
    view = reader.read(host.layout(), [])
    v2 = host.kind == "v2"
    assert view.hierarchy is (Hierarchy.DEFAULT if v2 else Hierarchy.MEMORY_V1)
    assert (view.host_pid_ns, view.host_uts_ns) == (HOST_PID_NS, HOST_UTS_NS)


def test_the_hosts_cgroups_are_told_and_containers_are_not_among_them(host: FakeHost) -> None:
    cron = host.cgroup("/system.slice/cron.service")
    mine = host.cgroup(f"/docker/{A}")
    new = host.cgroup(f"/docker/{F}")
    view = reader.read(host.layout(), [container("a")])
    assert cron in view.host_ids
    assert host.identifying.stat().st_ino in view.host_ids
    assert not view.host_ids & {mine, new}


def test_a_part_of_the_id_or_a_longer_number_is_no_id(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A[:12]}")
    v2.cgroup(f"/docker/{A}a")
    v2.cgroup("/docker/" + "A" * 64)
    assert docker(A) not in reader.read(v2.layout(), [container("a")]).containers


def test_a_container_that_is_not_running_owns_no_directory(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}")
    exited = container("a", state=ContainerState.EXITED)
    assert reader.read(v2.layout(), [exited]).containers == {}
    unknown = container("a", state=ContainerState.UNKNOWN)
    assert docker(A) in reader.read(v2.layout(), [unknown]).containers


def test_of_several_with_one_id_the_one_with_the_first_process_is_it(host: FakeHost) -> None:
    host.cgroup(f"/a{A}")
    own = host.cgroup(f"/z/deeper/still/docker-{A}.scope")
    host.process(70, cgroup=f"/z/deeper/still/docker-{A}.scope", pid_ns=9, own_pid=1)
    assert reader.read(host.layout(), [container("a", 70)]).containers[docker(A)].ids == {own}


def test_a_first_process_in_a_cgroup_below_its_containers_still_shows_it(host: FakeHost) -> None:
    host.cgroup(f"/a/docker-{A}.scope")
    own = host.cgroup(f"/z/docker-{A}.scope")
    inner = host.cgroup(f"/z/docker-{A}.scope/init")
    host.process(70, cgroup=f"/z/docker-{A}.scope/init", pid_ns=9, own_pid=1)
    assert reader.read(host.layout(), [container("a", 70)]).containers[docker(A)].ids == {
        own,
        inner,
    }


def test_without_a_first_process_the_directory_nearest_the_root_is_it(v2: FakeHost) -> None:
    v2.cgroup(f"/a/b/c/docker-{A}.scope")
    own = v2.cgroup(f"/z/docker-{A}.scope")
    assert reader.read(v2.layout(), [container("a")]).containers[docker(A)].ids == {own}


def test_a_directory_inside_another_container_with_a_stolen_name_stays_that_ones(
    host: FakeHost,
) -> None:
    liar = host.cgroup(f"/docker/{B}")
    decoy = host.cgroup(f"/docker/{B}/docker-{A}.scope")
    own = host.cgroup(f"/docker/{A}")
    view = reader.read(host.layout(), [container("a"), container("b")])
    assert view.containers[docker(A)].ids == {own}
    assert view.containers[docker(B)].ids == {liar, decoy}


def test_a_container_whose_cgroup_parent_is_another_container_is_itself(host: FakeHost) -> None:
    outer = host.cgroup(f"/docker/{A}")
    inner = host.cgroup(f"/docker/{A}/{B}")
    host.process(70, cgroup=f"/docker/{A}", pid_ns=9, own_pid=1)
    host.process(71, cgroup=f"/docker/{A}/{B}", pid_ns=8, own_pid=1)
    view = reader.read(host.layout(), [container("a", 70), container("b", 71)])
    assert view.containers[docker(A)].ids == {outer}
    assert view.containers[docker(B)].ids == {inner}


def test_docker_inside_docker_is_all_the_outer_ones(host: FakeHost) -> None:
    outer = host.cgroup(f"/docker/{A}")
    below = {host.cgroup(f"/docker/{A}/docker"), host.cgroup(f"/docker/{A}/docker/{F}")}
    view = reader.read(host.layout(), [container("a")], frozenset(below))
    assert view.containers[docker(A)].ids == {outer, *below}
    assert view.foreign == {}


def test_a_directory_without_the_id_is_found_through_the_first_process(host: FakeHost) -> None:
    own = host.cgroup("/odd/name")
    below = host.cgroup("/odd/name/below")
    host.process(70, cgroup="/odd/name", pid_ns=9, own_pid=1)
    host.process(72, cgroup="/odd/name", pid_ns=9, own_pid=2)
    view = reader.read(host.layout(), [container("a", 70)])
    assert view.containers[docker(A)].ids == {own, below}


@pytest.mark.parametrize(
    "place", ["/", "/agent.service", "/init.scope", "/shared", "/docker/inside"]
)
def test_a_cgroup_that_may_be_somebody_elses_is_not_taken(v2: FakeHost, place: str) -> None:
    for path in ("/agent.service", "/init.scope", "/shared", f"/docker/inside/{B}"):
        v2.cgroup(path)
    v2.process(90, cgroup="/shared")  # in the host's PID namespace
    v2.process(70, cgroup=place, pid_ns=9, own_pid=1)
    view = reader.read(v2.layout(), [container("a", 70), container("b")])
    assert (view.containers[docker(A)].ids, view.containers[docker(A)].path) == (frozenset(), "")


def test_the_cgroup_of_a_first_process_in_the_hosts_pid_namespace_proves_nothing(
    v2: FakeHost,
) -> None:
    v2.cgroup("/odd/name")
    v2.process(70, cgroup="/odd/name", uts_ns=8)
    assert docker(A) not in reader.read(v2.layout(), [container("a", 70)]).containers


def test_two_containers_do_not_share_a_directory_without_a_name(v2: FakeHost) -> None:
    v2.cgroup("/odd")
    v2.process(70, cgroup="/odd", pid_ns=9, own_pid=1)
    v2.process(71, cgroup="/odd", pid_ns=9, own_pid=2)
    view = reader.read(v2.layout(), [container("a", 70), container("b", 71)])
    assert set(view.containers) == {docker(A)}


def test_the_first_processs_namespaces_are_told(host: FakeHost) -> None:
    host.cgroup(f"/docker/{A}")
    host.process(70, cgroup=f"/docker/{A}", pid_ns=9, uts_ns=8, own_pid=1)
    view = reader.read(host.layout(), [container("a", 70)])
    assert (view.containers[docker(A)].pid_ns, view.containers[docker(A)].uts_ns) == (9, 8)


def test_a_moved_init_is_still_its_containers_first_process(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}")
    v2.cgroup("/elsewhere")
    v2.process(70, cgroup="/elsewhere", pid_ns=9, uts_ns=8, own_pid=1)
    assert reader.read(v2.layout(), [container("a", 70)]).containers[docker(A)].pid_ns == 9


def test_a_moved_first_process_that_is_no_init_counts_where_it_was_seen_before(
    v2: FakeHost,
) -> None:
    v2.cgroup(f"/docker/{A}")
    v2.cgroup("/elsewhere")
    layout = v2.layout()
    moved = {"cgroup": "/elsewhere", "uts_ns": 8}
    v2.process(70, **moved)  # type: ignore[arg-type]
    assert reader.read(layout, [container("a", 70)]).containers[docker(A)].uts_ns == 0
    v2.process(70, cgroup=f"/docker/{A}", uts_ns=8)
    assert reader.read(layout, [container("a", 70)]).containers[docker(A)].uts_ns == 8
    v2.process(70, **moved)  # type: ignore[arg-type]
    assert reader.read(layout, [container("a", 70)]).containers[docker(A)].uts_ns == 8


@pytest.mark.parametrize("change", [{"start_ticks": 501}, {"uts_ns": 7}])
def test_a_first_pid_that_was_used_again_is_somebody_else(
    v2: FakeHost, change: dict[str, int]
) -> None:
    v2.cgroup(f"/docker/{A}")
    layout = v2.layout()
    v2.process(70, cgroup=f"/docker/{A}", uts_ns=8)
    reader.read(layout, [container("a", 70)])
    v2.process(70, **{"uts_ns": 8, **change})  # type: ignore[arg-type]
    assert reader.read(layout, [container("a", 70)]).containers[docker(A)].uts_ns == 0


def test_a_first_pid_that_passed_to_another_container_is_that_ones(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}")
    v2.cgroup(f"/docker/{B}")
    v2.process(70, cgroup=f"/docker/{B}", pid_ns=9, own_pid=1)
    view = reader.read(v2.layout(), [container("a", 70), container("b", 70)])
    assert view.containers[docker(A)].pid_ns == 0
    assert view.containers[docker(B)].pid_ns == 9


def test_a_first_process_whose_main_thread_has_ended_still_tells_its_namespaces(
    v2: FakeHost,
) -> None:
    v2.cgroup(f"/docker/{A}")
    v2.process(70, cgroup=f"/docker/{A}", pid_ns=9, uts_ns=8, own_pid=1)
    v2.end_main_thread(70, tid=71)
    found = reader.read(v2.layout(), [container("a", 70)]).containers[docker(A)]
    assert (found.pid_ns, found.uts_ns) == (9, 8)


def test_a_first_process_whose_cgroups_are_too_long_to_be_told_still_tells_its_namespaces(
    v2: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    v2.cgroup(f"/docker/{A}")
    v2.process(70, cgroup=f"/docker/{A}", pid_ns=9, uts_ns=8, own_pid=1)
    real = procfs.read

    def refused(path: str) -> bytes:
        if path.endswith("/70/cgroup"):
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        return real(path)

    monkeypatch.setattr(procfs, "read", refused)
    found = reader.read(v2.layout(), [container("a", 70)]).containers[docker(A)]
    assert (found.pid_ns, found.uts_ns) == (9, 8)


def test_a_first_process_that_is_gone_leaves_the_directory(v2: FakeHost) -> None:
    own = v2.cgroup(f"/docker/{A}")
    view = reader.read(v2.layout(), [container("a", 70)])
    assert (view.containers[docker(A)].ids, view.containers[docker(A)].pid_ns) == ({own}, 0)


def test_where_the_hosts_namespaces_are_not_told_they_are_unknown(v2: FakeHost) -> None:
    shutil.rmtree(v2.proc / "1")
    view = reader.read(v2.layout(), [])
    assert (view.host_pid_ns, view.host_uts_ns) == (0, 0)


def test_where_pid_1s_namespaces_are_hidden_our_own_stand_for_the_hosts(
    v2: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def namespace(proc: str, pid: int | str, kind: str) -> int:
        if pid == 1:
            raise PermissionError
        return {"pid": 5, "uts": 6}[kind] if pid == "self" else 0

    monkeypatch.setattr("agent.sources.procfs.namespace", namespace)
    view = reader.read(v2.layout(), [])
    assert (view.host_pid_ns, view.host_uts_ns) == (5, 6)


def test_directories_that_were_removed_a_moment_ago_still_name_their_zombies(
    v2: FakeHost,
) -> None:
    own = v2.cgroup(f"/docker/{A}")
    gone = v2.cgroup(f"/docker/{A}/job")
    layout = v2.layout()
    assert reader.read(layout, [container("a")]).containers[docker(A)].ids == {own, gone}
    shutil.rmtree(v2.root / f"docker/{A}/job")
    assert gone in reader.read(layout, [container("a")]).containers[docker(A)].ids
    assert reader.read(layout, [container("a")]).containers[docker(A)].ids == {own}


def test_an_id_that_came_to_another_container_is_no_longer_the_first_ones(v2: FakeHost) -> None:
    outer = v2.cgroup(f"/docker/{A}")
    inner = v2.cgroup(f"/docker/{A}/{B}")
    layout = v2.layout()
    assert reader.read(layout, [container("a")]).containers[docker(A)].ids == {outer, inner}
    v2.process(71, cgroup=f"/docker/{A}/{B}", pid_ns=8, own_pid=1)
    view = reader.read(layout, [container("a"), container("b", 71)])
    assert (view.containers[docker(A)].ids, view.containers[docker(B)].ids) == ({outer}, {inner})


def test_a_container_whose_directory_has_just_gone_keeps_its_ids_once(v2: FakeHost) -> None:
    own = v2.cgroup(f"/docker/{A}")
    layout = v2.layout()
    reader.read(layout, [container("a")])
    shutil.rmtree(v2.root / "docker")
    late = reader.read(layout, [container("a")]).containers[docker(A)]
    assert (late.ids, late.held_kb, late.cpu_ns, late.path) == ({own}, None, None, "")
    assert reader.read(layout, [container("a")]).containers == {}


def test_a_container_whose_processes_were_all_moved_out_keeps_its_namespaces(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}")
    v2.cgroup("/elsewhere")
    v2.process(70, cgroup="/elsewhere", pid_ns=9, uts_ns=8, own_pid=1)
    layout = v2.layout()
    reader.read(layout, [container("a", 70)])
    shutil.rmtree(v2.root / "docker")
    for _ in range(3):
        left = reader.read(layout, [container("a", 70)]).containers[docker(A)]
    assert (left.ids, left.pid_ns, left.uts_ns, left.held_kb) == (frozenset(), 9, 8, None)
