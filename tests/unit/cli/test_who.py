"""`agent who`: a process that lives, one that ended, and what is said where little is known."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli.commands import who as command
from agent.cli.views import who as view
from agent.config import Config, with_overrides
from agent.errors import ConfigError
from agent.model.attribution import Attribution, AttributionCounts, Basis, Verified
from agent.model.bpf import BpfView, Seam
from agent.model.container import DOCKER, CgroupView, ContainerKey, Hierarchy
from agent.model.ended import EndedProcess
from agent.model.process import Source
from agent.model.record import ContainerProcessUsage
from agent.model.tick import Carried, Part, Sample, Tick
from tests.unit import builders
from tests.unit.cli.test_oom import KILL
from tests.unit.store.builders import (
    ID_A,
    SECOND_NS,
    START_NS,
    FakeClock,
    a_tick,
    open_store,
)
from tests.unit.store.builders import ask as store_ask

NOW_NS = START_NS + 60 * SECOND_NS
BOOT_NS = 100 * SECOND_NS
CGROUP = 55
PARENT = builders.process(4, name="shim", ppid=1)
INIT = builders.process(1, name="systemd", ppid=0)
SLEEP = builders.process(
    7, name="sl\x1beep", ppid=4, rss_kb=2048, cpu_ns=3 * SECOND_NS, start_ns=70 * SECOND_NS,
    cgroup_id=CGROUP,
)  # fmt: skip


def a_look(
    verified: Verified = Verified.AGREE,
    basis: Basis = Basis.CGROUP,
    *,
    source: Source = Source.MODULES,
    bpf: bool = True,
    docker: bool = True,
) -> Tick:
    box = replace(builders.container(), id=ID_A, name="web", image="alpine")
    snapshot = replace(builders.snapshot(INIT, PARENT, SLEEP, at_ns=BOOT_NS), source=source)
    row = builders.row(
        SLEEP, container=box.key, container_name="web", verified=verified, basis=basis,
        bpf_container_id="cd" * 32 if verified is Verified.CONFLICT else None,
    )  # fmt: skip
    ids = {one.key: one.cgroup_id for one in snapshot.processes}
    seen = BpfView(0, ids, {}, {}, {}, {}, frozenset(), frozenset(), 0, Seam())
    cgroup = replace(builders.cgroup(), container=box.key, ids=frozenset({CGROUP}))
    sample = Sample(
        containers=Part((box,), 0) if docker else Part(None, 0, "Docker does not answer."),
        snapshot=snapshot,
        bpf=Part(seen, 0) if bpf else Part(None, 0, "the kernel has no BTF."),
        cgroups=Part(CgroupView(Hierarchy.DEFAULT, {box.key: cgroup}), 0)
        if docker
        else Part(None, 0, "away"),
        host=Part(None, 0),
    )
    rows = (row,) if docker else ()
    return Tick(
        sample, Attribution(rows, AttributionCounts()), (), {}, (), (), None, frozenset(),
        frozenset(), Carried(),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two ticks that saw 7 and 9, and the ends of 8 and of the victim, 91."""
    path = tmp_path / "metrics.db"
    ended = EndedProcess(
        NOW_NS - 2 * SECOND_NS, NOW_NS - 40 * SECOND_NS, 8, "worker", 4, "shim", ID_A, "web", 3,
        oom=False, cpu_ns=1_500_000_000, peak_rss_kb=5 * 1024,
    )  # fmt: skip
    victim = ended._replace(pid=91, status=137, oom=True, wall_ns=KILL.wall_ns + 10**7)
    usages = [
        ContainerProcessUsage(
            ContainerKey(DOCKER, ID_A), "web", pid, name, 2048, 7.5, Verified.AGREE, Basis.CGROUP
        )
        for pid, name in ((7, "sl\x1beep"), (9, "gone"))
    ]
    with open_store(path, FakeClock(NOW_NS)) as store:
        for at_ns in (NOW_NS - 21 * SECOND_NS, NOW_NS - SECOND_NS):
            done = (victim, ended) if at_ns == NOW_NS - SECOND_NS else ()
            kills = (KILL,) if done else ()
            store.write_tick(
                a_tick(at_ns, container_processes=tuple(usages), ended=done, oom_kills=kills)
            )
    return path


