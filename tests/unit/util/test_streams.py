"""Closed descriptors, full disks and encodings without a letter: never a traceback, never lost.

The console script's own way in, by `python -m agent` with the streams that a shell would give it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.util import streams
from agent.util.terminal import Say
from tests.unit.grafana.make_db import make
from tests.unit.grafana.world import Plan

PROJECT = Path(__file__).resolve().parents[3]
NAME = "niño_进程"
"""Latin-1 has its first part, ISO-8859-2 and ASCII not even that."""
LONG = ("report", "--since", "1h")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored history in which every container is called `NAME`."""
    path = tmp_path_factory.mktemp("streams") / "metrics.db"
    now_ms = time.time_ns() // 10**6
    make(path, Plan(hours=0.1, processes=20, incidents=False, end_ms=now_ms))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table in ("container_totals", "container_stats", "deletions"):
            connection.execute(f"UPDATE {table} SET container_name = ?", (NAME,))
    return path


def run(
    words: tuple[str, ...], database: Path, shell: str = "", encoding: str = "utf-8"
) -> subprocess.CompletedProcess[bytes]:
    """`agent WORDS` behind a shell's redirections `shell`."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "agent", *words,
         "--database", str(database)],
        stdin=subprocess.DEVNULL, capture_output=True, cwd=PROJECT, timeout=120, check=False,
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
    )  # fmt: skip


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("encoding", ["iso8859-1", "iso8859-2", "ascii"])
@pytest.mark.parametrize("words", [("top", "--once"), LONG, ("doctor",)], ids=lambda one: one[0])
def test_what_the_locale_cannot_write_is_escaped(
    history: Path, words: tuple[str, ...], encoding: str
) -> None:
    done = run(words, history, encoding=encoding)
    assert b"Traceback" not in done.stderr
    if words == ("doctor",):  # whether this host can run the agent is not the question
        assert done.stdout.splitlines()[-1].startswith(b"The main job can")
    else:
        assert done.returncode == 0
        assert NAME.encode(encoding, "backslashreplace") in done.stdout


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("encoding", ["iso8859-1", "ascii"])
def test_json_is_the_same_in_every_locale(history: Path, encoding: str) -> None:
    done = run((*LONG, "--json"), history, encoding=encoding)
    value = json.loads(done.stdout.decode("ascii"))
    assert {one["container_name"] for one in value["top_held"]} == {NAME}


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("words", [("top", "--once"), LONG, ("doctor",)], ids=lambda one: one[0])
def test_a_descriptor_that_was_closed_is_as_good_as_dev_null(
    history: Path, words: tuple[str, ...], shell: str
) -> None:
    done = run(words, history, shell)
    assert done.stderr == b""
    assert done.returncode in ({0, 1} if words == ("doctor",) else {0})
    assert bool(done.stdout) == (">&-" not in shell.replace("2>&-", ""))


@pytest.mark.allow_subprocess
@pytest.mark.parametrize(
    "words", [("top", "--once"), LONG, (*LONG, "--json"), ("doctor",)], ids=lambda one: one[0]
)
def test_a_full_disk_behind_the_output_is_one_sentence_and_status_1(
    history: Path, words: tuple[str, ...]
) -> None:
    done = run(words, history, ">/dev/full")
    first, remedy = done.stderr.decode().splitlines()
    assert first == "agent: Standard output cannot be written: No space left on device."
    assert remedy.strip()
    assert done.returncode == 1


@pytest.mark.allow_subprocess
def test_a_full_disk_behind_the_errors_does_not_change_the_status(history: Path) -> None:
    assert run(("top", "--once"), history.parent / "none.db", "2>/dev/full").returncode == 8


@pytest.mark.allow_subprocess
def test_a_reader_that_is_gone_ends_it_without_a_word(history: Path) -> None:
    script = f'"$@" --database {history} | true; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "agent", *LONG],
        stdin=subprocess.DEVNULL, capture_output=True, cwd=PROJECT, timeout=120, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (b"141", b"")


@pytest.mark.allow_subprocess
def test_no_file_gets_the_descriptor_of_a_stream_that_was_closed(tmp_path: Path) -> None:
    code = (
        "import os, sqlite3, subprocess, sys\n"
        "from agent.util import streams\n"
        "streams.prepare()\n"
        "assert None not in (sys.stdin, sys.stdout, sys.stderr)\n"
        "own = {os.readlink(f'/proc/self/fd/{number}') for number in (0, 1, 2)}\n"
        "child = subprocess.run(['sh', '-c', 'readlink /proc/self/fd/2'], stdout=subprocess.PIPE)\n"
        f"file = os.open({str(tmp_path / 'lock')!r}, os.O_CREAT | os.O_RDWR)\n"
        f"os.write(file, repr((file > 2, own, child.stdout)).encode())\n"
    )
    subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code],
        cwd=PROJECT, timeout=120, check=True,
    )  # fmt: skip
    said = (tmp_path / "lock").read_text()
    assert said == repr((True, {"/dev/null"}, b"/dev/null\n"))


def test_no_line_of_a_tick_is_lost_where_the_encoding_lacks_its_dots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="iso8859-2"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="iso8859-2"))
    streams.prepare()
    say = Say(sys.stdout)
    say("12:00:00 tick 1 · modules: 300 processes")
    assert (say.lost_lines, raw.getvalue().count(b"\n")) == (0, 1)


@given(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_json_is_ascii_and_means_what_was_given(value: dict[str, object]) -> None:
    text = streams.json_text(value)
    assert text.isascii()
    assert json.loads(text) == value


def test_json_takes_half_a_surrogate_pair_too() -> None:
    assert json.loads(streams.json_text({"name": "\udc80"})) == {"name": "\udc80"}
