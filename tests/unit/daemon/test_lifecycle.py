"""`agent start` from its first step to its last on a host made of values: the order of start and
stop, signals, and what goes missing while it runs. A run of minutes takes milliseconds.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.config import SourceChoice
from agent.daemon.composition import Options, start
from agent.daemon.lock import AgentLock
from agent.errors import AgentError, LockedError, ModulesError
from tests.unit.agent_scene import FullDisk, Host, alpine, signal_self

UNDONE = [
    "cron removed",
    "containers removed",
    "grafana cancelled",
    "grafana down",
    "bpf closed",
    "modules unloaded",
]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def run(host: Host, options: Options = Options(), **settings: object) -> int:  # noqa: B008 - frozen
    outside = host.outside(**settings)
    return start(outside.config, options, outside.clock, outside.say, outside)


def stop_after(host: Host, seconds: float) -> None:
    host.time.at(seconds, signal_self)


def status(host: Host) -> dict[str, Any]:
    """What `agent status` would read at this moment."""
    value: dict[str, Any] = json.loads((host.directory / "run/status.json").read_text())
    return value


def test_all_that_was_brought_is_taken_down_in_reverse_whichever_signal_ends_it(
    tmp_path: Path,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        host = Host(tmp_path / str(int(number)))
        before = signal.getsignal(number)
        host.time.at(30, lambda number=number: signal_self(number))  # type: ignore[misc]
        assert run(host) == 0
        assert host.ticks == 2
        assert [one for one in host.did if one in UNDONE] == UNDONE
        assert host.events is not None
        assert not host.events.running
        assert not (host.directory / "run/status.json").exists()
        assert not (host.directory / "data/metrics.db-wal").exists()
        AgentLock(host.directory / "run").acquire(wait_s=0).release()
        assert signal.getsignal(number) == before
        assert host.said[-1] == "Stopped."
        assert "STOPPING=1" in host.watchdog.words


def test_ticks_are_an_interval_apart_and_a_late_one_is_skipped(host: Host) -> None:
    times: list[float] = []

    def pids() -> tuple[int, ...]:
        times.append(host.time.passed_s)
        if len(times) == 2:
            host.time.now_ns += 50 * 10**9  # a tick that takes as long as two and a half intervals
        return (7,)

    host.pids = pids
    stop_after(host, 150)
    run(host)
    assert times == [0, 20, 80, 100, 120, 140]


def test_what_is_scraped_is_what_is_stored_and_ends_with_the_agent(host: Host) -> None:
    host.docker.run(*(alpine(number) for number in range(5)))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]

    def page() -> str:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode("utf-8")
        client.close()
        return text

    pages: list[str] = []
    host.time.at(50, lambda: pages.append(page()))
    stop_after(host, 70)
    run(host, metrics__listen=f"127.0.0.1:{port}")
    (shown,) = pages
    assert "\nso1_ticks_total 3.0\n" in shown
    removed = re.findall(r'^so1_removals_total\{.*outcome="removed".*\} (.*)$', shown, re.MULTILINE)
    assert [float(one) for one in removed] == [len(host.docker.removed)] == [2]
    held = re.findall(r"^so1_container_held_bytes\{.*\} (.*)$", shown, re.MULTILINE)
    rows = host.rows("SELECT held_mb FROM container_totals GROUP BY timestamp, id ORDER BY id DESC")
    assert sorted(map(float, held)) == sorted(row[0] * 1048576 for row in rows[: len(held)])
    assert len(held) == 3
    assert host.rows("SELECT value FROM host_counters WHERE name = '[\"ticks\"]'") == [(4,)]
    with pytest.raises(ConnectionRefusedError):
        page()


def test_once_is_one_tick_without_load_grafana_or_removal_at_its_end(host: Host) -> None:
    host.docker.run(*(alpine(number) for number in range(5)))
    assert run(host, Options(once=True)) == 0
    assert host.ticks == 1
    assert len(host.docker.removed) == 2
    assert [one for one in host.did if one in UNDONE] == ["bpf closed", "modules unloaded"]


def test_a_dry_run_touches_nothing_and_logs_each_decision_once_under_the_id_of_its_row(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.docker.run(*(alpine(number) for number in range(5)))
    stop_after(host, 90)
    with caplog.at_level("INFO"):
        run(host, Options(dry_run=True))
    assert host.ticks == 5
    assert host.docker.removed == []
    assert set(host.did) == {"bpf closed", "modules unloaded"}
    logged = {
        record.getMessage().split()[0].removeprefix("decision=")
        for record in caplog.records
        if record.getMessage().startswith("decision=")
    }
    stored = {row[0] for row in host.rows("SELECT decision FROM deletions")}
    assert len(stored) == 2
    assert logged == stored


def test_a_second_agent_changes_nothing(host: Host) -> None:
    with AgentLock(host.directory / "run"), pytest.raises(LockedError):
        run(host)
    assert host.did == []
    assert host.builds == []


def test_a_step_that_cannot_be_undone_is_reported_and_the_others_are_undone(host: Host) -> None:
    host.unloadable = False
    stop_after(host, 5)
    assert run(host) == 1
    assert [one for one in host.did if one in UNDONE] == UNDONE[:-1]
    assert any("a reader holds it" in line for line in host.said)


# Signals


def test_a_storm_of_signals_ends_it_once(host: Host) -> None:
    def storm() -> None:
        for _ in range(100_000):  # more than a pipe holds
            host.stopper.handle(signal.SIGTERM, None)

    host.time.at(25, storm)
    assert run(host) == 0
    assert host.ticks == 2
    assert host.stopper.asked == 100_000


def test_a_signal_in_the_middle_of_a_tick_ends_the_agent_behind_it(host: Host) -> None:
    def pids() -> tuple[int, ...]:
        signal_self()
        return (7,)

    host.pids = pids
    assert run(host) == 0
    assert host.ticks == 1
    assert host.rows("SELECT count(*) FROM metrics") == [(1,)]


def test_a_signal_while_the_first_build_runs_ends_it_without_a_tick(host: Host) -> None:
    host.build_s = 600
    stop_after(host, 30)
    assert run(host) == 0
    assert host.time.passed_s == 30
    assert host.builds[0].cancelled
    assert (host.ticks, host.did) == (0, ["modules unloaded"])


# The watchdog, and modules that go


def test_a_rebuild_holds_neither_the_ticks_nor_the_signs_of_life_nor_a_stop(host: Host) -> None:
    def gone() -> None:
        host.modules, host.build_s = False, 600

    host.time.at(30, gone)
    stop_after(host, 330)
    assert run(host) == 0
    assert host.time.passed_s == 330
    assert host.builds[-1].cancelled
    sources = [row[0] for row in host.rows("SELECT source FROM metrics ORDER BY id")]
    assert sources == ["modules"] * 2 + ["psutil"] * 15
    pauses = [
        later - earlier
        for earlier, later in zip(host.watchdog.alive_s, host.watchdog.alive_s[1:], strict=False)
    ]
    assert max(pauses) < 90


def test_modules_that_were_rebuilt_in_the_background_are_the_source_again(host: Host) -> None:
    def gone() -> None:
        host.modules, host.build_s = False, 60

    host.time.at(30, gone)
    stop_after(host, 130)
    run(host)
    sources = [row[0] for row in host.rows("SELECT source FROM metrics ORDER BY id")]
    assert sources == ["modules"] * 2 + ["psutil"] * 3 + ["modules"] * 2
    assert len(host.builds) == 2


def test_modules_that_cannot_be_had_are_a_problem_in_status_and_psutil_the_source(
    host: Host,
) -> None:
    host.loadable = False
    seen: list[dict[str, Any]] = []
    host.time.at(10, lambda: seen.append(status(host)))
    stop_after(host, 11)
    assert run(host) == 0
    assert seen[0]["source"] == "psutil"
    assert any("The headers are missing" in one for one in seen[0]["problems"])


def test_modules_that_were_asked_for_and_cannot_be_had_are_an_error_and_leave_nothing(
    host: Host,
) -> None:
    host.loadable = False
    with pytest.raises(ModulesError):
        run(host, source=SourceChoice.MODULES)
    assert host.ticks == 0
    assert host.did == ["modules unloaded"]


def test_late_removals_are_stored_though_the_tick_that_heard_of_them_fails(host: Host) -> None:
    host.docker.run(*(alpine(number) for number in range(5)))
    host.docker.slow = True

    def modules_go() -> None:
        host.docker.finish()
        host.modules, host.loadable = False, False

    host.time.at(10, modules_go)
    before: list[Any] = []
    host.time.at(25, lambda: before.append(host.rows("SELECT outcome FROM deletions")))
    stop_after(host, 50)
    run(host, source=SourceChoice.MODULES)
    assert host.ticks == 1
    assert before == [[("removed",), ("removed",)]]
    assert host.rows("SELECT count(*) FROM deletions") == [(2,)]
    assert host.rows("SELECT sum(deleted_count) FROM metrics") == [(2,)]


# Docker, its events and the disk


def test_docker_away_stores_the_host_alone_and_costs_no_container_in_the_first_tick_back(
    host: Host,
) -> None:
    host.docker.run(*(alpine(number) for number in range(5)))
    host.docker.away = True
    problems: list[str] = []
    host.time.at(10, lambda: problems.extend(status(host)["problems"]))
    host.time.at(30, lambda: setattr(host.docker, "away", False))
    stop_after(host, 70)
    run(host)
    assert any("Docker does not answer" in one for one in problems)
    counts = host.rows("SELECT container_count, deleted_count FROM metrics ORDER BY id")
    assert counts == [(None, 0), (None, 0), (5, 0), (3, 2)]


def test_a_burst_of_starts_beyond_the_limit_is_one_pass_at_once(host: Host) -> None:
    def burst() -> None:
        for number in range(11):
            host.docker.run(alpine(number))
            host.send("start")

    host.time.at(25, burst)
    seen: list[int] = []
    host.time.at(26, lambda: seen.append(len(host.docker.removed)))
    stop_after(host, 30)
    run(host)
    assert seen == [8]
    assert sum("removed at once" in line for line in host.said) == 1
    assert host.rows("SELECT count(*) FROM deletions") == [(8,)]


def test_a_pass_between_two_ticks_leaves_what_the_next_tick_is_held_against(host: Host) -> None:
    """BPF's mark and the interval of the host's CPU begin at the last stored tick."""

    def burst() -> None:
        host.docker.run(*(alpine(number) for number in range(11)))
        host.send("start")

    began_ns = host.time.now_ns
    host.time.at(25, burst)
    stop_after(host, 50)
    run(host)
    assert len(host.docker.removed) == 8
    assert [(one - began_ns) / 10**9 for one in host.marks_ns] == [0, 20, 40]
    # The scene's CPUs are busy for one hundredth of the time: also across the pass.
    assert host.rows("SELECT cpu_usage FROM metrics") == [(0.0,), (1.0,), (1.0,)]


def test_what_a_source_leaves_out_is_in_status(host: Host) -> None:
    host.modules = True
    host.docker.left_out, host.odd = 2, 3
    seen: list[list[str]] = []
    host.time.at(5, lambda: seen.append(status(host)["problems"]))
    stop_after(host, 10)
    run(host)
    ((docker, modules),) = seen
    assert docker.startswith("docker: 2 entries")
    assert modules.startswith("modules: 3 entries")


def test_a_start_that_comes_in_the_pause_behind_a_pass_is_not_forgotten(host: Host) -> None:
    def start_eleven(first: int) -> None:
        host.docker.run(*(alpine(first + number) for number in range(11)))
        host.send("start")

    host.time.at(25, lambda: start_eleven(0))
    host.time.at(25.2, lambda: start_eleven(100))
    seen: list[int] = []
    host.time.at(26, lambda: seen.append(len(host.docker.containers)))
    stop_after(host, 30)
    run(host)
    assert seen == [3]


def test_events_that_are_not_followed_are_a_problem_in_status_while_docker_answers(
    host: Host,
) -> None:
    def lose(why: str) -> None:
        assert host.events is not None
        host.events.problem = why

    seen: list[list[str]] = []
    host.time.at(10, lambda: lose("Too many open files"))
    host.time.at(19, lambda: seen.append(status(host)["problems"]))
    host.time.at(21, lambda: lose(""))
    host.time.at(39, lambda: seen.append(status(host)["problems"]))
    stop_after(host, 40)
    run(host)
    assert [("Too many open files" in " ".join(one)) for one in seen] == [True, False]


def test_a_full_disk_stops_no_tick_and_loses_no_removal(host: Host) -> None:
    host.disk = FullDisk()
    host.disk.full = True
    host.docker.run(*(alpine(number) for number in range(5)))
    problems: list[str] = []
    host.time.at(10, lambda: problems.extend(status(host)["problems"]))
    host.time.at(30, lambda: setattr(host.disk, "full", False))
    stop_after(host, 50)
    assert run(host) == 0
    assert any("The disk is full" in one for one in problems)
    assert host.disk.unstored_ticks == 2
    assert [row.deleted_count for row in host.disk.rows] == [2]
    assert [one.decision.container_name for one in host.disk.deletions] == host.docker.removed
    assert host.disk.closed


def test_a_status_file_that_cannot_be_written_stops_no_tick(host: Host) -> None:
    (host.directory / "run").mkdir(parents=True)
    (host.directory / "run/.status.json.new").mkdir()
    stop_after(host, 50)
    assert run(host) == 1  # what is there cannot be removed at the end either
    assert host.ticks == 3


# What comes up in the background


@pytest.mark.parametrize(
    ("bpf", "word", "problem"),
    [("ready", "ready", ""), ("unreadable", "ready", ""), ("off", "off: No BTF.", "No BTF")],
)
def test_bpf_that_cannot_be_had_is_said_once_and_rows_go_on(
    host: Host, bpf: str, word: str, problem: str
) -> None:
    host.bpf = bpf
    seen: list[dict[str, Any]] = []
    host.time.at(45, lambda: seen.append(status(host)))
    stop_after(host, 50)
    assert run(host) == 0
    assert seen[0]["bpf"] == word
    assert problem in " ".join(seen[0]["problems"])
    assert sum("No BTF" in line for line in host.said) == (1 if problem else 0)
    assert host.rows("SELECT count(*) FROM metrics") == [(3,)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AgentError("The port is taken.", "Free it."), "The port is taken."),
        (LookupError("a bug"), "LookupError: a bug"),
    ],
)
def test_grafana_that_fails_is_reported_as_not_working_whatever_the_error(
    host: Host, error: Exception, words: str
) -> None:
    host.grafana.error = error
    wait_for_grafana(host)
    seen: list[dict[str, Any]] = []
    host.time.at(25, lambda: seen.append(status(host)))
    stop_after(host, 26)
    assert run(host) == 0
    assert seen[0]["grafana"].startswith("not working: ")
    assert words in seen[0]["grafana"]
    assert any(words in one for one in seen[0]["problems"])
    assert "grafana down" in host.did


def test_grafana_s_thread_that_ends_without_a_word_is_noticed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndOfThread(BaseException):
        """Nothing catches it."""

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    host.grafana.error = EndOfThread()
    wait_for_grafana(host)
    seen: list[dict[str, Any]] = []
    host.time.at(25, lambda: seen.append(status(host)))
    stop_after(host, 26)
    assert run(host) == 0
    assert "has ended" in seen[0]["grafana"]


def wait_for_grafana(host: Host) -> None:
    """Its thread is a real one: it is given the time to end before anything virtual passes."""

    def join() -> None:
        for thread in threading.enumerate():
            if thread.name == "grafana":
                thread.join(30)

    host.time.at(1, join)


def test_cron_that_cannot_be_had_is_reported_and_load_is_generated_once(host: Host) -> None:
    host.cron_error = AgentError("cron is not installed.", "Install it.")
    seen: list[dict[str, Any]] = []
    host.time.at(5, lambda: seen.append(status(host)))
    stop_after(host, 6)
    assert run(host) == 0
    assert "not installed" in seen[0]["cron"]
    assert "generator started" in host.did


@pytest.mark.parametrize("outcome", [0, 1])
def test_the_first_generation_is_reaped_when_it_ends_and_a_failure_is_logged(
    host: Host, outcome: int, caplog: pytest.LogCaptureFixture
) -> None:
    host.time.at(7, lambda: setattr(host.generation, "ended", outcome))
    seen: list[bool] = []
    host.time.at(15, lambda: seen.append("generator reaped" in host.did))
    stop_after(host, 16)
    run(host)
    assert seen == [True]
    assert ("generator=first-run status=1" in caplog.text) is (outcome == 1)
