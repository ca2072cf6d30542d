"""The attribution's rules, one a test, on scenes small enough to see through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.analysis.attribution import attribute
from agent.model.attribution import Basis, Verified
from agent.model.container import ContainerKey, ForeignCgroup, Hierarchy
from agent.model.process import Process
from tests.unit.analysis.attribution_scene import (
    HOST_CGROUP,
    HOST_PID_NS,
    HOST_UTS_NS,
    ZOMBIE,
    Proc,
    Scene,
    full_id,
)
from tests.unit.analysis.attribution_scenes import Second, answer, row_of


def told(
    scene: Scene, second: Second | None = None, **reading: object
) -> dict[int, tuple[str, Basis]]:
    """pid → (letter of the container, basis)."""
    return {
        row.process.pid: (row.container_id[0], row.basis)
        for row in answer(scene, second, **reading).rows
    }


@pytest.mark.parametrize("hierarchy", list(Hierarchy))
def test_processes_in_a_containers_cgroup_and_below_are_its_rows(hierarchy: Hierarchy) -> None:
    scene = Scene(hierarchy=hierarchy)
    first = scene.container("a", below=(500, 501))
    worker = scene.child(first)
    nested = scene.child(first, cgroup=501)
    scene.container("b")
    host = scene.proc()
    found = told(scene)
    assert found[first.pid] == found[worker.pid] == found[nested.pid] == ("a", Basis.CGROUP)
    assert host.pid not in found
    assert len(found) == 4


def test_a_row_carries_the_full_id_and_the_name_of_its_container() -> None:
    scene = Scene()
    first = scene.container("a")
    row = row_of(answer(scene), first)
    assert (row.container_id, row.container_name) == (full_id("a"), "name-a")
    assert row.verified is Verified.UNVERIFIED
    assert row.bpf_container_id is None


def test_a_container_with_the_hosts_namespaces_is_added() -> None:
    scene = Scene()
    first = scene.container("a", pid_ns=HOST_PID_NS, uts_ns=HOST_UTS_NS)
    child = scene.child(first)
    found = answer(scene)
    assert {row.process.pid: row.basis for row in found.rows} == {
        first.pid: Basis.ADDED,
        child.pid: Basis.ADDED,
    }
    assert found.counts.added == 2


@pytest.mark.parametrize(
    "shared", [{"pid_ns": HOST_PID_NS}, {"uts_ns": HOST_UTS_NS}], ids=["--pid=host", "--uts=host"]
)
def test_one_namespace_of_its_own_makes_a_container_ordinary(shared: dict[str, Any]) -> None:
    scene = Scene()
    first = scene.container("a", **shared)
    assert told(scene) == {first.pid: ("a", Basis.CGROUP)}


def test_a_host_process_put_into_a_containers_cgroup_is_added() -> None:
    scene = Scene()
    scene.container("a")
    guest = scene.proc(cgroup=ord("a"))
    assert told(scene)[guest.pid] == ("a", Basis.ADDED)


def test_a_process_born_between_the_two_readings_is_not_called_added() -> None:
    scene = Scene()
    first = scene.container("a")
    born = scene.child(first, start_ns=5_000)
    old = scene.proc(cgroup=ord("a"), start_ns=3_000)
    found = told(scene, candidates_ns=4_000, snapshot_ns=6_000, unseen=(born,))
    assert found[born.pid] == ("a", Basis.CGROUP)
    assert found[old.pid] == ("a", Basis.ADDED)


def test_where_the_candidates_are_read_last_one_that_ended_is_not_called_added() -> None:
    scene = Scene()
    first = scene.container("a")
    ended = scene.child(first, start_ns=1_000)
    found = told(scene, candidates_ns=9_000, snapshot_ns=6_000, unseen=(ended,))
    assert found[ended.pid] == ("a", Basis.CGROUP)


def test_a_candidate_that_is_no_process_any_more_is_no_row_and_not_dropped() -> None:
    scene = Scene()
    first = scene.container("a")
    gone = scene.child(first, cgroup=HOST_CGROUP)
    unit = scene.proc(uts_ns=77)
    snapshot = scene.snapshot()
    left = tuple(one for one in snapshot.processes if one.pid not in (gone.pid, unit.pid))
    found = attribute(
        replace(snapshot, processes=left), scene.view(), tuple(scene.containers.values())
    )
    assert [row.process.pid for row in found.rows] == [first.pid]
    assert found.counts.dropped == 0


def test_a_pid_that_was_used_again_is_another_process() -> None:
    scene = Scene()
    first = scene.container("a")
    stray = scene.child(first, cgroup=HOST_CGROUP)
    snapshot = scene.snapshot()
    reused = replace_start(scene, stray)
    processes = tuple(reused if one.pid == stray.pid else one for one in snapshot.processes)
    found = attribute(
        replace(snapshot, processes=processes), scene.view(), tuple(scene.containers.values())
    )
    assert [row.process.pid for row in found.rows] == [first.pid]


def replace_start(scene: Scene, proc: Proc) -> Process:
    return scene.process(replace(proc, start_ns=proc.start_ns + 1))


@pytest.mark.parametrize("reused", ["init", "parent"])
def test_a_pid_used_again_between_the_readings_leads_to_no_container(reused: str) -> None:
    scene = Scene()
    first = scene.container("a")
    parent = scene.child(first)
    init = scene.child(parent, pid_ns=900, ns_pid=1, cgroup=HOST_CGROUP)
    entered = scene.proc(pid_ns=900)
    assert told(scene)[entered.pid] == ("a", Basis.STRAYED)
    other = replace_start(scene, init if reused == "init" else parent)
    snapshot = scene.snapshot()
    processes = tuple(other if one.pid == other.pid else one for one in snapshot.processes)
    found = attribute(
        replace(snapshot, processes=processes), scene.view(), tuple(scene.containers.values())
    )
    assert entered.pid not in {row.process.pid for row in found.rows}


def test_a_process_moved_to_the_host_is_a_stray_of_its_container() -> None:
    scene = Scene()
    first = scene.container("a")
    stray = scene.child(first, cgroup=HOST_CGROUP)
    found = answer(scene)
    assert row_of(found, stray).container_id == full_id("a")
    assert row_of(found, stray).basis is Basis.STRAYED
    assert found.counts.strayed == 1
    assert found.counts.dropped == 0


def test_the_first_process_itself_may_stray() -> None:
    scene = Scene()
    first = scene.container("a")
    first.cgroup = HOST_CGROUP
    assert told(scene) == {first.pid: ("a", Basis.STRAYED)}


def test_a_stray_of_a_container_in_the_hosts_pid_namespace_is_dropped() -> None:
    scene = Scene()
    first = scene.container("a", pid_ns=HOST_PID_NS)
    stray = scene.child(first, cgroup=HOST_CGROUP)
    found = answer(scene)
    assert [row.process.pid for row in found.rows] == [first.pid]
    assert found.counts.dropped == 1
    assert stray.is_candidate


def test_units_with_private_namespaces_are_dropped_and_counted() -> None:
    scene = Scene()
    scene.container("a")
    scene.proc(uts_ns=77)
    unshared = scene.proc(pid_ns=88, ns_pid=1)
    scene.child(unshared)
    found = answer(scene)
    assert len(found.rows) == 1
    assert found.counts.dropped == 3


def test_the_cgroup_of_one_with_the_namespaces_of_another_is_moved() -> None:
    scene = Scene()
    first = scene.container("a")
    scene.container("b")
    moved = scene.child(first, cgroup=ord("b"))
    found = answer(scene)
    assert row_of(found, moved).container_id == full_id("b")
    assert row_of(found, moved).basis is Basis.MOVED
    assert found.counts.moved == 1


def test_the_uts_namespace_shows_a_move_out_of_a_container_in_the_hosts_pid_namespace() -> None:
    scene = Scene()
    first = scene.container("a", pid_ns=HOST_PID_NS)
    scene.container("b")
    moved = scene.child(first, cgroup=ord("b"))
    assert told(scene)[moved.pid] == ("b", Basis.MOVED)


def test_a_container_in_anothers_pid_namespace_is_itself() -> None:
    scene = Scene()
    scene.container("a")
    second = scene.container("b", pid_ns=ord("a") * 10)
    child = scene.child(second)
    found = told(scene)
    assert found[second.pid] == found[child.pid] == ("b", Basis.CGROUP)


def test_a_stray_in_a_shared_pid_namespace_goes_by_its_uts_namespace() -> None:
    scene = Scene()
    scene.container("a")
    second = scene.container("b", pid_ns=ord("a") * 10)
    stray = scene.child(second, cgroup=HOST_CGROUP)
    assert told(scene)[stray.pid] == ("b", Basis.STRAYED)


def test_a_stray_that_only_shares_the_pid_namespace_goes_to_the_one_that_made_it() -> None:
    scene = Scene()
    scene.container("b", created_ns=2)
    scene.container("a", pid_ns=ord("b") * 10, created_ns=1)
    stray = scene.proc(pid_ns=ord("b") * 10)
    assert told(scene)[stray.pid] == ("b", Basis.STRAYED)


def test_a_pid_namespace_made_inside_a_container_is_the_containers_at_any_depth() -> None:
    scene = Scene()
    first = scene.container("a")
    inner = scene.child(first, pid_ns=900, ns_pid=1, cgroup=HOST_CGROUP)
    innermost = scene.child(inner, pid_ns=901, ns_pid=1, uts_ns=902, cgroup=HOST_CGROUP)
    leaf = scene.child(innermost)
    found = told(scene)
    assert found[inner.pid] == found[innermost.pid] == found[leaf.pid] == ("a", Basis.STRAYED)


def test_a_nested_pid_namespace_in_another_containers_cgroup_is_moved() -> None:
    scene = Scene()
    first = scene.container("a")
    scene.container("b")
    inner = scene.child(first, pid_ns=900, ns_pid=1, cgroup=ord("b"))
    assert told(scene)[inner.pid] == ("b", Basis.MOVED)


def test_a_namespace_of_nobody_inside_a_containers_cgroup_is_ordinary() -> None:
    scene = Scene()
    first = scene.container("a")
    inside = scene.child(first, pid_ns=900, ns_pid=1, uts_ns=901)
    assert told(scene)[inside.pid] == ("a", Basis.CGROUP)


def test_parents_in_a_circle_end_the_search() -> None:
    scene = Scene()
    scene.container("a")
    one = scene.proc(pid_ns=900, ns_pid=1)
    other = scene.proc(pid_ns=901, ns_pid=1, ppid=one.pid)
    one.ppid = other.pid
    assert one.pid not in told(scene)


def test_without_the_hosts_namespaces_they_bear_no_witness() -> None:
    scene = Scene(host_pid_ns=0)
    first = scene.container("a", pid_ns=HOST_PID_NS)
    udev = scene.proc(uts_ns=77)
    assert told(scene) == {first.pid: ("a", Basis.CGROUP)}
    assert udev.is_candidate


def test_an_unknown_first_process_takes_nothing_from_the_cgroups_word() -> None:
    scene = Scene()
    first = scene.container("a")
    scene.cgroups["a"] = replace(scene.cgroups["a"], pid_ns=0, uts_ns=0)
    assert told(scene) == {first.pid: ("a", Basis.CGROUP)}


def test_a_process_whose_cgroup_cannot_be_read_is_its_containers_and_no_stray() -> None:
    scene = Scene()
    first = scene.container("a")
    unread = scene.child(first, cgroup=0)
    found = answer(scene)
    row = row_of(found, unread)
    assert (row.container_id, row.basis, row.verified) == (
        full_id("a"),
        Basis.CGROUP,
        Verified.UNVERIFIED,
    )
    assert found.counts.strayed == 0


def test_a_process_whose_cgroup_cannot_be_read_is_counted_where_nothing_names_its_container() -> (
    None
):
    scene = Scene()
    scene.container("a", pid_ns=HOST_PID_NS, uts_ns=HOST_UTS_NS)
    unread = scene.proc(cgroup=0)
    scene.proc(cgroup=0, state=ZOMBIE, vsz_kb=0)
    before = answer(scene).counts
    assert before.unverified == 2  # the first process, for want of BPF, and this one
    told_by_bpf = row_of(answer(scene, {unread.key: ord("a")}), unread)
    assert (told_by_bpf.container_id, told_by_bpf.verified) == (full_id("a"), Verified.UNVERIFIED)
    known = answer(scene, {unread.key: HOST_CGROUP}).counts
    assert known.unverified == 1


def test_a_host_process_whose_main_thread_has_ended_is_added_like_any_other() -> None:
    scene = Scene()
    scene.container("a")
    put_in = scene.proc(cgroup=ord("a"), state=ZOMBIE, vsz_kb=4096)
    assert told(scene)[put_in.pid] == ("a", Basis.ADDED)


def test_zombies_are_rows_of_their_container() -> None:
    scene = Scene()
    first = scene.container("a")
    zombie = scene.child(first, state=ZOMBIE, vsz_kb=0)
    host_pid = scene.container("b", pid_ns=HOST_PID_NS)
    no_candidate = scene.child(host_pid, state=ZOMBIE, vsz_kb=0)
    found = told(scene)
    assert found[zombie.pid] == ("a", Basis.CGROUP)
    assert found[no_candidate.pid] == ("b", Basis.CGROUP)


def test_kernel_threads_and_pid_1_are_nobodys_even_in_a_containers_cgroup() -> None:
    scene = Scene()
    first = scene.container("a")
    vhost = scene.proc(ppid=2, vsz_kb=0, cgroup=ord("a"))
    scene.procs[0].cgroup = scene.procs[1].cgroup = ord("a")
    assert set(told(scene)) == {first.pid}
    assert vhost.pid not in told(scene)


def test_a_foreign_container_is_stored_under_its_own_id() -> None:
    scene = Scene()
    key = ContainerKey("libpod", full_id("f"))
    scene.foreign = {key: ForeignCgroup(key, "libpod-ffff", "/x", frozenset({600, 601}))}
    inside = scene.proc(cgroup=601, pid_ns=950, uts_ns=951, ns_pid=1)
    row = row_of(answer(scene), inside)
    assert (row.container, row.container_name, row.basis) == (key, "libpod-ffff", Basis.CGROUP)


def test_docker_inside_docker_belongs_to_the_outer_one_wherever_its_cgroups_are() -> None:
    scene = Scene()
    key = ContainerKey("docker", full_id("f"))
    scene.foreign = {key: ForeignCgroup(key, "docker-ffff", "/docker/f", frozenset({600}))}
    outer = scene.container("a")
    inner = scene.child(outer, pid_ns=900, ns_pid=1, uts_ns=902, cgroup=600)
    assert told(scene)[inner.pid] == ("a", Basis.STRAYED)


def test_a_docker_process_in_a_foreign_containers_cgroup_is_moved() -> None:
    scene = Scene()
    key = ContainerKey("libpod", full_id("f"))
    scene.foreign = {key: ForeignCgroup(key, "libpod-ffff", "/x", frozenset({600}))}
    first = scene.container("a")
    moved = scene.child(first, cgroup=600)
    assert told(scene)[moved.pid] == ("f", Basis.MOVED)


def test_cgroup_0_is_nobodys() -> None:
    scene = Scene()
    scene.container("a")
    scene.cgroups["a"] = replace(scene.cgroups["a"], ids=frozenset({0, ord("a")}))
    lost = scene.proc(cgroup=0)
    found = answer(scene)
    assert lost.pid not in {row.process.pid for row in found.rows}
    assert 0 not in found.unknown_cgroups


def test_unknown_cgroups_are_those_of_candidates_that_nobody_claims() -> None:
    scene = Scene()
    scene.container("a")
    scene.proc(cgroup=700, uts_ns=77)
    scene.proc(cgroup=701)
    assert answer(scene).unknown_cgroups == {700}


def test_where_the_hosts_cgroups_are_known_every_other_one_is_unknown() -> None:
    scene = Scene(host_ids=frozenset({HOST_CGROUP, 700}))
    scene.container("a")
    scene.proc(cgroup=700, uts_ns=77)
    scene.proc(cgroup=701)
    assert answer(scene).unknown_cgroups == {701}


def test_a_strays_cgroup_that_was_not_seen_is_unknown_too() -> None:
    scene = Scene(host_ids=frozenset({HOST_CGROUP}))
    first = scene.container("a")
    scene.child(first, cgroup=702)
    assert answer(scene).unknown_cgroups == {702}
