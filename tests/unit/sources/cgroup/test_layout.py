"""Which hierarchies there are, from tables of mounts as real hosts have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SourceError
from agent.model.container import Hierarchy
from agent.sources.cgroup.layout import CgroupMode, detect
from tests.unit.sources.fake_host import FakeHost


def test_v2_identifies_by_its_only_hierarchy(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, "v2")
    layout = host.layout()
    assert (layout.mode, layout.hierarchy) == (CgroupMode.V2, Hierarchy.DEFAULT)
    assert layout.root == layout.default_root == host.root
    assert layout.memory1_root is None
    assert layout.cpuacct_root is None


@pytest.mark.parametrize("kind", ["v1", "hybrid"])
def test_v1_and_hybrid_identify_by_the_memory_controllers_hierarchy(
    tmp_path: Path, kind: str
) -> None:
    host = FakeHost(tmp_path, kind)
    layout = host.layout()
    assert (layout.mode, layout.hierarchy) == (CgroupMode(kind), Hierarchy.MEMORY_V1)
    assert layout.root == layout.memory1_root == host.root / "memory"
    assert layout.cpuacct_root == host.root / "cpuacct"
    assert layout.default_root == (host.root / "unified" if kind == "hybrid" else None)


def test_without_a_memory_controller_the_default_hierarchy_identifies(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, "hybrid")
    host.mounts = [line for line in host.mounts if "rw,memory" not in line]
    host.mount("pids", "cgroup", "rw,pids")
    layout = host.layout()
    assert (layout.hierarchy, layout.root) == (Hierarchy.DEFAULT, host.root / "unified")


def test_a_whole_hierarchy_goes_before_a_part_and_the_usual_place_before_another(
    tmp_path: Path,
) -> None:
    host = FakeHost(tmp_path, "v2")
    usual = host.mounts.pop()
    host.mount("part", "cgroup2", "rw", of="/docker/abc")
    host.mounts.append("40 23 0:28 / /elsewhere rw - cgroup2 x rw")
    host.mounts.append(usual)
    host.mount("second", "cgroup2", "rw", of="/docker/abc")
    assert host.layout().root == host.root


def test_mount_points_with_spaces_and_oddities_are_read(tmp_path: Path) -> None:
    base = tmp_path / "a b"
    host = FakeHost(base, "v2")
    host.mounts.insert(0, "not a mount line")
    host.mounts.insert(0, "1 2 0:1 / /x\x0b\u2028y rw - tmpfs t rw")
    host.mount("again", "tmpfs", "rw")
    assert host.layout().root == base / "cgroup"


def test_a_host_without_cgroups_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("1 2 0:1 / / rw - ext4 x rw\n")
    with pytest.raises(SourceError, match="No cgroup hierarchy"):
        detect(tmp_path, tmp_path)


def test_an_unreadable_table_of_mounts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="table of mounts"):
        detect(tmp_path, tmp_path)
