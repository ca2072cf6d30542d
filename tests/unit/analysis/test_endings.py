"""Which ended processes are remembered, and as what."""

from __future__ import annotations

import pytest

from agent.analysis import endings
from agent.model.bpf import ProcessExit
from agent.model.container import ContainerKey
from agent.model.process import ProcessKey

BOX = ContainerKey("docker", "ab" * 32)


def an_exit(
    pid: int,
    cgroup: int = 5,
    cpu: int = 0,
    code: int = 0,
    *,
    oom: bool = False,
    short: bool = False,
) -> ProcessExit:
    return ProcessExit(
        ProcessKey(pid, 40), ProcessKey(1, 2), "one", "sh", cgroup, 50 + pid, code, cpu, cpu, 64,
        oom, short,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "status"), [(0, 0), (3 << 8, 3), (9, 137), (11 | 0x80, 139), (255 << 8, 255)]
)
def test_a_status_is_a_shells(code: int, status: int) -> None:
    assert endings.status(code) == status


def test_what_is_kept_has_its_moments_and_its_container() -> None:
    (one,) = endings.remembered(
        [an_exit(7, code=9, oom=True)], {5: BOX}, lambda key: key.id[:2], 1000
    )

    assert (one.wall_ns, one.started_wall_ns, one.status, one.oom) == (1057, 1040, 137, True)
    assert (one.container_id, one.container_name) == (BOX.id, "ab")


def test_of_a_storm_the_victims_and_those_that_were_seen_come_first() -> None:
    storm = [an_exit(pid, cpu=pid, short=True) for pid in range(100, 400)]
    kept = endings.remembered(
        [*storm, an_exit(1), an_exit(2, short=True, oom=True), an_exit(3, cgroup=9, short=True)],
        {5: BOX},
        lambda _: "",
        0,
    )

    assert len(kept) == endings.MOST
    assert {1, 2, 399} <= {one.pid for one in kept}
    assert not {3, 100} & {one.pid for one in kept}
    assert [one.wall_ns for one in kept] == sorted(one.wall_ns for one in kept)
