"""What was done outside the ticks reaches the history once, and what is none of it is dropped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.errors import StoreError
from agent.model.removal import Outcome, RemovalPass
from agent.store import handover
from tests.unit.store.builders import a_pass, a_removal

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_left_is_taken_once_oldest_first(tmp_path: Path) -> None:
    first, second = a_pass(a_removal(1)), a_pass(a_removal(2, Outcome.FAILED, "busy"))
    for number, one in enumerate((first, second)):
        path = handover.leave(tmp_path, one)
        assert path.stat().st_mode & 0o777 == 0o600
        os.utime(path, (number, number))
    assert handover.take(tmp_path) == (first, second)
    assert handover.take(tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"removals": 7}'])
def test_a_file_that_is_no_pass_is_dropped_and_hides_no_other(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "applied-0.json").write_bytes(text)
    (tmp_path / "metrics.db").write_bytes(b"x")
    whole = a_pass(a_removal(1))
    handover.leave(tmp_path, whole)
    assert handover.take(tmp_path) == (whole,)
    assert [one.name for one in tmp_path.iterdir()] == ["metrics.db"]


def test_a_link_or_a_directory_of_such_a_name_is_followed_by_nobody(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("{}")
    (tmp_path / "applied-1.json").symlink_to(target)
    (tmp_path / "applied-2.json").mkdir()
    assert handover.take(tmp_path) == ()
    assert target.read_text() == "{}"


def test_a_directory_that_is_not_there_is_one_sentence_and_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be left"):
        handover.leave(tmp_path / "none", RemovalPass((), 0, 0))
    assert handover.take(tmp_path / "none") == ()
