"""A host's secret is taken from a file that only root could have written and read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.fleet.errors import FleetError
from agent.fleet.secret import read_secret

GOOD = "A" * 40 + "_-9"


def write(path: Path, content: str, mode: int = 0o600) -> Path:
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_secret_is_one_line(tmp_path: Path, end: str) -> None:
    assert read_secret(write(tmp_path / "secret", GOOD + end)) == GOOD


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(FleetError) as raised:
        read_secret(write(tmp_path / "secret", GOOD, mode))
    assert "Others than root" in raised.value.message
    assert GOOD not in str(raised.value)


@pytest.mark.parametrize("content", ["", "short", GOOD + "\n\n", f"{GOOD} x", "ñ" * 40, "A" * 300])
def test_what_is_no_secret_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    with pytest.raises(FleetError) as raised:
        read_secret(write(tmp_path / "secret", content))
    assert raised.value.hint
    assert not content or content not in str(raised.value)


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / "secret", GOOD)
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("link", "fifo", "missing", "."):
        with pytest.raises(FleetError):
            read_secret(tmp_path / name)
