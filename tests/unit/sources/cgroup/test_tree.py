"""The walk over a hierarchy that its inhabitants may shape as they like."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.sources.cgroup import tree
from tests.unit.sources.fake_host import nest, remove_nested


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A place whose contents may be too deep for a path; removed from the innermost out."""
    yield tmp_path
    remove_nested(tmp_path)


def test_directories_come_after_their_parents(tmp_path: Path) -> None:
    for path in ("a/b/c", "a/d", "e"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    found = tree.walk(str(tmp_path))
    assert {one.path for one in found} == {"/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"}
    for place, one in enumerate(found):
        assert one.parent < place
        if one.parent >= 0:
            assert found[one.parent].path == (one.path.rpartition("/")[0] or "/")
        assert one.inode == (tmp_path / one.path.strip("/")).stat().st_ino


def test_a_path_longer_than_the_kernel_takes_is_walked(deep: Path) -> None:
    inode = nest(deep, ["x" * 200] * 30)
    found = tree.walk(str(deep))
    assert found[-1].inode == inode
    assert len(found[-1].path) > 4096


def test_below_the_depth_limit_only_whose_they_are_is_known(deep: Path) -> None:
    key = "a" * 64
    inode = nest(deep, [key, *["x"] * (tree.MAX_DEPTH + 2000)])
    (deep / "last").mkdir()
    found = tree.walk(str(deep))
    assert "/last" in {one.path for one in found}
    owner = tree.owners(found, tree.choose(found, [key], {}))
    (lowest,) = (place for place, one in enumerate(found) if one.inode == inode)
    assert (found[lowest].path, owner[lowest]) == ("", key)
    assert max(len(one.path) for one in found) < 66 + 2 * tree.MAX_DEPTH


def test_a_directory_removed_during_the_walk_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a/b/c/d", "e/f", "g/h"):
        (tmp_path / path).mkdir(parents=True)
    children = tree._children

    def remove_meanwhile(*args: Any) -> Any:
        yield from children(*args)
        if args[2].name == "c":
            shutil.rmtree(tmp_path / "a")

    monkeypatch.setattr(tree, "_children", remove_meanwhile)
    found = {one.path for one in tree.walk(str(tmp_path))}
    assert not (tmp_path / "a").exists()
    assert {"/e/f", "/g/h"} <= found


def test_tasks_are_found_in_a_cgroup_whose_path_is_too_long_to_be_told(deep: Path) -> None:
    inode = nest(deep, ["x" * 200] * 30, {"tasks": "70\n71\n"})
    (deep / "tasks").write_text("1\n")
    assert tree.members(str(deep), "tasks") == {
        1: deep.stat().st_ino,
        70: inode,
        71: inode,
    }


def test_an_inode_is_found_at_a_path_that_is_too_long_for_one_call(deep: Path) -> None:
    names = ["x" * 200] * 30
    inode = nest(deep, names)
    assert tree.inode_at(str(deep), "/" + "/".join(names)) == inode


def test_beyond_the_number_limit_it_stops_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tree, "MAX_DIRECTORIES", 5)
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    assert len(tree.walk(str(tmp_path))) == 5
    assert "the rest is not looked at" in caplog.text


