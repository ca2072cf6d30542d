"""Other engines' cgroups, and the figures of a container's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.container import ContainerKey, ContainerState, HeldBasis
from agent.sources.cgroup import reader
from tests.unit.sources.cgroup.reader_support import A, B, F, docker, host, v2
from tests.unit.sources.fake_host import FakeHost, container

__all__ = ["host", "v2"]


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
