"""What containers read, write and send, from files as the kernel writes them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.activity import Activity
from agent.model.container import CgroupView, Hierarchy
from agent.sources import activity
from agent.sources.cgroup.layout import CgroupLayout, CgroupMode
from tests.unit import builders

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo:    840      10    0    0    0     0          0         0      840      10    0
  eth0:    906      11    0    0    0     0          0         0      42       1    0
  eth1:    906      11    0    0    0     0          0         0      1000     1    0
"""
V1 = "8:16 Read 3\n8:16 Write 1\n8:16 Sync 4\n8:16 Total 4\n8:0 Total 6\nTotal 10\n"
V2 = "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n8:0 rbytes=9 rios=20\n"


@pytest.fixture
def layout(tmp_path: Path) -> CgroupLayout:
    root = tmp_path / "cgroup"
    made = CgroupLayout(CgroupMode.V2, Hierarchy.DEFAULT, root, root, None, None, tmp_path / "proc")
    for pid, network in ((1, 1), (100, 2), (200, 3), (300, 3), (400, 1)):
        where = made.proc / str(pid)
        (where / "ns").mkdir(parents=True)
        (where / "net").mkdir()
        (where / "net/dev").write_text(DEV)
        os.symlink(f"net:[{network}]", where / "ns/net")
    for letter in "abcd":
        (root / letter).mkdir(parents=True)
        (root / letter / "io.stat").write_text(V2)
    (root / "cgroup.controllers").write_text("cpu io memory\n")
    return made


CONTAINERS = [
    builders.container(letter, first_pid=pid)
    for letter, pid in (("a", 100), ("b", 200), ("c", 300), ("d", 400), ("e", 0))
]


def view() -> CgroupView:
    cgroups = (builders.cgroup(letter, path=f"/{letter}", life_id=9) for letter in "abcd")
    return CgroupView(Hierarchy.DEFAULT, {one.container: one for one in cgroups})


def read(layout: CgroupLayout) -> dict[str, Activity]:
    found = activity.read(layout, CONTAINERS, view(), _Clock())
    return {key.id[0]: one for key, one in found.items()}


class _Clock:
    def boot_ns(self) -> int:
        return 5

    def wall_ns(self) -> int:
        return 6


def test_all_its_devices_and_interfaces_are_added_up_but_the_loopback(
    layout: CgroupLayout,
) -> None:
    one = read(layout)["a"]
    assert (one.io_operations, one.sent_bytes, one.missing) == (33, 1042, "")
    assert (one.life_id, one.read_ns) == (9, 5)


def test_a_network_that_is_shared_with_a_container_or_the_host_proves_nothing(
    layout: CgroupLayout,
) -> None:
    found = read(layout)
    assert {letter for letter, one in found.items() if one.missing == activity.SHARED} == set("bcd")
    assert "e" not in found, "it does not run"


def test_without_an_io_controller_it_is_unknown(layout: CgroupLayout) -> None:
    (layout.root / "a/io.stat").unlink()
    assert read(layout)["a"].missing == activity.NO_IO
    assert activity.io_problem(layout) == ""
    (layout.root / "cgroup.controllers").write_text("cpu memory\n")
    assert activity.io_problem(layout) == activity.NO_IO


def test_on_v1_it_is_the_throttling_layers_count_below_its_own_path(
    layout: CgroupLayout, tmp_path: Path
) -> None:
    blkio = tmp_path / "blkio"
    v1 = replace(layout, blkio1_root=blkio)
    blkio.mkdir()
    (blkio / "blkio.throttle.io_serviced").write_text("Total 0\n")
    assert activity.io_problem(v1) == activity.NO_IO, "a kernel that counts only once it throttles"
    assert read(v1)["a"].missing == activity.NO_IO
    (blkio / "blkio.throttle.io_serviced").write_text(V1)
    assert activity.io_problem(v1) == ""
    inside = f"/system.slice/docker-{'a' * 64}.scope"
    (layout.proc / "100/cgroup").write_text(f"5:blkio:{inside}\n0::/a\n")
    (blkio / inside.lstrip("/")).mkdir(parents=True)
    (blkio / inside.lstrip("/") / "blkio.throttle.io_serviced").write_text(V1)
    assert read(v1)["a"].io_operations == 10


def test_what_is_no_figure_is_unknown_and_raises_nothing(layout: CgroupLayout) -> None:
    (layout.root / "a/io.stat").write_text("8:0 rios=many")
    assert read(layout)["a"].missing == activity.NO_IO
    (layout.root / "a/io.stat").write_text("")
    assert read(layout)["a"].io_operations == 0
    (layout.proc / "100/net/dev").write_text("eth0: 1 2")
    assert read(layout)["a"].missing == "its network cannot be read"
