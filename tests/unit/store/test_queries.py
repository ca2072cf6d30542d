"""What `agent status`, `report` and `top` read, against what was written and plain SQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.model.attribution import AttributionCounts
from agent.store.queries import By, History, last_deletions
from tests.unit.store.builders import (
    ID_A,
    ID_B,
    SECOND_NS,
    START_NS,
    a_container,
    a_container_process,
    a_pass,
    a_process,
    a_removal,
    a_tick,
    ask,
    open_store,
    totals,
)

START_MS = START_NS // 10**6
WEB, JOB = a_container("web", ID_A), a_container("job", ID_B)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        for number in range(5):
            store.write_tick(
                a_tick(
                    START_NS + number * 20 * SECOND_NS,
                    processes=tuple(
                        a_process(pid, f"p{pid}", rss_kb=pid * 1024, cpu=float(10 - pid))
                        for pid in range(1, 8)
                    ),
                    container_processes=(
                        a_container_process(2, "small", WEB, rss_kb=1024),
                        a_container_process(3, "large", WEB, rss_kb=9 * 1024),
                        a_container_process(4, "other", JOB, rss_kb=5 * 1024),
                    ),
                    totals=(
                        totals(WEB, held_kb=1024 * (number + 1)),
                        replace(totals(JOB, held_kb=3 * 1024), governed=False, cache_kb=None),
                    ),
                    passes=(a_pass(a_removal(number)),) if number % 2 else (),
                    deleted_count=number % 2,
                    checks=AttributionCounts(agree=number, unverified=3),
                )
            )
    return path


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    with History.open(path) as history:
        yield history


def at(number: int) -> int:
    return START_MS + number * 20_000


def test_the_last_tick_is_the_newest_with_all_its_figures(history: History) -> None:
    last = history.last_tick()

    assert last is not None
    assert (last.timestamp_ms, last.process_count, last.container_count) == (at(4), 7, 1)
    assert (last.total_kb, last.free_kb, last.used_kb, last.available_kb) == (
        *(8_000_000, 3_000_000, 5_000_000, 6_000_000),
    )
    assert (last.cpu_percent, last.cpu_count, last.load1) == (12.5, 4, 0.75)
    assert (last.psi_memory, last.psi_cpu, last.source, last.tick_ms) == (0.1, None, "modules", 45)


def test_ticks_since_are_in_time_order_and_the_newest_where_there_are_too_many(
    history: History,
) -> None:
    assert [one.timestamp_ms for one in history.ticks_since(at(2))] == [at(2), at(3), at(4)]
    assert [one.timestamp_ms for one in history.ticks_since(0, limit=2)] == [at(3), at(4)]
    assert history.ticks_since(at(4) + 1) == ()


def test_containers_of_a_tick_come_with_those_that_hold_most_first(history: History) -> None:
    first, last = history.containers_at(at(0)), history.containers_at(at(4))

    assert [(one.container_name, one.held_mb) for one in first] == [("job", 3.0), ("web", 1.0)]
    assert [(one.container_name, one.held_mb) for one in last] == [("web", 5.0), ("job", 3.0)]
    assert [one.governed for one in last] == [True, False]
    assert [one.cache_mb for one in last] == [0.5, None]
    assert history.containers_at(at(4) + 1) == ()


def test_one_container_over_time(history: History) -> None:
    rows = history.container_since("web", at(1))
    assert [(one.timestamp_ms, one.held_mb) for one in rows] == [
        *((at(1), 2.0), (at(2), 3.0), (at(3), 4.0), (at(4), 5.0)),
    ]
    assert history.container_since("web'--", 0) == ()


def test_the_processes_of_a_container(history: History) -> None:
    everyone = history.container_processes_at(at(4))
    web = history.container_processes_at(at(4), ID_A[:12])

    assert [(one.container_name, one.pid) for one in everyone] == [
        *(("web", 3), ("job", 4), ("web", 2)),
    ]
    assert [(one.name, one.ram_mb, one.verified, one.basis) for one in web] == [
        ("large", 9.0, "unverified", "cgroup"),
        ("small", 1.0, "unverified", "cgroup"),
    ]


@pytest.mark.parametrize(("by", "expected"), [(By.RAM, [7, 6, 5]), (By.CPU, [1, 2, 3])])
def test_the_greatest_processes_of_a_tick(history: History, by: By, expected: list[int]) -> None:
    assert [one.pid for one in history.top_processes_at(at(2), 3, by)] == expected


def test_removals_newest_first_and_since_a_moment_in_time_order(
    history: History, path: Path
) -> None:
    assert [one.decision for one in history.last_deletions(5)] == ["decision-3", "decision-1"]
    assert [one.decision for one in history.last_deletions(1)] == ["decision-3"]
    assert [one.decision for one in history.deletions_since(at(2))] == ["decision-3"]
    assert last_deletions(path, 1) == history.last_deletions(1)
    (newest,) = history.last_deletions(1)
    assert (newest.rank, newest.reason, newest.held_mb) == (3, "excess-high", 128.5)
    assert (newest.available_before_mb, newest.available_after_mb) == (1000.0, 2000.0)


def test_checks_of_a_tick_and_over_time(history: History) -> None:
    checks = history.checks_at(at(3))
    assert checks is not None
    assert (checks.agree, checks.unverified) == (3, 3)
    assert [one.agree for one in history.checks_since(at(2))] == [2, 3, 4]
    assert history.checks_at(1) is None


def test_an_empty_history_has_no_last_tick(tmp_path: Path) -> None:
    open_store(tmp_path / "metrics.db").close()
    with History.open(tmp_path / "metrics.db") as history:
        assert history.last_tick() is None
        assert history.last_deletions(5) == ()


def test_no_database_is_no_deletions_and_a_clear_sentence_for_all_else(tmp_path: Path) -> None:
    path = tmp_path / "none" / "metrics.db"
    assert last_deletions(path, 5) == ()
    with pytest.raises(StoreError, match="no history") as missing:
        History.open(path)
    assert "agent start" in missing.value.hint
    assert list(tmp_path.iterdir()) == []


def test_reading_changes_nothing(path: Path) -> None:
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(path.parent))
    with History.open(path) as history:
        history.last_tick()
        history.last_deletions(3)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            history._database.connection().execute("DELETE FROM metrics")
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(os.listdir(path.parent))) == before


@pytest.mark.parametrize("content", [b"noise" * 1000, b"SQLite format 3\0" + b"\1" * 5000])
def test_a_damaged_history_is_a_clear_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read"):
        last_deletions(path, 5)


def test_a_history_of_another_shape_says_what_brings_it_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE deletions (id INTEGER, timestamp INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match="another shape") as old:
        last_deletions(path, 5)
    assert "agent start" in old.value.hint


def test_every_answer_comes_by_an_index(path: Path, history: History) -> None:
    plans: list[str] = []

    def explain(sql: str) -> None:
        if sql.startswith("SELECT"):
            plans.extend(row[3] for row in ask(path, f"EXPLAIN QUERY PLAN {sql}"))

    history._database.connection().set_trace_callback(explain)
    history.last_tick()
    history.ticks_since(at(1))
    history.checks_since(at(1))
    history.containers_at(at(1))
    history.container_since("web", at(1))
    history.container_processes_at(at(1))
    history.top_processes_at(at(1), 5)
    history.last_deletions(5)
    history.deletions_since(at(1))

    reads = [plan for plan in plans if plan.startswith(("SCAN", "SEARCH"))]
    assert len(reads) == 9
    assert all("USING INDEX" in plan for plan in reads), reads
