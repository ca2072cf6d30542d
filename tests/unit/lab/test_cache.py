"""What is in the cache is whole, is named by what it is made from, and has one user at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import cache
from tests.lab.errors import LabError
from tests.lab.image import PROJECT

HOLD_THE_LOCK = """
import sys
from tests.lab import cache
with cache.lock("guest", "a test of the lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def in_a_fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SO1_LAB_CACHE", str(tmp_path / "cache"))
    return cache.directory()


def test_a_key_changes_with_a_text_a_files_content_and_a_files_name(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("1")
    first = cache.key(["x", tree])
    assert cache.key(["x", tree]) == first
    assert cache.key(["y", tree]) != first
    (tree / "a").write_text("2")
    second = cache.key(["x", tree])
    assert second != first
    (tree / "a").rename(tree / "b")
    assert cache.key(["x", tree]) not in {first, second}


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    assert cache.key(["ab", "c"]) != cache.key(["a", "bc"])


@pytest.mark.allow_subprocess
def test_what_is_made_once_is_not_made_again_and_an_old_key_goes(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(aside: Path) -> None:
        made.append(aside)
        (aside / "file").write_text("whole")

    first = cache.obtain(tmp_path, "image", "aaa", make)
    assert cache.obtain(tmp_path, "image", "aaa", make) == first
    assert len(made) == 1
    (tmp_path / "image2-aaa").mkdir()
    second = cache.obtain(tmp_path, "image", "bbb", make)
    assert (second / "file").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.glob("image*")) == ["image-bbb", "image2-aaa"]


@pytest.mark.allow_subprocess
def test_a_build_that_fails_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    old = cache.obtain(tmp_path, "image", "aaa", lambda aside: None)

    def fail(aside: Path) -> None:
        (aside / "half").write_text("half")
        raise LabError("no network")

    with pytest.raises(LabError, match="no network"):
        cache.obtain(tmp_path, "image", "bbb", fail)
    assert [path for path in tmp_path.iterdir() if path.name.startswith((".making", "image"))] == [
        old
    ]


@pytest.mark.allow_subprocess
def test_one_who_waits_for_the_lock_is_told_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

        said: list[str] = []

        def hear(text: str) -> None:
            said.append(text)
            assert holder.stdin is not None
            holder.stdin.close()  # the holder ends, and its lock with it

        monkeypatch.setattr(cache, "say", hear)
        with cache.lock("guest", "us"):
            assert "a test of the lock" in said[0]
            assert f"pid {holder.pid}" in said[0]


def test_a_cache_that_cannot_be_made_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SO1_LAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError, match="cannot be made") as caught:
        cache.directory()
    assert "SO1_LAB_CACHE" in caught.value.hint