def ask(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *pids: int,
    name: str = "",
    look: Tick | None = None,
    as_json: bool = False,
) -> tuple[int, str, str]:
    monkeypatch.setattr("agent.daemon.watch.glance", lambda *_: look or a_look())
    config = with_overrides(Config(), paths__database=str(path))
    clock: Any = FakeClock(NOW_NS, BOOT_NS)
    status = command.answer(config, clock, list(pids), name, as_json=as_json)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_living_process_is_told_with_all_that_it_rests_on(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = ask(path, capsys, monkeypatch, 7)

    assert (status, err) == (0, "")
    for words in (
        *("7 sl\\x1beep", f"web ({ID_A[:12]}, image alpine)", "its cgroup is the container's"),
        *("the modules and BPF agree", "shim 4 < systemd 1", "2.0 MB of RAM, 3.00 s of CPU"),
        *("10.0 % of one over its life", "7.5 % in the last tick", "as ticks saw it"),
    ):
        assert words in out
    assert "\x1b" not in out


def test_one_that_ended_has_its_moment_its_status_and_its_kill(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = ask(path, capsys, monkeypatch, 91, 8)
    killed, ended = out.strip().split("\n\n")

    assert "status 137, OOM (agent oom 1)" in killed
    assert "status 3" in ended
    assert "OOM" not in ended
    assert "shim 4" in ended
    assert "for 38 s" in ended
    assert "5.0 MB of RAM at most, 1.50 s of CPU" in ended


def test_one_whose_end_nobody_saw_was_last_seen(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = ask(path, capsys, monkeypatch, 9)

    assert "last seen" in out
    assert "its end was not" in out
    assert "cgroup, agree, at the last tick that saw it" in out


def test_a_victim_of_which_only_the_kill_is_known_is_told_by_it(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM ended_processes")
    status, out, _ = ask(path, capsys, monkeypatch, 91)

    assert status == 0
    assert "91 vic\\x1btim: ended" in out
    assert "status 137, OOM (agent oom 1)" in out


def test_a_name_finds_the_living_and_the_ended(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = ask(path, capsys, monkeypatch, name="worker", as_json=True)
    found = json.loads(out)["processes"]

    assert [(one["pid"], one["state"], one["status"]) for one in found] == [
        (8, "ended", 3),
        (91, "ended", 137),
    ]
    assert found[1]["oom_kill"] == 1


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (a_look(bpf=False), "BPF does not testify: the kernel has no BTF."),
        (a_look(source=Source.PSUTIL), "/proc (the modules are not loaded) and BPF agree"),
        (a_look(Verified.CONFLICT), "disagree: BPF says cdcdcdcdcdcd"),
        (a_look(Verified.UNVERIFIED), "BPF has no record of it"),
        (a_look(basis=Basis.MOVED), "its namespaces are another's"),
        (a_look(docker=False), "nothing: Docker does not answer."),
    ],
    ids=["no BPF", "no modules", "conflict", "unverified", "moved", "no Docker"],
)
def test_what_cannot_be_known_is_said(
    look: Tick,
    words: str,
    path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert words in ask(path, capsys, monkeypatch, 7, look=look)[1]


def test_a_zombie_is_one_that_ended(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = [
        builders.process(pid, name="worker", ppid=4, state=0x20, vsz_kb=0, rss_kb=0)
        for pid in (8, 12)
    ]
    look = a_look()
    snapshot = replace(look.sample.snapshot, processes=(INIT, PARENT, *dead))
    look = replace(look, sample=replace(look.sample, snapshot=snapshot))

    _, known, _ = ask(path, capsys, monkeypatch, 8, look=look)
    _, unknown, _ = ask(path, capsys, monkeypatch, 12, look=look)

    assert "status 3" in known
    assert unknown.startswith("12 worker: it has ended, and its parent has not waited for it")


def test_one_whose_main_thread_alone_has_ended_lives(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = builders.process(8, name="worker", ppid=4, state=0x20, vsz_kb=9000, rss_kb=200 << 10)
    look = a_look()
    snapshot = replace(look.sample.snapshot, processes=(INIT, PARENT, left))
    look = replace(look, sample=replace(look.sample, snapshot=snapshot))

    status, out, _ = ask(path, capsys, monkeypatch, 8, look=look)
    document = json.loads(ask(path, capsys, monkeypatch, 8, look=look, as_json=True)[1])

    assert status == 0
    assert out.startswith("8 worker\n")
    assert "200.0 MB of RAM" in out
    assert document["processes"][0]["state"] == "lives"


def test_the_hosts_own_is_nobodys(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = ask(path, capsys, monkeypatch, 4)

    assert "the host's own" in out
    assert "the modules and BPF agree" in out


def test_an_unknown_one_is_a_sentence_and_a_status(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = ask(path, capsys, monkeypatch, 999)

    assert (status, out) == (1, "")
    assert err.startswith("No process 999 is there")


def test_without_a_history_the_living_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = ask(tmp_path / "none.db", capsys, monkeypatch, 7)

    assert status == 0
    assert "web" in out
    assert "What ended, and what ticks saw, is not known." in err


def test_an_agent_that_is_not_there_is_said(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.cli.test_who.NOW_NS", NOW_NS + 3600 * SECOND_NS)

    assert "No agent has stored a tick since" in ask(path, capsys, monkeypatch, 7)[2]


def test_an_end_is_stored_under_its_own_moment(path: Path) -> None:
    assert store_ask(
        path,
        "SELECT started, timestamp, parent_pid, parent_name, container_id, container_name, status,"
        " oom, cpu_ms, peak_rss_mb, process_name FROM ended_processes WHERE pid = 8",
    ) == [
        (
            *((NOW_NS - 40 * SECOND_NS) // 10**6, (NOW_NS - 2 * SECOND_NS) // 10**6, 4, "shim"),
            *(ID_A[:12], "web", 3, 0, 1500.0, 5.0, "worker"),
        )
    ]


def test_who_wants_a_process() -> None:
    with pytest.raises(ConfigError, match="needs a PID"):
        command.who()


def test_a_status_and_an_answer_have_words_for_people() -> None:
    assert view.text(view.living(a_look(), SLEEP, (), 0))[0] == "7 sl\\x1beep"
    assert command.who.__name__ == "who"


def test_a_history_that_opens_and_cannot_be_read_hides_no_living_process(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(bytes(range(256)) * 16)
    status, out, err = ask(path, capsys, monkeypatch, 7)

    assert status == 0
    assert "web" in out
    assert "What ended, and what ticks saw, is not known. The history" in err
    assert "damaged" in err
