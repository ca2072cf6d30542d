"""Readers beside the writer: of another user, on a read-only mount, and with a writer that dies.

The contract: no reader's query ever fails or sees half a tick, no reader ever holds the writer up,
and the history stays readable while the agent is stopped, killed or starting.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.store.queries import History
from tests.unit.store.builders import (
    SECOND_NS,
    START_NS,
    FakeClock,
    a_tick,
    ask,
    count,
    open_store,
)

pytestmark = pytest.mark.allow_subprocess

GRAFANA_UID = 472

READER = """
    # What Grafana's SQLite plugin does for each query: open, query_only, ask, close.
    import collections, json, os, sqlite3, sys, time
    path, uid, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if uid:
        os.setgroups([])
        os.setgid(0)
        os.setuid(uid)
    errors, queries, newest, torn = collections.Counter(), 0, 0, False
    print("ready", flush=True)
    while True:
        # Looked at before the query: the last one is made after the writer's last word.
        last = os.path.exists(stop)
        try:
            connection = sqlite3.connect(f"file:{path}?mode=MODE", uri=True, timeout=5)
            connection.execute("PRAGMA query_only(1)")
            row = connection.execute('''
                SELECT timestamp, process_count, container_count,
                    (SELECT count(*) FROM process_stats p WHERE p.timestamp = m.timestamp),
                    (SELECT count(*) FROM container_stats c WHERE c.timestamp = m.timestamp),
                    (SELECT count(*) FROM attribution_checks a WHERE a.timestamp = m.timestamp),
                    (SELECT max(timestamp) FROM process_stats)
                FROM metrics m ORDER BY timestamp DESC LIMIT 1
            ''').fetchone()
            connection.close()
            timestamp, processes, containers, *found, raw = row
            if found != [processes, containers, 1] or raw != timestamp:
                errors[f"half a tick: {row}"] += 1
            if timestamp < newest:
                errors["history went back"] += 1
            newest = timestamp
            torn = False
        except sqlite3.Error as error:
            # One that came between the writer's two copies of the index's header (docs/store.md) is
            # answered when it asks again, and never twice in a row.
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_READONLY_RECOVERY" and not torn:
                torn = True
                continue
            errors[f"{error} {name}"] += 1
        queries += 1
        if last:
            break
        time.sleep(0.002)
    print(json.dumps([queries, errors, newest]))
"""

WRITER = """
    import sys, time
    from pathlib import Path
    from agent.clock import SystemClock
    from agent.config import RetentionSettings
    from agent.store.store import Store
    from tests.unit.store.builders import *
    path, ticks = Path(sys.argv[1]), int(sys.argv[2])
    with Store.open(path, clock=SystemClock(), retention=RetentionSettings()) as store:
        for number in range(ticks):
            store.write_tick(a_tick(time.time_ns(), 60 + number % 7))
            print(number, flush=True)
