"""Whose each cgroup is: by name, by first process, and against names that lie."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.container import DOCKER, ContainerKey, ContainerState, HeldBasis, Hierarchy
from agent.sources import procfs
from agent.sources.cgroup import reader
from tests.unit.sources.fake_host import HOST_PID_NS, HOST_UTS_NS, FakeHost, container, full_id

A, B, F = full_id("a"), full_id("b"), full_id("f")
PLACES = {
    "systemd driver": "/system.slice/docker-{}.scope",
    "cgroupfs driver": "/docker/{}",
    "cgroup parent": "/so1/deep/down/{}",
    "a slice": "/so1.slice/so1-deep.slice/docker-{}.scope",
    "rootless": "/user.slice/user-1.slice/user@1.service/app.slice/docker-{}.scope",
    "another prefix": "/x/balena-{}.scope",
}


def docker(container_id: str) -> ContainerKey:
    return ContainerKey(DOCKER, container_id)


@pytest.fixture(params=["v2", "v1", "hybrid"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path, request.param)


@pytest.fixture
def v2(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path, "v2")


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


# Names that lie.


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


# Through the first process.


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


# Namespaces of first processes.


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


# What one reading leaves to the next.


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


# Foreign containers.


def test_podmans_are_foreign_at_once_without_their_monitors_and_pods(host: FakeHost) -> None:
    scope = host.cgroup(f"/machine.slice/libpod-{F}.scope")
    inner = host.cgroup(f"/machine.slice/libpod-{F}.scope/container")
    monitor = host.cgroup(f"/machine.slice/libpod-conmon-{F}.scope")
    pod = host.cgroup(f"/machine.slice/machine-libpod_pod_{B}.slice")
    view = reader.read(host.layout(), [])
    key = ContainerKey("libpod", F)
    assert set(view.foreign) == {key}
    assert view.foreign[key].ids == {scope, inner}
    assert view.foreign[key].name == f"libpod-{F[:12]}"
    assert {monitor, pod} <= view.host_ids


@pytest.mark.parametrize(("name", "runtime"), [(f"docker-{F}.scope", "docker"), (F, "")])
def test_one_that_could_be_dockers_is_foreign_only_after_docker_was_asked_again(
    host: FakeHost, name: str, runtime: str
) -> None:
    own = host.cgroup(f"/x/{name}")
    layout = host.layout()
    first = reader.read(layout, [])
    assert first.foreign == {}
    assert own not in first.host_ids
    second = reader.read(layout, [], frozenset({own}))
    key = ContainerKey(runtime, F)
    assert second.foreign[key].ids == {own}
    assert reader.read(layout, []).foreign.keys() == {key}  # it need not be asked for again
    assert reader.read(layout, [container("f")]).foreign == {}  # Docker lists it now
    assert reader.read(layout, []).foreign == {}


def test_an_exited_containers_directory_is_never_foreign(v2: FakeHost) -> None:
    own = v2.cgroup(f"/docker/{A}")
    exited = container("a", state=ContainerState.EXITED)
    view = reader.read(v2.layout(), [exited], frozenset({own}))
    assert view.foreign == {}
    assert view.containers == {}


# Figures.


def test_v2_figures_are_what_the_end_gives_back(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}")
    found = reader.read(v2.layout(), [container("a")]).containers[docker(A)]
    assert found.held_kb == 4096 + 1024 + 512 - 128
    assert (found.held_basis, found.cache_kb) == (HeldBasis.CGROUP2, 3072 - 1024)
    assert (found.cpu_ns, found.oom_kills) == (7_000_000, 2)
    assert (found.anon_kb, found.file_kb) == (4096, 3072)
    assert found.read_ns > 0


@pytest.mark.parametrize(
    ("text", "limit_kb"), [("max\n", None), ("1048576\n", 1024), ("0\n", 0), ("", None)]
)
def test_a_v2_limit_is_a_number_or_none(v2: FakeHost, text: str, limit_kb: int | None) -> None:
    v2.cgroup(f"/docker/{A}")
    (v2.root / f"docker/{A}/memory.max").write_text(text)
    assert reader.read(v2.layout(), [container("a")]).containers[docker(A)].limit_kb == limit_kb


@pytest.mark.parametrize(
    ("text", "limit_kb"), [("9223372036854771712\n", None), ("1048576\n", 1024)]
)
def test_a_v1_limit_that_no_memory_reaches_is_none(
    tmp_path: Path, text: str, limit_kb: int | None
) -> None:
    host = FakeHost(tmp_path, "v1")
    host.cgroup(f"/docker/{A}")
    (host.root / f"memory/docker/{A}/memory.limit_in_bytes").write_text(text)
    found = reader.read(host.layout(), [container("a")]).containers[docker(A)]
    assert (found.limit_kb, found.anon_kb, found.file_kb) == (limit_kb, 4096, 3072)


@pytest.mark.parametrize("kind", ["v1", "hybrid"])
def test_v1_figures_hold_the_kernels_part_whole(tmp_path: Path, kind: str) -> None:
    host = FakeHost(tmp_path, kind)
    host.cgroup(f"/docker/{A}")
    found = reader.read(host.layout(), [container("a")]).containers[docker(A)]
    assert found.held_kb == 4096 + 1024 + 512
    assert (found.held_basis, found.cache_kb) == (HeldBasis.CGROUP1, 3072 - 1024)
    assert (found.cpu_ns, found.oom_kills) == (7_000_000, 2)


def test_v1_cpu_time_is_found_where_the_path_differs_between_hierarchies(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, "v1")
    host.cgroup(f"/system.slice/containerd.service/x/{A}", figures=False)
    (host.root / "memory/system.slice/containerd.service/x" / A / "memory.stat").write_text("")
    host.cpu_usage(f"/x/{A}", 99)
    assert reader.read(host.layout(), [container("a")]).containers[docker(A)].cpu_ns == 99


def test_a_container_that_is_started_again_has_another_life(v2: FakeHost) -> None:
    own = v2.cgroup(f"/docker/{A}")
    v2.cgroup(f"/docker/{A}/inner")
    first = reader.read(v2.layout(), [container("a")]).containers[docker(A)]
    assert first.life_id == own != 0
    (v2.root / "docker" / A).rename(v2.root / "old")
    again = v2.cgroup(f"/docker/{A}")
    assert reader.read(v2.layout(), [container("a")]).containers[docker(A)].life_id == again != own


MB = 1 << 20


@pytest.mark.parametrize(
    ("stat", "held_mb"),
    [
        # Socket buffers are beside `kernel`.
        ({"sock": 100 * MB}, 104),
        # All of `file` that is locked; locked anonymous memory is on no list and counted in `anon`.
        ({"file": 300 * MB, "unevictable": 256 * MB, "inactive_anon": 4 * MB}, 260),
        ({"anon": 260 * MB, "unevictable": 256 * MB, "inactive_anon": 4 * MB}, 260),
        # Both at once.
        (
            {
                "anon": 260 * MB,
                "file": 70 * MB,
                "unevictable": (256 + 64) * MB,
                "inactive_anon": 4 * MB,
            },
            324,
        ),
        # Swap cache is on the lists beyond `anon`, and is no locked file.
        ({"file": 70 * MB, "inactive_anon": 60 * MB}, 4),
        # Never more of a file than there is.
        ({"file": 5 * MB, "unevictable": 64 * MB, "inactive_anon": 4 * MB}, 9),
    ],
)
@pytest.mark.parametrize("kind", ["v2", "v1"])
def test_held_memory_has_sockets_and_files_that_are_locked(
    tmp_path: Path, kind: str, stat: dict[str, int], held_mb: int
) -> None:
    host = FakeHost(tmp_path, kind)
    host.cgroup(f"/docker/{A}")
    directory = host.identifying / "docker" / A
    base = {"anon": 4 * MB, "file": 0, "shmem": 0, "active_anon": 0, "inactive_anon": 4 * MB}
    names = {"anon": "total_rss", "file": "total_cache"} if kind == "v1" else {}
    prefix = "total_" if kind == "v1" else ""
    lines = {names.get(key, prefix + key): value for key, value in (base | stat).items()}
    (directory / "memory.stat").write_text("".join(f"{k} {v}\n" for k, v in lines.items()))
    if kind == "v1":
        (directory / "memory.kmem.usage_in_bytes").write_text("0\n")
        (directory / "memory.kmem.tcp.usage_in_bytes").write_text(f"{stat.get('sock', 0)}\n")
    found = reader.read(host.layout(), [container("a")]).containers[docker(A)]
    assert found.held_kb == held_mb * 1024


def test_swap_is_told_beside_what_is_held(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}")
    directory = v2.root / "docker" / A
    before = reader.read(v2.layout(), [container("a")]).containers[docker(A)]
    assert before.swap_kb is None
    (directory / "memory.swap.current").write_text(f"{30 * MB}\n")
    found = reader.read(v2.layout(), [container("a")]).containers[docker(A)]
    assert (found.swap_kb, found.held_kb) == (30 * 1024, before.held_kb)


def test_swap_on_v1_is_a_line_of_memory_stat(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, "v1")
    host.cgroup(f"/docker/{A}")
    stat = host.identifying / "docker" / A / "memory.stat"
    stat.write_text(stat.read_text() + f"swap 1\ntotal_swap {30 * MB}\n")
    assert reader.read(host.layout(), [container("a")]).containers[docker(A)].swap_kb == 30 * 1024


@pytest.mark.parametrize("kind", ["v2", "v1", "elsewhere"])
def test_surplus_huge_pages_are_held_wherever_v1_keeps_their_controller(
    tmp_path: Path, kind: str
) -> None:
    host = FakeHost(tmp_path, "v2" if kind == "v2" else "v1")
    host.cgroup(f"/docker/{A}")
    pool = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    pool.mkdir(parents=True)
    (pool / "surplus_hugepages").write_text("32\n")
    if kind == "v2":
        file = host.root / "docker" / A / "hugetlb.2MB.current"
    else:
        root = host.mount("hugetlb", "cgroup", "rw,hugetlb")
        parent = "other/docker" if kind == "elsewhere" else "docker"
        file = root / parent / A / "hugetlb.2MB.usage_in_bytes"
        file.parent.mkdir(parents=True)
    before = reader.read(host.layout(), [container("a")]).containers[docker(A)]
    file.write_text(f"{64 * MB}\n")
    found = reader.read(host.layout(), [container("a")]).containers[docker(A)]
    assert found.held_estimated_kb == 64 * 1024
    assert found.held_kb == (before.held_kb or 0) + 64 * 1024


def test_without_a_memory_controller_there_is_no_held_figure(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}", figures=False)
    found = reader.read(v2.layout(), [container("a")]).containers[docker(A)]
    assert (found.held_kb, found.held_basis, found.cache_kb) == (None, HeldBasis.RSS, None)
    assert (found.cpu_ns, found.oom_kills) == (None, None)


def test_a_kernel_without_the_kernel_line_adds_its_parts(v2: FakeHost) -> None:
    v2.cgroup(f"/docker/{A}")
    stat = v2.root / f"docker/{A}/memory.stat"
    stat.write_text("anon 1048576\nkernel_stack 2048\nslab 4096\nslab_reclaimable 1024\njunk\n")
    found = reader.read(v2.layout(), [container("a")]).containers[docker(A)]
    assert found.held_kb == 1024 + 2 + 4 - 1


def test_names_that_steer_a_terminal_are_shown_as_escapes(v2: FakeHost) -> None:
    v2.cgroup(f"/evil\x1b[2J\udcff/docker-{A}.scope")
    found = reader.read(v2.layout(), [container("a")]).containers[docker(A)]
    assert found.path == f"/evil\\x1b[2J\\xdcff/docker-{A}.scope"


def test_a_hierarchy_that_is_gone_gives_nothing(v2: FakeHost) -> None:
    layout = replace(v2.layout(), root=v2.root / "gone")
    assert reader.read(layout, [container("a")]).containers == {}
