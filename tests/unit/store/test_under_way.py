"""What the agent says of its own removals: while it lives, whole, and from a file of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from agent.errors import AgentError
from agent.model.container import ContainerKey
from agent.store import under_way as module
from agent.store.under_way import FILE_NAME, UnderWay, under_way

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = (ContainerKey("docker", digit * 64) for digit in "12")


def test_who_is_said_is_read_until_nobody_is(tmp_path: Path) -> None:
    says = UnderWay(tmp_path)
    assert under_way(tmp_path) == frozenset()
    says.say({ONE, TWO})
    assert under_way(tmp_path) == {ONE, TWO}
    says.say({TWO})
    assert under_way(tmp_path) == {TWO}
    says.say(())
    assert under_way(tmp_path) == frozenset()
    says.say({ONE})
    assert under_way(tmp_path) == {ONE}


@pytest.mark.allow_subprocess
def test_what_a_killed_agent_has_left_is_nobody(tmp_path: Path) -> None:
    text = (
        "import pathlib, sys\n"
        "from agent.model.container import ContainerKey\n"
        "from agent.store.under_way import UnderWay\n"
        "says = UnderWay(pathlib.Path(sys.argv[1]))\n"
        "says.say([ContainerKey('docker', '1' * 64)])\n"
        "print('said', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"said\n"
        assert under_way(tmp_path) == {ONE}
        other.kill()
        other.wait()
    assert "1" * 64 in (tmp_path / FILE_NAME).read_text(), "it is there still"
    assert under_way(tmp_path) == frozenset()
    UnderWay(tmp_path).say(())
    assert list(tmp_path.iterdir()) == [], "the next one's first word takes it away"


def test_a_reader_amid_many_changes_never_sees_half_of_one(tmp_path: Path) -> None:
    """Long lists and short ones in turn: 0, 1 or all of them, and nothing in between."""
    many = [ContainerKey("docker", f"{number:064x}") for number in range(500)]
    says, over = UnderWay(tmp_path), threading.Event()

    def change() -> None:
        for _ in range(300):
            says.say(many)
            says.say(many[:1])
        over.set()

    writer = threading.Thread(target=change)
    writer.start()
    sizes = set()
    while not over.is_set():
        sizes.add(len(under_way(tmp_path)))
    writer.join()
    assert sizes <= {0, 1, len(many)}
    assert under_way(tmp_path) == {many[0]}


def test_one_that_says_nothing_readable_is_an_error_and_not_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0)
    says = UnderWay(tmp_path)
    says.say({ONE})
    for text in (b"", b"[", b"{}", b"[[1]]", b"[" * 100_000, b"\xff"):
        (tmp_path / FILE_NAME).write_bytes(text)
        with pytest.raises(AgentError, match="cannot be read"):
            under_way(tmp_path)


def test_a_file_that_is_not_ours_is_neither_read_nor_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    target.write_text("as it was")
    (tmp_path / FILE_NAME).symlink_to(target)
    UnderWay(tmp_path).say({ONE})
    assert "under-way=unsaid" in caplog.text
    assert target.read_text() == "as it was"
    with pytest.raises(AgentError):
        under_way(tmp_path)


def test_one_that_another_holds_is_left_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder = UnderWay(tmp_path)
    holder.say({ONE})
    UnderWay(tmp_path).say({TWO})
    assert "is held by another" in caplog.text
    assert under_way(tmp_path) == {ONE}
    UnderWay(tmp_path).say(())
    assert under_way(tmp_path) == {ONE}
    holder.say(())
    assert list(tmp_path.iterdir()) == []
