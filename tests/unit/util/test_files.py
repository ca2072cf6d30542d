"""Files that are there whole or not at all: replaced, put new, never written through a link."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from agent.util import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[True, False], ids=["durable", "passing"])
def replace(request: pytest.FixtureRequest) -> Callable[[Path, bytes], None]:
    return lambda path, data: files.replace(path, data, 0o640, durable=request.param)


def test_what_was_put_is_there_with_its_mode_and_nothing_beside_it(
    tmp_path: Path, replace: Callable[[Path, bytes], None]
) -> None:
    before = os.umask(0o077)
    try:
        replace(tmp_path / "one", b"first")
        replace(tmp_path / "one", b"second")
    finally:
        os.umask(before)
    assert (tmp_path / "one").read_bytes() == b"second"
    assert mode(tmp_path / "one") == 0o640
    assert os.listdir(tmp_path) == ["one"]


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Callable[[Path, bytes], None]
) -> None:
    replace(tmp_path / "one", b"first")
    real = os.fdopen

    def full(descriptor: int, *_: object) -> object:
        os.close(descriptor)
        return real(os.open("/dev/full", os.O_WRONLY), "wb")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space"):
        replace(tmp_path / "one", b"second")
    assert (tmp_path / "one").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["one"]


def test_a_reader_of_the_old_file_keeps_it_whole(
    tmp_path: Path, replace: Callable[[Path, bytes], None]
) -> None:
    replace(tmp_path / "one", b"first")
    with (tmp_path / "one").open("rb") as reader:
        replace(tmp_path / "one", b"second")
        assert reader.read() == b"first"


@pytest.mark.parametrize("left", [b"", b"half of something longer than the new content"])
def test_what_a_killed_writer_left_aside_is_no_part_of_the_next_file(
    tmp_path: Path, left: bytes, replace: Callable[[Path, bytes], None]
) -> None:
    files.aside_of(tmp_path / "one").write_bytes(left)
    replace(tmp_path / "one", b"new")
    assert (tmp_path / "one").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["one"]


def test_a_hard_link_in_the_place_of_the_file_aside_is_not_written_through(
    tmp_path: Path, replace: Callable[[Path, bytes], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.link(victim, files.aside_of(tmp_path / "one"))
    replace(tmp_path / "one", b"new")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "one").read_bytes() == b"new"


def test_a_name_that_is_taken_keeps_what_it_has(tmp_path: Path) -> None:
    assert files.put_new(tmp_path / "one", b"first", 0o640)
    assert not files.put_new(tmp_path / "one", b"second", 0o640)
    assert (tmp_path / "one").read_bytes() == b"first"
    assert mode(tmp_path / "one") == 0o640
    assert os.listdir(tmp_path) == ["one"]


def test_a_dangling_link_is_a_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "nowhere")
    assert not files.put_new(tmp_path / "one", b"first", 0o640)
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "one", 0o640)
    assert os.listdir(tmp_path) == ["one"]


def test_removing_says_whether_it_was_there_and_takes_what_was_left_aside(tmp_path: Path) -> None:
    files.replace(tmp_path / "one", b"first", 0o640, durable=False)
    files.aside_of(tmp_path / "one").write_bytes(b"half")
    assert files.remove(tmp_path / "one", durable=True)
    assert not files.remove(tmp_path / "one")
    assert os.listdir(tmp_path) == []


def test_what_was_left_aside_and_cannot_go_keeps_no_file_from_going(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old")
    files.aside_of(tmp_path / "one").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.remove(tmp_path / "one")
    assert not (tmp_path / "one").exists()