"""


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that another user can reach: pytest keeps its own to itself."""
    directory = Path(tempfile.mkdtemp(prefix="so1-store-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def path(outside: Path) -> Path:
    path = outside / "so1" / "metrics.db"
    with open_store(path, FakeClock()) as store:
        store.write_tick(a_tick(START_NS, 5))
    return path


@pytest.fixture
def seen_from_outside(path: Path, outside: Path) -> Iterator[tuple[Path, int]]:
    """The database as a container sees it and who looks: a read-only mount and uid 472 for root."""
    if os.geteuid() != 0:
        yield path, 0
        return
    mount = outside / "mounted"
    mount.mkdir()
    bound = subprocess.run(
        ["mount", "--bind", str(path.parent), str(mount)], capture_output=True, check=False
    )
    if bound.returncode:
        yield path, GRAFANA_UID
        return
    subprocess.run(["mount", "-o", "remount,bind,ro", str(mount)], check=True)
    yield mount / path.name, GRAFANA_UID
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


class Readers:
    """Processes that ask without a pause until they are told to stop."""

    def __init__(self, path: Path, uid: int, stop: Path, count: int = 2, mode: str = "rw") -> None:
        self._stop = stop
        code = textwrap.dedent(READER).replace("MODE", mode)
        self._processes = [
            subprocess.Popen(
                ["/usr/bin/python3", "-c", code, str(path), str(uid), str(stop)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def finish(self) -> list[tuple[int, dict[str, int], int]]:
        self._stop.touch()
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            # Not communicate(): it would miss what readline() has read ahead.
            answers.append(tuple(json.loads(process.stdout.read())))
            assert process.wait(timeout=60) == 0
        return answers


def write_in_process(path: Path, ticks: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(ticks)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_readers_see_whole_ticks_without_an_error_while_the_writer_starts_runs_and_stops(
    path: Path, seen_from_outside: tuple[Path, int], outside: Path
) -> None:
    clock = FakeClock()
    readers = Readers(*seen_from_outside, outside / "stop")
    for _ in range(6):
        with open_store(path, clock) as store:
            slow = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            for number in range(300):
                if number == 100:
                    # A writer that this reader blocked would fail after its busy time-out.
                    slow.execute("BEGIN")
                    seen = slow.execute("SELECT count(*) FROM metrics").fetchone()
                clock.pass_time(SECOND_NS)
                store.write_tick(a_tick(clock.wall_ns(), 30 + number % 5))
            assert slow.execute("SELECT count(*) FROM metrics").fetchone() == seen
            slow.close()
    answers = readers.finish()

    for queries, errors, newest in answers:
        assert errors == {}
        assert queries > 100
        assert newest == clock.wall_ns() // 10**6
    assert count(path, "metrics") == 1801


def test_readers_never_fail_though_the_writer_is_killed_at_random_moments(
    path: Path, seen_from_outside: tuple[Path, int], outside: Path
) -> None:
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    readers = Readers(*seen_from_outside, outside / "stop")
    written = 0
    for _ in range(12):
        writer = write_in_process(path, 10**6)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n", f"seed {seed}"
        deadline = time.monotonic() + rng.uniform(0, 0.15)
        while time.monotonic() < deadline:
            written += bool(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    answers = readers.finish()

    assert written > 0
    for _, errors, _ in answers:
        assert errors == {}, f"seed {seed}"
    path_outside, _ = seen_from_outside
    assert count(path_outside, "metrics") >= written
    with open_store(path, FakeClock(wall=time.time_ns())) as store:
        assert store.quarantined is None
        store.write_tick(a_tick(time.time_ns()))
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    assert ask(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_kill_in_the_middle_of_a_tick_leaves_nothing_of_it(path: Path, outside: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from tests.unit.store.builders import *
        class Deadly(tuple):
            def __iter__(self):
                yield from (a_process(number) for number in range(5000))
                os.kill(os.getpid(), signal.SIGKILL)
        store = open_store(Path(sys.argv[1]), FakeClock())
        store.write_tick(a_tick(START_NS + SECOND_NS, 7))
        store.write_tick(a_tick(START_NS + 2 * SECOND_NS, processes=Deadly([1])))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL

    assert ask(path, "SELECT process_count FROM metrics ORDER BY id") == [(5,), (7,)]
    assert count(path, "process_stats") == 12
    with open_store(path, FakeClock()) as store:
        store.write_tick(a_tick(START_NS + 3 * SECOND_NS, 3))
    assert count(path, "process_stats") == 15


def test_after_a_kill_and_after_a_stop_the_history_is_readable_from_a_read_only_mount(
    path: Path, seen_from_outside: tuple[Path, int], outside: Path
) -> None:
    writer = write_in_process(path, 10**6)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    (outside / "once").touch()
    for answer in Readers(*seen_from_outside, outside / "once", 1).finish():
        assert answer[1] == {}

    assert write_in_process(path, 5).wait(timeout=60) == 0
    assert sorted(one.name for one in path.parent.iterdir()) == ["metrics.db"]
    for answer in Readers(*seen_from_outside, outside / "once", 1).finish():
        assert answer[1] == {}


def test_a_reader_in_the_middle_of_a_query_holds_no_tick_up_and_the_log_shrinks_after_it(
    path: Path,
) -> None:
    clock = FakeClock()
    with open_store(path, clock) as store:
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        before = reader.execute("SELECT count(*) FROM metrics").fetchone()
        for _ in range(60):
            clock.pass_time(SECOND_NS)
            store.write_tick(a_tick(clock.wall_ns(), 8000))
        log = path.with_name("metrics.db-wal")
        grown = log.stat().st_size
        assert reader.execute("SELECT count(*) FROM metrics").fetchone() == before
        reader.execute("COMMIT")
        reader.close()
        for _ in range(3):
            clock.pass_time(SECOND_NS)
            store.write_tick(a_tick(clock.wall_ns(), 100))

        assert grown > 20 * 2**20
        assert log.stat().st_size <= 16 * 2**20


def test_a_reader_that_stays_keeps_the_side_files_and_goes_on_reading(
    path: Path,
    seen_from_outside: tuple[Path, int],
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.store.database._LEAVE_WAL_S", 0.2)
    code = """
        import sqlite3, sys
        connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
        connection.execute("BEGIN")
        print(*connection.execute("SELECT count(*) FROM metrics").fetchone(), flush=True)
        sys.stdin.readline()
        connection.execute("COMMIT")
        print(*connection.execute("SELECT count(*) FROM metrics").fetchone(), flush=True)
    """
    store = open_store(path, FakeClock())
    store.write_tick(a_tick(START_NS + SECOND_NS))
    reader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "2\n"
    store.write_tick(a_tick(START_NS + 2 * SECOND_NS))
    store.close()

    assert path.with_name("metrics.db-wal").exists()
    assert count(path, "metrics") == 3
    assert reader.communicate("\n")[0] == "3\n"
    (outside / "once").touch()
    for answer in Readers(*seen_from_outside, outside / "once", 1).finish():
        assert answer[1] == {}
    with open_store(path, FakeClock()) as again:
        again.write_tick(a_tick(START_NS + 3 * SECOND_NS))
    assert sorted(one.name for one in path.parent.iterdir()) == ["metrics.db"]
    assert count(path, "metrics") == 4


def test_a_close_without_waiting_leaves_one_plain_file_where_nobody_reads(path: Path) -> None:
    store = open_store(path, FakeClock())
    store.close(clean=False)

    assert [one.name for one in path.parent.iterdir()] == ["metrics.db"]
    assert ask(path, "PRAGMA journal_mode") == [("delete",)]


def test_our_own_reads_work_beside_a_running_agent_and_after_its_kill(path: Path) -> None:
    writer = write_in_process(path, 10**6)
    assert writer.stdout is not None
    for number in range(40):
        assert writer.stdout.readline() == f"{number}\n"
        with History.open(path) as history:
            last = history.last_tick()
            assert last is not None
            top = history.top_processes_at(last.timestamp_ms, 1000)
            assert len(top) == last.process_count
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    with History.open(path) as history:
        assert history.last_tick() is not None
