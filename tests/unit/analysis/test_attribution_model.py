"""Attribution against a small model of a host: forks, moves, exits and pid reuse, interleaved.

The model keeps the truth that the kernel keeps (a tree of PID namespaces, who made each, where each
process was born); the sources see only what the modules publish, at two different moments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import hypothesis.strategies as st
from hypothesis import event, given, settings

from agent.analysis.attribution import attribute
from agent.model.attribution import AttributedProcess, Basis, Verified
from agent.model.container import (
    DOCKER,
    CgroupView,
    Container,
    ContainerCgroup,
    ContainerKey,
    ContainerState,
    Hierarchy,
)
from agent.model.host import Memory
from agent.model.process import ProcessKey, Snapshot, Source
from tests.unit.analysis.attribution_scene import (
    HOST_CGROUP,
    HOST_PID_NS,
    HOST_UTS_NS,
    ZOMBIE,
    Proc,
    Scene,
)
from tests.unit.analysis.host_model import MAX_PID, Steps, World, play, steps


@dataclass(frozen=True, slots=True)
class Seen:
    """A process among the candidates, as it was then."""

    pid_ns: int
    uts_ns: int


def published(world: World) -> dict[int, Proc]:
    return {pid: replace(proc) for pid, proc in world.procs.items()}


def snapshot_of(
    first: dict[int, Proc], first_ns: int, second: dict[int, Proc], ns: int
) -> Snapshot:
    scene = Scene()
    host = tuple(scene.process(one) for one in scene.procs)
    zombie = [
        replace(one, uts_ns=0) if one.state == ZOMBIE else one
        for one in first.values()
        if one.is_candidate
    ]
    return Snapshot(
        source=Source.MODULES,
        snapshot_ns=ns,
        memory=Memory(1, 1, 0, 1),
        processes=host + tuple(scene.process(one) for one in second.values()),
        candidates=tuple(scene.candidate(one) for one in zombie),
        candidates_ns=first_ns,
    )


def view_of(world: World) -> tuple[CgroupView, tuple[Container, ...]]:
    containers = tuple(
        Container(
            id=box.key,
            name=f"n{box.key[-6:]}",
            image="i",
            created_ns=box.created_ns,
            state=ContainerState.RUNNING,
            first_pid=box.first.pid,
        )
        for box in world.boxes.values()
    )
    view = CgroupView(
        hierarchy=Hierarchy.DEFAULT,
        containers={
            ContainerKey(DOCKER, box.key): ContainerCgroup(
                container=ContainerKey(DOCKER, box.key),
                path="",
                ids=frozenset(box.cgroups),
                pid_ns=box.pid_ns,
                uts_ns=box.uts_ns,
            )
            for box in world.boxes.values()
        },
        host_pid_ns=HOST_PID_NS,
        host_uts_ns=HOST_UTS_NS,
        host_ids=frozenset({HOST_CGROUP}),
    )
    return view, containers


def expected(
    world: World, proc: Proc, seen: Seen | None, candidates_ns: int
) -> tuple[str, Basis | None]:
    """The truth of one process: key of its container ("" for none) and the basis."""
    box = world.box_of(proc.cgroup)
    home, keys = world.home(proc.pid_ns) if seen else (HOST_PID_NS, frozenset())
    if box is None:
        if not keys:
            return "", None
        same_uts = {key for key in keys if seen and world.boxes[key].uts_ns == seen.uts_ns}
        same_uts -= {key for key in keys if world.boxes[key].uts_ns == HOST_UTS_NS}
        maker = world.makers[home]
        among = same_uts or keys
        if maker in among:
            return maker, Basis.STRAYED
        oldest = min(among, key=lambda key: world.boxes[key].created_ns)
        return oldest, Basis.STRAYED
    if seen is None:
        if (box.pid_ns, box.uts_ns) == (HOST_PID_NS, HOST_UTS_NS):
            return box.key, Basis.ADDED
        existed = proc.start_ns < candidates_ns and proc.state != ZOMBIE
        return box.key, Basis.ADDED if existed else Basis.CGROUP
    by_uts = {
        other.key
        for other in world.boxes.values()
        if other.uts_ns == seen.uts_ns and other.uts_ns != HOST_UTS_NS
    }
    named = keys | by_uts
    return box.key, Basis.MOVED if named and box.key not in named else Basis.CGROUP


def links_seen(world: World, pid_ns: int, candidates: dict[ProcessKey, Seen]) -> bool:
    """Whether the way from a nested namespace to a container's was there at both readings."""
    while pid_ns != HOST_PID_NS and all(box.pid_ns != pid_ns for box in world.boxes.values()):
        init = world.inits.get(pid_ns)
        proc = world.procs.get(init.pid) if init else None
        parent = world.procs.get(proc.ppid) if proc else None
        if init not in candidates:
            return False
        if parent is not None and parent.is_candidate and parent.key not in candidates:
            return False
        pid_ns = world.around[pid_ns]
    return True


