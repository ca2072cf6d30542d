"""Whose a cgroup is that came and went between two ticks: its name counts for its maker's word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.analysis.cpu_accounting import owners
from agent.model.bpf import BpfView, CgroupName
from agent.model.container import (
    CgroupView,
    ContainerCgroup,
    ContainerKey,
    ForeignCgroup,
    Hierarchy,
)
from tests.unit.analysis.cpu_kernel import view as bpf_view

A, B = ContainerKey("docker", "a" * 64), ContainerKey("docker", "b" * 64)
ROOT, ENGINE, PLACE, LIVING, NEW, BELOW = 1, 2, 3, 10, 20, 21
"""Cgroups: the host's, the engine's, where it keeps containers, a container's, and made ones."""


def bpf(names: dict[int, CgroupName], parents: dict[int, int] | None = None) -> BpfView:
    line = {ENGINE: ROOT, PLACE: ROOT, LIVING: PLACE, NEW: PLACE, BELOW: NEW} | (parents or {})
    seen = bpf_view({}, parents=line)
    return replace(seen, names=names)


def cgroups(*living: ContainerKey, foreign: frozenset[int] = frozenset()) -> CgroupView:
    others = {}
    if foreign:
        key = ContainerKey("libpod", "f" * 64)
        others[key] = ForeignCgroup(key, "libpod-f", "/f", foreign)
    return CgroupView(
        Hierarchy.DEFAULT,
        {key: ContainerCgroup(key, "/x", frozenset({LIVING}), life_id=LIVING) for key in living},
        foreign=others,
    )


def made(name: str, maker: int = ENGINE, uid: int = 0) -> CgroupName:
    return CgroupName(name, maker, uid)


@pytest.mark.parametrize(
    "form",
    ["{}", "docker-{}.scope", "libpod-{}.scope", "cri-containerd-{}.scope", "x.slice:cri:{}"],
)
def test_a_name_of_any_engine_s_form_and_all_that_is_below_are_the_container_s(form: str) -> None:
    seen = bpf({NEW: made(form.format(A.id))})
    owner = owners(seen, cgroups(), listed=[A, B])
    assert (owner[NEW], owner[BELOW]) == (A, A)


def test_of_a_container_that_nobody_lists_and_of_a_monitor_a_name_says_nothing() -> None:
    assert owners(bpf({NEW: made(A.id)}), cgroups(), listed=[B]) == {}
    monitor = made(f"libpod-conmon-{A.id}.scope")
    assert owners(bpf({NEW: monitor}), cgroups(), listed=[A]) == {}


def test_what_a_container_makes_inside_its_own_is_its_own_whatever_its_name() -> None:
    seen = bpf({NEW: made(f"docker-{B.id}.scope", maker=LIVING)}, {NEW: LIVING})
    owner = owners(seen, cgroups(A), listed=[A, B])
    assert (owner[NEW], owner[BELOW]) == (A, A)


def test_what_a_container_makes_outside_of_its_own_is_nobody_s() -> None:
    seen = bpf({NEW: made(f"docker-{B.id}.scope", maker=LIVING)})
    assert NEW not in owners(seen, cgroups(A), listed=[A, B])


def test_a_maker_whose_own_container_is_gone_already_or_listed_by_nobody_is_not_believed() -> None:
    unlisted = made("docker-" + "c" * 64 + ".scope")
    names = {NEW: unlisted, 30: made(f"docker-{B.id}.scope", maker=BELOW)}
    assert owners(bpf(names, {30: NEW}), cgroups(), listed=[A, B]) == {}
    gone = {NEW: made(A.id), 30: made(B.id, maker=BELOW)}
    assert owners(bpf(gone, {30: NEW}), cgroups(), listed=[A, B])[30] == A
    foreign = bpf({NEW: made(B.id, maker=40)})
    assert owners(foreign, cgroups(foreign=frozenset({40})), listed=[B]) == {}


def test_a_container_that_the_engine_starts_inside_another_one_is_still_itself() -> None:
    seen = bpf({NEW: made(f"docker-{B.id}.scope")}, {NEW: LIVING})
    owner = owners(seen, cgroups(A), listed=[A, B])
    assert (owner[NEW], owner[BELOW], owner[LIVING]) == (B, B, A)


def test_another_user_is_believed_only_where_that_engine_has_its_containers() -> None:
    his = made(f"docker-{B.id}.scope", uid=1000)
    beside = bpf({NEW: his})
    assert owners(beside, cgroups(A), listed=[A, B])[NEW] == B
    elsewhere = bpf({NEW: his}, {NEW: ENGINE})
    assert NEW not in owners(elsewhere, cgroups(A), listed=[A, B])
    unknown = bpf({NEW: his}, {NEW: 0})
    assert NEW not in owners(unknown, cgroups(A), listed=[A, B])
    nobody = bpf({NEW: his})
    assert NEW not in owners(nobody, cgroups(), listed=[A, B])


def test_what_the_directories_say_outdoes_a_name() -> None:
    seen = bpf({LIVING: made(f"docker-{B.id}.scope")})
    assert owners(seen, cgroups(A), listed=[A, B])[LIVING] == A


def test_a_loop_of_parents_ends() -> None:
    seen = bpf({NEW: made(A.id, maker=50)}, {50: 51, 51: 50})
    assert owners(seen, cgroups(), listed=[A])[NEW] == A
