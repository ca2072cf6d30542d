"""`agent oom`: what was stored of a kill is told, in a list, in full, and in JSON."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.app import app
from agent.cli.views import oom as view
from agent.model.oom import Neighbour, OomCause, OomKill, OomWitness, VictimMemory
from agent.store import incidents
from agent.store.queries import History
from tests.unit.store.builders import (
    ID_A,
    SECOND_NS,
    START_NS,
    FakeClock,
    a_container,
    a_tick,
    ask,
    open_store,
    totals,
)

MB = 1024
GREW = Neighbour(92, "gro\x1bwer", "web", 30 * MB, 24 * MB, "lived")
KILL = OomKill(
    wall_ns=START_NS + 5 * SECOND_NS,
    pid=91,
    name="vic\x1btim",
    container_id=ID_A,
    container_name="web",
    image="alpine",
    cgroup=f"/docker/{ID_A}/inner",
    memory=VictimMemory(20 * MB, 2 * MB, MB, 0),
    oom_score_adj=-5,
    trigger_pid=92,
    trigger_name="grower",
    trigger_container_id=ID_A,
    trigger_container_name="web",
    cause=OomCause.LIMIT,
    limit_cgroup=f"/docker/{ID_A}",
    limit_container_name="web",
    limit_kb=32 * MB,
    used_kb=31 * MB,
    grower=GREW,
    grown_s=5.0,
    beside=(GREW, Neighbour(91, "victim", "web", 23 * MB, 0, "killed")),
    witnesses=(OomWitness.BPF, OomWitness.KERNEL_LOG),
)
BY_LOG = replace(
    KILL, wall_ns=KILL.wall_ns + 1, pid=95, cause=OomCause.HOST, container_id="", container_name="",
    image="", cgroup="", limit_cgroup="", limit_container_name="", limit_kb=8192 * MB,
    used_kb=None, grower=None, grown_s=None, beside=(), witnesses=(OomWitness.KERNEL_LOG,),
    memory=None, oom_score_adj=None, trigger_pid=None, trigger_name="",
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.db"
    tick_ns = START_NS + 20 * SECOND_NS
    with open_store(path, FakeClock(tick_ns)) as store:
        mine = replace(totals(a_container("web")), oom_kills=3)
        store.write_tick(a_tick(tick_ns, oom_kills=(KILL, BY_LOG), totals=(mine,)))
    return path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["oom", *words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return int(done.return_value or 0), done.output


def test_a_kill_is_stored_under_its_own_moment(path: Path) -> None:
    rows = ask(path, "SELECT id, timestamp, process_name, grower_pid, witnesses FROM oom_kills")
    at_ms = KILL.wall_ns // 10**6

    assert rows == [
        (1, at_ms, "vic\x1btim", 92, "bpf,kernel-log"),
        (2, at_ms, "vic\x1btim", None, "kernel-log"),
    ]
    assert ask(
        path,
        "SELECT anon_mb, file_mb, shmem_mb, swap_mb, limit_mb, used_mb, oom_score_adj, cause,"
        " grower_container, trigger_container, grown_mb, grown_s FROM oom_kills WHERE id = 1",
    ) == [(20, 2, 1, 0, 32, 31, -5, "limit", "web", "web", 24, 5)]


def test_the_list_has_the_newest_first_and_what_is_only_counted(path: Path) -> None:
    with History.open(path) as history:
        entries = incidents.oom_kills(history, 10)
        alone = incidents.uncounted(history, 0)
    text = "\n".join(view.listing(entries, alone))

    assert [one.number for one in entries] == [2, 1]
    assert "gro\\x1bwer +24 MB" in text
    assert "host out of memory" in text
    # The container's counter has three, of which one has a row.
    assert f"web ({ID_A[:12]}): 2" in text
    assert "\x1b" not in text


def test_one_is_told_in_full(path: Path) -> None:
    with History.open(path) as history:
        entry = incidents.oom_kill(history, 1)
        assert incidents.oom_kill(history, 99) is None
    assert entry is not None
    text = "\n".join(view.detail(entry))

    for words in (
        *("OOM kill 1: vic\\x1btim (pid 91) of container web", "image      alpine"),
        *("23.0 MB resident (20.0 anonymous, 2.0 files, 1.0 shared)", "oom_score_adj -5"),
        *("grower (pid 92) of web", "the limit of container web: 32.0 MB, 31.0 MB in use"),
        *("+24.0 MB within 5 s", "bpf, kernel-log", "killed", "lived"),
    ):
        assert words in text
    assert "\x1b" not in text


def test_what_nobody_told_is_said_to_be_unknown(path: Path) -> None:
    with History.open(path) as history:
        entry = incidents.oom_kill(history, 2)
    assert entry is not None
    text = "\n".join(view.detail(entry))

    for words in (
        *(
            "of the host",
            "its memory was not reported",
            "the host's memory of 8192.0 MB was used up",
        ),
        *("no process by more than 1 MB", "without BPF", "nothing is known"),
    ):
        assert words in text


def test_the_command_has_json_of_the_same(path: Path) -> None:
    where = ("--database", str(path))
    status, out = run("1", "--json", *where)
    one = json.loads(out)

    assert status == 0
    assert (one["id"], one["pid"], one["cause"]) == (1, 91, "limit")
    assert one["witnesses"] == ["bpf", "kernel-log"]
    assert [other["pid"] for other in one["beside"]] == [92, 91]
    status, out = run("--json", "--since", "7300d", *where)
    assert [kill["id"] for kill in json.loads(out)["kills"]] == [2, 1]


def test_a_history_of_an_older_agent_has_none(path: Path) -> None:

    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE oom_kills")
        connection.execute("DROP TABLE ended_processes")
    with History.open(path) as history:
        assert incidents.oom_kills(history, 10) == ()
        assert incidents.uncounted(history, 0) == ()
        assert incidents.ended(history, 0, pid=91) == ()
        assert incidents.oom_count(history, 0) == 0