def test_no_descriptor_is_left_open(deep: Path) -> None:
    nest(deep, ["x"] * 40)
    before = len(os.listdir("/proc/self/fd"))
    tree.walk(str(deep))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_name_with_two_ids_counts_for_both_and_neither_is_confused(tmp_path: Path) -> None:
    one, other = "a" * 64, "b" * 64
    (tmp_path / f"{one}-{other}").mkdir()
    (tmp_path / other).mkdir()
    found = tree.walk(str(tmp_path))
    chosen = tree.choose(found, [one, other], {other: f"/{other}"})
    assert found[chosen[other]].path == f"/{other}"
    assert found[chosen[one]].path == f"/{one}-{other}"


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("{id}", ""),
        ("docker-{id}.scope", "docker"),
        ("libpod-{id}.scope", "libpod"),
        ("libpod-{id}", "libpod"),
        ("libpod-payload-{id}", "libpod-payload"),
        ("cri-containerd-{id}.scope", "cri-containerd"),
        ("kubepods-besteffort-pod1.slice:cri-containerd:{id}", "cri-containerd"),
        ("crio-{id}.scope", "crio"),
        ("crio-{id}", "crio"),
        ("nerdctl-{id}.scope", "nerdctl"),
        ("ci-job-{id}.service", None),
        ("ci-job-{id}.scope", None),
        ("{id}.service", None),
        ("{id}.slice", None),
        ("docker-{id}.service", None),
        ("docker-{id}", "docker"),
        ("run-{id}", None),
        ("{id}-{id}", None),
        ("libpod-conmon-{id}.scope", None),
        ("crio-conmon-{id}.scope", None),
        ("machine-libpod_pod_{id}.slice", None),
        ("libpod_pod_{id}", None),
        ("docker-{id}0.scope", None),
    ],
)
def test_only_the_forms_of_known_engines_are_containers_that_nobody_lists(
    tmp_path: Path, name: str, runtime: str | None
) -> None:
    key = "0123456789abcdef" * 4
    (tmp_path / "system.slice" / name.format(id=key) / "inner").mkdir(parents=True)
    found = tree.walk(str(tmp_path))
    strangers = tree.unlisted(found, [""] * len(found), frozenset())
    assert [(one.runtime, one.id) for one in strangers] == (
        [] if runtime is None else [(runtime, key)]
    )
    # What an engine lists is one whatever it is called, but for the process that watches it.
    if "-conmon-" in name:
        assert tree.choose(found, [key], {}) == {}
    elif key in name.format(id=key) and f"{key}0" not in name.format(id=key):
        assert tree.choose(found, [key], {}).keys() == {key}


def test_a_users_directory_yields_to_roots(tmp_path: Path) -> None:
    key = "a" * 64
    found = [
        tree.Directory("/", 1, -1, 0, 0),
        tree.Directory(f"/{key}", 2, 0, 1, 1000),
        tree.Directory("/deep", 3, 0, 1, 0),
        tree.Directory(f"/deep/docker-{key}.scope", 4, 2, 2, 0),
    ]
    assert tree.choose(found, [key], {}) == {key: 3}
    assert tree.choose(found, [key], {key: f"/{key}/init"}) == {key: 1}


@pytest.mark.parametrize("digit", "09af")
def test_the_monitor_of_a_container_and_its_health_check_are_not_the_container(
    tmp_path: Path, digit: str
) -> None:
    key = digit * 64
    for name in (f"libpod-conmon-{key}.scope", f"libpod-{key}.scope", f"{key}.service"):
        (tmp_path / "machine.slice" / name).mkdir(parents=True)
    found = tree.walk(str(tmp_path))
    chosen = tree.choose(found, [key], {})
    assert found[chosen[key]].name == f"libpod-{key}.scope"


def test_a_pods_directory_of_cgroupfs_is_no_container_and_hides_none(tmp_path: Path) -> None:
    pod, one, other = "a" * 64, "b" * 64, "c" * 64
    (tmp_path / "libpod_parent" / pod / f"libpod-{one}").mkdir(parents=True)
    (tmp_path / "libpod_parent" / pod / f"libpod-{other}").mkdir()
    found = tree.walk(str(tmp_path))
    strangers = tree.unlisted(found, [""] * len(found), frozenset())
    assert {(stranger.runtime, stranger.id) for stranger in strangers} == {
        ("libpod", one),
        ("libpod", other),
    }


ROOTLESS = "user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    "path",
    [
        ROOTLESS + "/app.slice/docker-{id}.scope",
        ROOTLESS + "/user.slice/docker-{id}.scope",
        ROOTLESS + "/user.slice/libpod-{id}.scope/container",
        ROOTLESS + "/user.slice/user-libpod_pod_{pod}.slice/libpod-{id}.scope",
        "machine.slice/machine-libpod_pod_{pod}.slice/libpod-{id}.scope",
        "libpod_parent/{pod}/libpod-{id}",
        "machine.slice/libpod-payload-{id}",
    ],
)
def test_rootless_engines_and_podmans_forms_are_found(tmp_path: Path, path: str) -> None:
    key, pod = "d" * 64, "e" * 64
    (tmp_path / path.format(id=key, pod=pod)).mkdir(parents=True)
    found = tree.walk(str(tmp_path))
    chosen = tree.choose(found, [key], {})
    assert key in found[chosen[key]].name
    owned = tree.owners(found, chosen)
    below = {one.path for one, owner in zip(found, owned, strict=True) if owner == key}
    assert f"/{path.format(id=key, pod=pod)}" in below
