"""Containers that want to be taken for something else, as the whole agent sees them.

One dry run on a real engine, with the fallback source: what is stored is what the kernel and Docker
say, and what is printed steers no terminal.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import containers
from tests.agent_process import rows, run_agent
from tests.containers import docker, pids_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ALPINE = containers.ALPINE
ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202e\n* * * * * root sh"
NAMES = {
    "json": rb'"},{"pid":1,"n',
    "escape": rb"\033[31mroot",
    "newline": rb"a\nb",
    "sql": rb"');DROP TABLE x",
    "not_utf8": rb"\377\376\303",
}


@dataclass(frozen=True)
class Looked:
    """What one dry run said and stored."""

    said: str
    rows: list[dict[str, Any]]
    comms: dict[str, bytes]
    ids: dict[str, str]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    # A directory that others can write is refused, and pytest's own is below /tmp.
    place = Path("/var/lib/so1-test") / uuid.uuid4().hex
    place.mkdir(parents=True, mode=0o750)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def looked(directory: Path) -> Iterator[Looked]:
    if not containers.engine_answers():
        pytest.skip("needs a Docker engine")
    if not docker("image", "ls", "--quiet", ALPINE):
        pytest.skip(f"needs the image {ALPINE}")
    mine = containers.Containers()
    try:
        ids = {}
        for word, name in NAMES.items():
            script = f"printf '{name.decode()}' > /proc/$$/comm; sleep 9999 & wait"
            ids[word] = mine.run(
                ALPINE,
                ["sh", "-c", script.replace("');", "'\\'');")],
                name=f"so1_contenedor_{uuid.uuid4().hex[:8]}",
                options=["--label", f"evil={ESCAPES}"],
            )
        for identity in ids.values():
            wait_until(partial(_has_both, identity), "its shell and its sleep")
        comms = {}
        for word, identity in ids.items():
            pid = containers.first_pid(identity)
            wait_until(partial(_is_renamed, pid), "the shell has its name")
            comms[word] = comm(pid)
        config = directory / "agent.toml"
        config.write_text(
            f'source = "psutil"\ndocker_host = "{containers.HOST}"\n'
            "[bpf]\nenabled = false\n[grafana]\nenabled = false\n[paths]\n"
            f'database = "{directory}/metrics.db"\nrun = "{directory}/run"\n'
            f'log = "{directory}/log"\n[cron]\ndirectory = "{directory}"\n'
        )
        done = run_agent("start", "--once", "--dry-run", "--config", str(config))
        status = run_agent("status", "--config", str(config))
        assert done.returncode == 0, done.stderr
        stored = rows(directory / "metrics.db", "SELECT * FROM container_stats")
        yield Looked(done.stdout + done.stderr + status.stdout, stored, comms, ids)
    finally:
        mine.close()


def _has_both(container: str) -> bool:
    return len(pids_of(container)) == 2


def _is_renamed(pid: int) -> bool:
    return comm(pid) != b"sh"


def comm(pid: int) -> bytes:
    return Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")


def test_the_kernel_has_the_names_that_the_scene_asked_for(looked: Looked) -> None:
    assert looked.comms == {
        "json": b'"},{"pid":1,"n',
        "escape": b"\x1b[31mroot",
        "newline": b"a\nb",
        "sql": b"');DROP TABLE x",
        "not_utf8": b"\xff\xfe\xc3",
    }


def test_nothing_that_a_container_says_of_itself_steers_a_terminal(looked: Looked) -> None:
    for char in "\x1b\x07\u202e":
        assert char not in looked.said
    assert "root sh" not in looked.said.splitlines()


@pytest.mark.parametrize("word", NAMES)
def test_a_hostile_name_is_one_row_of_its_own_container(looked: Looked, word: str) -> None:
    mine = [row for row in looked.rows if looked.ids[word].startswith(row["container_id"])]
    assert {row["pid"] for row in mine} == pids_of(looked.ids[word])
    shell = next(row for row in mine if row["process_name"] != "sleep")
    expected = looked.comms[word].decode("utf-8", "replace")
    assert shell["process_name"] == expected
