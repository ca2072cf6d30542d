"""The walk over a hierarchy that its inhabitants may shape as they like."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sources.cgroup import tree


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A place whose contents may be too deep for a path; removed from the innermost out."""
    yield tmp_path
    while (descent := _innermost(tmp_path))[1]:
        parent, name = descent
        os.rmdir(name, dir_fd=parent)
        os.close(parent)
    os.close(descent[0])


def _innermost(root: Path) -> tuple[int, str]:
    """A descriptor of the last directory's parent, and its name; "" where there is none."""
    here, name = os.open(root, os.O_RDONLY), ""
    parent = os.dup(here)
    while names := os.listdir(here):
        os.close(parent)
        parent, name = here, names[0]
        here = os.open(name, os.O_RDONLY, dir_fd=parent)
    os.close(here)
    return parent, name


def nest(root: Path, names: list[str]) -> int:
    """Directories one inside the other; the inode of the last."""
    here = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    inode = os.fstat(here).st_ino
    os.close(here)
    return inode


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


def test_beyond_the_depth_limit_nothing_is_looked_at(deep: Path) -> None:
    nest(deep, ["x"] * (tree.MAX_DEPTH + 20))
    assert len(tree.walk(str(deep))) == tree.MAX_DEPTH + 1


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
    # What an engine lists is one whatever it is called.
    if key in name.format(id=key) and f"{key}0" not in name.format(id=key):
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
