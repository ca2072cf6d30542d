"""The agent's own memory and its place before the OOM killer."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from agent.util.survival import lock_memory, spare_from_oom_killer

if TYPE_CHECKING:
    from pathlib import Path


def test_what_comes_later_is_locked_as_it_comes_and_not_whole_stacks_at_once() -> None:
    flags: list[int] = []

    def lock(value: int) -> int:
        flags.append(value)
        return 0

    assert lock_memory(lock) == ""
    assert flags == [0b111]


def test_a_lock_that_is_refused_is_told_and_nothing_is_raised() -> None:
    assert "Cannot allocate memory" in lock_memory(lambda _flags: errno.ENOMEM)


@pytest.mark.parametrize(("before", "after"), [("0", "-500"), ("-500", "-500"), ("-900", "-900")])
def test_others_are_preferred_and_who_is_spared_more_stays_so(
    tmp_path: Path, before: str, after: str
) -> None:
    path = tmp_path / "oom_score_adj"
    path.write_text(f"{before}\n")
    assert spare_from_oom_killer(path) == ""
    assert path.read_text().strip() == after


@pytest.mark.parametrize("text", [None, "x\n"])
def test_a_file_that_is_not_there_or_odd_is_told(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "oom_score_adj"
    if text is not None:
        path.write_text(text)
    assert "may take the agent itself" in spare_from_oom_killer(path)
