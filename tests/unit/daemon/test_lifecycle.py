"""`agent start` from its first step to its last on a host made of values: the order of start and
stop, its modes, and signals. A run of minutes takes milliseconds.
"""

from __future__ import annotations

import http.client
import re
import signal
import socket
from pathlib import Path

import pytest

from agent.daemon.composition import Options
from agent.daemon.lock import AgentLock
from agent.errors import LockedError
from tests.unit.agent_scene import Host, alpine, run, signal_self, stop_after

UNDONE = [
    "cron removed",
    "containers removed",
    "grafana cancelled",
    "grafana down",
    "bpf closed",
    "modules unloaded",
]


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
