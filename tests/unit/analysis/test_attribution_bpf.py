"""What BPF's record adds to a row: agreement, a conflict with both names, or nothing."""

from __future__ import annotations

import pytest

from agent.analysis.attribution import attribute
from agent.model.attribution import Basis, Verified
from agent.model.bpf import Losses
from agent.model.process import ProcessKey, Source
from tests.unit.analysis.attribution_scene import (
    HOST_CGROUP,
    ZOMBIE,
    Scene,
    full_id,
)
from tests.unit.analysis.attribution_scenes import answer, row_of
from tests.unit.builders import container_key


def test_bpf_agrees_where_it_names_the_same_container() -> None:
    scene = Scene()
    first = scene.container("a", below=(500,))
    stray = scene.child(first, cgroup=HOST_CGROUP)
    unrecorded = scene.child(first)
    found = answer(scene, {first.key: 500, stray.key: 9})
    assert row_of(found, first).verified is Verified.AGREE  # another directory, the same container
    assert row_of(found, stray).verified is Verified.AGREE  # both name none
    assert row_of(found, unrecorded).verified is Verified.UNVERIFIED
    assert (found.counts.agree, found.counts.conflict, found.counts.unverified) == (2, 0, 1)
    assert found.disputed == frozenset()


def test_without_bpf_every_row_is_unverified() -> None:
    scene = Scene()
    scene.container("a")
    counts = answer(scene).counts
    assert (counts.agree, counts.conflict, counts.unverified) == (0, 0, 1)


@pytest.mark.parametrize(("second", "named"), [(ord("b"), "b"), (HOST_CGROUP, "")])
def test_a_conflict_names_both_and_makes_them_doubtful(second: int, named: str) -> None:
    scene = Scene()
    first = scene.container("a")
    scene.container("b")
    found = answer(scene, {first.key: second})
    row = row_of(found, first)
    assert (row.container_id, row.verified) == (full_id("a"), Verified.CONFLICT)
    assert row.bpf_container_id == (full_id(named) if named else "")
    assert found.disputed == {container_key("a")} | ({container_key(named)} if named else set())
    assert found.counts.conflict == 1


def test_a_process_that_only_bpf_puts_into_a_container_is_shown_as_a_conflict_there() -> None:
    scene = Scene()
    scene.container("a")
    host = scene.proc()
    found = answer(scene, {host.key: ord("a")})
    row = row_of(found, host)
    assert (row.container_id, row.verified) == (full_id("a"), Verified.CONFLICT)
    assert row.bpf_container_id == full_id("a")
    assert found.disputed == {container_key("a")}


def test_where_the_source_was_not_told_the_cgroup_the_namespaces_stand_before_bpf() -> None:
    scene = Scene()
    first = scene.container("a")
    scene.container("b")
    zombie = scene.child(first, cgroup=0, state=ZOMBIE, vsz_kb=0)
    only_bpf = scene.proc(cgroup=0, state=ZOMBIE, vsz_kb=0)
    records = {zombie.key: ord("a"), only_bpf.key: ord("b")}
    found = answer(scene, records)
    row = row_of(found, zombie)
    assert (row.basis, row.verified) == (Basis.STRAYED, Verified.AGREE)
    assert found.counts.conflict == 0
    assert (row_of(found, only_bpf).container_id, row_of(found, only_bpf).verified) == (
        full_id("b"),
        Verified.UNVERIFIED,
    )
    assert len(found.rows) == 4
    assert row_of(answer(scene, {zombie.key: ord("b")}), zombie).verified is Verified.CONFLICT


def test_bpfs_record_of_an_earlier_process_with_the_same_pid_says_nothing() -> None:
    scene = Scene()
    first = scene.container("a")
    found = answer(scene, {ProcessKey(first.pid, first.start_ns - 1): HOST_CGROUP})
    assert row_of(found, first).verified is Verified.UNVERIFIED


def test_psutils_starts_are_matched_by_clock_tick() -> None:
    scene = Scene()
    first = scene.container("a")
    first.start_ns = 50_000_000
    exact = ProcessKey(first.pid, 54_321_987)
    found = answer(scene, {exact: ord("a")}, source=Source.PSUTIL)
    assert row_of(found, first).verified is Verified.AGREE


def test_equal_ids_agree_though_nobody_knows_the_cgroup() -> None:
    scene = Scene()
    first = scene.container("a")
    stray = scene.child(first, cgroup=800)
    assert row_of(answer(scene, {stray.key: 800}), stray).verified is Verified.AGREE


def test_losses_are_handed_on() -> None:
    scene = Scene()
    found = attribute(scene.snapshot(), scene.view(), (), None, Losses(3, 4, 5, 1))
    counts = found.counts
    assert (counts.events_lost, counts.events_missed) == (3, 1)
    assert (counts.events_corrected, counts.events_late) == (4, 5)


def test_rows_come_in_the_snapshots_order() -> None:
    scene = Scene()
    first = scene.container("b")
    scene.child(first)
    scene.container("a")
    pids = [row.process.pid for row in answer(scene).rows]
    assert pids == sorted(pids)
