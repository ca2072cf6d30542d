"""Whose limit, who grew, who bears witness: what follows from what is known of a kill."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.analysis import autopsy
from agent.analysis.autopsy import Living, NameAndImage, Remembered, Scene, Told
from agent.model.bpf import ProcessExit
from agent.model.container import ContainerKey
from agent.model.oom import (
    LoggedKill,
    MemoryLevel,
    OomCause,
    OomKill,
    OomMark,
    OomWitness,
    VictimMemory,
)
from agent.model.process import ProcessKey

SECOND = 10**9
MB = 1024
WEB = ContainerKey("docker", "ab" * 32)
DB = ContainerKey("docker", "cd" * 32)
BOX, INNER, SLICE, OTHER = 5, 6, 4, 7
NOW = 100 * SECOND


def a_level(
    cgroup_id: int = BOX,
    name: str = WEB.id,
    used: int = 32 * MB,
    limit: int | None = 32 * MB,
    ooms: int = 1,
    swap: tuple[int, int | None] = (0, None),
) -> MemoryLevel:
    return MemoryLevel(cgroup_id, name, used, limit, *swap, ooms)


TOP = a_level(SLICE, "docker", 90 * MB, None, 0)


def key(pid: int, start_s: float = 10.0) -> ProcessKey:
    return ProcessKey(pid, int(start_s * SECOND))


def a_mark(
    pid: int = 91,
    comm: str = "victim",
    rss_mb: int = 20,
    cgroup_id: int = BOX,
    levels: tuple[MemoryLevel, ...] = (a_level(), TOP),
    cause: OomCause = OomCause.LIMIT,
    at_s: float = 95.0,
    start_s: float = 10.0,
) -> OomMark:
    return OomMark(
        key=key(pid, start_s),
        marked_ns=int(at_s * SECOND),
        comm=comm,
        cgroup_id=cgroup_id,
        trigger=key(88),
        trigger_comm="trigger",
        trigger_cgroup_id=OTHER,
        trigger_cgroup=DB.id,
        cause=cause,
        levels=levels,
        memory=VictimMemory(rss_mb * MB, 0, 0, 0),
        oom_score_adj=3,
    )


def a_line(pid: int = 91, limit: str = "/docker/" + WEB.id) -> LoggedKill:
    memory = VictimMemory(20 * MB, 0, 0, None)
    return LoggedKill(
        pid, "victim", memory, 3, bool(limit), limit, limit, 88, "trigger", 95 * SECOND
    )


SCENE = Scene(
    now_ns=NOW,
    wall_ns=1000 * SECOND,
    earlier=(
        Remembered(50 * SECOND, {key(91): 19 * MB, key(92): 5 * MB}),
        Remembered(90 * SECOND, {key(91): 20 * MB, key(92): 6 * MB}),
    ),
    living={key(92): Living("grower", 30 * MB, BOX), key(93): Living("stranger", 99 * MB, OTHER)},
    owner={BOX: WEB, OTHER: DB},
    parents={INNER: BOX, BOX: SLICE, OTHER: SLICE},
    containers={WEB: NameAndImage("web", "alpine"), DB: NameAndImage("db", "postgres")},
    counted={WEB: 1},
    host_total_kb=8192 * MB,
)


def only(told: Told, scene: Scene = SCENE) -> OomKill:
    (found,) = autopsy.autopsies([told], scene)
    return found


def test_a_kill_at_a_containers_limit_is_told_whole() -> None:
    found = only(Told(a_mark(), a_line()))

    assert (found.pid, found.name, found.container_name, found.image) == (
        91,
        "victim",
        "web",
        "alpine",
    )
    assert (found.cause, found.limit_container_name) == (OomCause.LIMIT, "web")
    assert (found.limit_cgroup, found.limit_kb, found.used_kb) == (
        *(f"/docker/{WEB.id}", 32 * MB, 32 * MB),
    )
    assert (found.trigger_pid, found.trigger_name, found.trigger_container_name) == (
        *(88, "trigger", "db"),
    )
    assert found.wall_ns == 995 * SECOND
    assert found.witnesses == (OomWitness.BPF, OomWitness.KERNEL_LOG, OomWitness.COUNTER)


def test_the_one_that_grew_is_not_the_one_that_was_killed() -> None:
    found = only(Told(a_mark(), None))

    assert found.grower is not None
    assert (found.grower.name, found.grower.grown_kb, found.grown_s) == ("grower", 24 * MB, 5.0)
    assert [(one.name, one.state) for one in found.beside] == [
        ("grower", "lived"),
        ("victim", "killed"),
    ]


def test_a_slow_leak_is_looked_for_further_back() -> None:
    scene = replace(
        SCENE,
        earlier=(
            Remembered(50 * SECOND, {key(91): 20 * MB}),
            Remembered(90 * SECOND, {key(91): 20 * MB, key(92): 29 * MB}),
        ),
    )
    found = only(Told(a_mark(), None), scene)

    # One MB since the last tick is less than a tenth of the limit.
    assert found.grower is not None
    assert (found.grower.name, found.grower.grown_kb, found.grown_s) == ("grower", 30 * MB, 45.0)


def test_where_nobody_grew_nobody_is_named() -> None:
    scene = replace(SCENE, living={}, earlier=(Remembered(90 * SECOND, {key(91): 20 * MB}),))

    assert only(Told(a_mark(), None), scene).grower is None


def test_one_born_since_the_last_tick_has_grown_by_all_that_it_has() -> None:
    found = only(Told(a_mark(rss_mb=31, start_s=94.0), None), replace(SCENE, living={}))

    assert found.grower is not None
    assert (found.grower.pid, found.grower.grown_kb) == (91, 31 * MB)


def an_exit(pid: int, peak_mb: int, ended_s: float, start_s: float) -> ProcessExit:
    return ProcessExit(
        key(pid, start_s), key(1), "gone", "sh", BOX, int(ended_s * SECOND), 0, 0, 0,
        peak_mb * MB, oom=False, short_lived=True,
    )  # fmt: skip


def test_one_that_ended_since_counts_with_its_peak_only_where_that_is_no_old_one() -> None:
    scene = replace(
        SCENE,
        living={},
        exits=(
            an_exit(94, 25, 96.0, 92.0),
            an_exit(95, 900, 96.0, 1.0),
            an_exit(96, 80, 94.0, 92.0),
        ),
    )
    found = only(Told(a_mark(), None), scene)

    assert {one.pid: (one.rss_kb, one.state) for one in found.beside} == {
        91: (20 * MB, "killed"),
        94: (25 * MB, "ended"),
        95: (0, "ended"),
    }


def test_victims_of_one_moment_are_each_killed_for_the_others_too() -> None:
    told = [Told(a_mark(91), None), Told(a_mark(92, "grower", 31, at_s=95.1), None)]
    first, second = autopsy.autopsies(told, replace(SCENE, living={}, exits=()))

    assert [one.pid for one in (first, second)] == [91, 92]
    assert {one.pid: one.state for one in second.beside} == {92: "killed"}


@pytest.mark.parametrize(
    ("levels", "before", "expected"),
    [
        pytest.param((a_level(),), {}, BOX, id="its own"),
        pytest.param((a_level(INNER, "inner", limit=None), a_level()), {}, BOX, id="from inside"),
        pytest.param((a_level(ooms=0), a_level(SLICE, ooms=2)), {}, SLICE, id="who raised it"),
        pytest.param((a_level(ooms=4), a_level(SLICE)), {BOX: 4}, SLICE, id="not an old one"),
        pytest.param((a_level(ooms=5), a_level(SLICE)), {BOX: 4, SLICE: 0}, BOX, id="the lowest"),
        pytest.param((a_level(used=8, swap=(64 * MB, 64 * MB)),), {}, BOX, id="v1's with swap"),
        pytest.param((a_level(used=30 * MB),), {}, BOX, id="given back meanwhile"),
        pytest.param((a_level(limit=None),), {}, None, id="without a limit"),
        pytest.param((a_level(ooms=0),), {}, None, id="nobody raised it"),
        pytest.param((), {}, None, id="no cgroup"),
    ],
)
def test_whose_limit_it_was(
    levels: tuple[MemoryLevel, ...], before: dict[int, int], expected: int | None
) -> None:
    found = autopsy.at_limit(levels, before)

    assert (found.cgroup_id if found else None) == expected


def test_a_kill_in_a_cgroup_inside_is_the_containers() -> None:
    levels = (a_level(INNER, "inner", limit=None, ooms=0), a_level(), TOP)
    found = only(Told(a_mark(cgroup_id=INNER, levels=levels), None))

    assert (found.container_id, found.cgroup) == (WEB.id, f"/docker/{WEB.id}/inner")
    assert found.limit_container_name == "web"


def test_a_container_that_nobody_remembers_is_known_by_its_cgroups_name() -> None:
    scene = replace(SCENE, owner={}, containers={})
    found = only(Told(a_mark(), None), scene)

    assert (found.container_id, found.container_name) == (WEB.id, "")
    assert found.limit_container_name == WEB.short_id


def test_the_hosts_memory_concerns_everybody() -> None:
    found = only(Told(a_mark(cause=OomCause.HOST), a_line(limit="")))

    assert (found.cause, found.limit_cgroup, found.limit_container_name) == (OomCause.HOST, "", "")
    assert (found.limit_kb, found.used_kb) == (8192 * MB, None)
    assert {one.name for one in found.beside} == {"victim", "grower", "stranger"}


def test_without_bpf_the_log_is_what_is_known() -> None:
    found = only(Told(None, a_line()))

    assert (found.pid, found.name, found.container_name) == (91, "victim", "web")
    assert (found.cause, found.limit_cgroup) == (OomCause.LIMIT, f"/docker/{WEB.id}")
    assert (found.limit_kb, found.used_kb, found.trigger_pid) == (None, None, 88)
    assert found.witnesses == (OomWitness.KERNEL_LOG, OomWitness.COUNTER)
    assert found.grower is not None
    assert found.grower.name == "grower"


def test_where_the_stack_told_nothing_the_log_and_the_counters_do() -> None:
    unknown = a_mark(cause=OomCause.UNKNOWN)

    assert only(Told(unknown, a_line(limit=""))).cause is OomCause.HOST
    assert only(Told(unknown, None)).cause is OomCause.LIMIT
    assert only(Told(replace(unknown, levels=()), None)).cause is OomCause.UNKNOWN


def test_a_counter_that_counted_fewer_is_no_witness() -> None:
    told = [Told(a_mark(91), None), Told(a_mark(92), None)]

    found = autopsy.autopsies(told, SCENE)

    assert {one.witnesses for one in found} == {(OomWitness.BPF,)}


def test_each_mark_finds_its_line_and_a_process_dies_once() -> None:
    first, again, other = a_mark(91), a_mark(91, at_s=95.2), a_mark(92)
    told, alone = autopsy.pair(
        [first, again, other], [a_line(91), a_line(91), a_line(93), a_line(93), a_line(94)], {94}
    )

    assert [(one.mark, one.logged and one.logged.pid) for one in told] == [
        (first, 91),
        (other, None),
    ]
    assert [one.pid for one in alone] == [93]
