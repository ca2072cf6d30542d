"""The status file: replaced whole, never through a link, and unreadable is a sentence."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.daemon import status
from agent.errors import AgentError
from tests.unit.builders import status as a_status
from tests.unit.builders import tick_status

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    value = a_status(problems=["docker: away"], tick=tick_status(container_count=None))
    status.write(tmp_path, value)
    assert status.read(tmp_path) == value


def test_the_newest_replaces_the_one_before_and_nothing_else_stays(tmp_path: Path) -> None:
    status.write(tmp_path, a_status(pid=1))
    status.write(tmp_path, a_status(pid=2))
    found = status.read(tmp_path)
    assert found is not None
    assert found.pid == 2
    assert os.listdir(tmp_path) == [status.FILE_NAME]


def test_others_may_not_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        status.write(tmp_path, a_status())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / status.FILE_NAME).stat().st_mode) == 0o640


def test_no_status_is_none_and_clearing_it_twice_is_no_error(tmp_path: Path) -> None:
    assert status.read(tmp_path) is None
    assert status.read(tmp_path / "absent") is None
    status.write(tmp_path, a_status())
    status.clear(tmp_path)
    status.clear(tmp_path)
    assert status.read(tmp_path) is None


def test_clearing_removes_what_a_killed_writer_left_too(tmp_path: Path) -> None:
    (tmp_path / ".status.json.new").write_bytes(b"{")
    status.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_its_place_is_replaced_and_its_target_is_not_written(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / status.FILE_NAME).symlink_to(victim)
    status.write(tmp_path, a_status())
    assert victim.read_text() == "precious"
    assert status.read(tmp_path) == a_status()


def test_a_link_in_the_place_of_the_file_aside_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".{status.FILE_NAME}.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        status.write(tmp_path, a_status())
    assert victim.read_text() == "precious"


@given(st.binary(max_size=200))
def test_any_other_content_is_a_sentence(data: bytes) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / status.FILE_NAME).write_bytes(data)
        with pytest.raises(AgentError) as caught:
            status.read(Path(name))
    assert caught.value.hint


def test_a_directory_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / status.FILE_NAME).mkdir()
    with pytest.raises(AgentError):
        status.read(tmp_path)


def test_a_status_without_a_field_of_this_version_is_a_sentence(tmp_path: Path) -> None:
    value = msgspec.to_builtins(a_status())
    del value["bpf"]
    (tmp_path / status.FILE_NAME).write_bytes(msgspec.json.encode(value))
    with pytest.raises(AgentError):
        status.read(tmp_path)