@settings(max_examples=400, deadline=None)
@given(before=steps(25, 60), between=steps(0, 20))
def test_every_row_names_the_right_container_and_none_is_missing(
    before: Steps, between: Steps
) -> None:
    world = World()
    play(world, before)
    first, first_ns = published(world), world.now + 1
    world.now += 1
    play(world, between)
    snapshot = snapshot_of(first, first_ns, published(world), world.now + 1)
    view, containers = view_of(world)
    found = attribute(snapshot, view, containers)
    rows = {row.process.key: row for row in found.rows}
    assert len(rows) == len(found.rows)
    candidates = {
        one.key: Seen(one.pid_ns, one.uts_ns if one.state != ZOMBIE else 0)
        for one in first.values()
        if one.is_candidate
    }
    for proc in world.procs.values():
        row = rows.pop(proc.key, None)
        key, basis = expected(world, proc, candidates.get(proc.key), first_ns)
        told = (row.container_id, row.basis) if row else ("", None)
        if links_seen(world, proc.pid_ns, candidates):
            assert told == (key, basis)
        else:  # what is not known is not guessed: the container is right or none
            assert told[0] in ("", key)
        if basis:
            event(str(basis))
        life = world.lives[proc.key]
        if not life.meddled and proc.start_ns < first_ns and life.origin in world.boxes:
            assert told[0] == life.origin, "a process that nobody touched is where it was born"
    assert not rows, "a row for a process that does not exist"
    counts = found.counts
    assert counts.unverified == len(found.rows)
    assert counts.strayed == sum(row.basis is Basis.STRAYED for row in found.rows)
    dropped = [
        proc
        for proc in world.procs.values()
        if proc.key in candidates and not any(row.process.key == proc.key for row in found.rows)
    ]
    assert counts.dropped == len(dropped)


@settings(max_examples=200, deadline=None)
@given(
    what=steps(10, 40),
    lies=st.dictionaries(st.integers(0, MAX_PID), st.integers(0, 20), max_size=6),
)
def test_two_witnesses_agree_exactly_where_they_name_the_same_container(
    what: Steps, lies: dict[int, int]
) -> None:
    world = World()
    play(world, what)
    snapshot = snapshot_of(published(world), world.now + 1, published(world), world.now + 1)
    view, containers = view_of(world)
    every = [HOST_CGROUP, *(one for box in world.boxes.values() for one in box.cgroups)]
    second = {proc.key: proc.cgroup for proc in world.procs.values()}
    for pid, choice in lies.items():
        if pid in world.procs:
            second[world.procs[pid].key] = every[choice % len(every)]
    found = attribute(snapshot, view, containers, second)

    def owner(cgroup: int) -> str:
        box = world.box_of(cgroup)
        return box.key if box else ""

    rows: dict[ProcessKey, AttributedProcess] = {row.process.key: row for row in found.rows}
    disputed: set[str] = set()
    for proc in world.procs.values():
        one, other = owner(proc.cgroup), owner(second[proc.key])
        row = rows.get(proc.key)
        if one == other:
            assert row is None or row.verified is Verified.AGREE
            continue
        assert row is not None, "a conflict is always shown"
        assert row.verified is Verified.CONFLICT
        assert row.bpf_container_id == other
        disputed |= {key for key in (one, other, row.container_id) if key}
    assert found.disputed == {ContainerKey(DOCKER, key) for key in disputed}
    assert found.counts.agree + found.counts.conflict == len(found.rows)
