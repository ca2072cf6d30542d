"""A tick as it is stored: the right figures in the right columns, whole, and cheap."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playhouse.test_utils import assert_query_count

from agent.errors import StoreError
from agent.model.attribution import AttributionCounts
from agent.model.container import HeldBasis, ShortLivedCommand, Tier
from agent.model.process import Source
from agent.model.removal import Outcome
from tests.unit.store.builders import (
    ID_A,
    SECOND_NS,
    START_NS,
    FakeClock,
    a_container,
    a_container_process,
    a_pass,
    a_process,
    a_removal,
    a_tick,
    ask,
    count,
    open_store,
    totals,
)

TABLES = (
    "metrics",
    "container_stats",
    "process_stats",
    "container_totals",
    "deletions",
    "attribution_checks",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


def test_a_tick_is_stored_in_the_units_that_the_columns_promise(path: Path) -> None:
    record = a_tick(
        processes=(a_process(7, "nginx", rss_kb=1536, cpu=0.12345), a_process(8, "kthread", 0, 0)),
        container_processes=(a_container_process(7, "nginx", rss_kb=1536),),
        totals=(
            replace(
                totals(held_kb=10_240),
                held_basis=HeldBasis.CGROUP1,
                swap_kb=3584,
                held_estimated_kb=1280,
                short_lived=(
                    ShortLivedCommand("sh", "sleep", 3, 4_500_000, 1536),
                    ShortLivedCommand("", "(others)", 2, 0, None),
                ),
            ),
        ),
        passes=(a_pass(a_removal(1), a_removal(2, Outcome.FAILED, "busy")),),
        deleted_count=1,
        checks=AttributionCounts(*range(1, 12)),
    )
    with open_store(path) as store:
        timestamp = store.write_tick(record)

    assert timestamp == START_NS // 10**6
    assert ask(path, "SELECT * FROM metrics") == [
        (
            *(1, timestamp, 8_000_000, 3_000_000, 5_000_000, 1, 2, 1, 6_000_000),
            *(12.5, 4, 0.75, 0.1, None, "modules", 45),
        )
    ]
    assert ask(path, "SELECT * FROM process_stats") == [
        (1, timestamp, 7, "nginx", 1.5, 0.123),
        (2, timestamp, 8, "kthread", 0.0, 0.0),
    ]
    assert ask(path, "SELECT * FROM container_stats") == [
        (
            *(1, timestamp, ID_A[:12], "so1_contenedor_1", 7, "nginx", 1.5, 1.25),
            *("unverified", "cgroup", "docker"),
        )
    ]
    assert ask(path, "SELECT * FROM container_totals") == [
        (
            *(1, timestamp, ID_A[:12], "so1_contenedor_1", "alpine:latest", "low", 1, 1, 10.0),
            *(
                "cgroup1",
                2.0,
                0.5,
                12.346,
                None,
                None,
                None,
                None,
                0,
                3.5,
                1.25,
                None,
                "docker",
                "",
            ),
        )
    ]
    assert ask(path, "SELECT swap_mb, held_estimated_mb FROM container_totals") == [(3.5, 1.25)]
    assert ask(path, "SELECT process_name, count, cpu_ms, peak_rss_mb FROM short_lived") == [
        ("sleep", 3, 4.5, 1.5),
        ("(others)", 2, 0.0, None),
    ]
    box = (timestamp, ID_A[:12], "so1_contenedor_1")
    assert ask(path, "SELECT * FROM short_lived ORDER BY id") == [
        (1, *box, "sh", "sleep", 3, 4.5, 1.5, "docker"),
        (2, *box, "", "(others)", 2, 0.0, None, "docker"),
    ]
    assert ask(path, "SELECT * FROM deletions ORDER BY id") == [
        (
            *(1, timestamp, "decision-1", "b2b2b2b2b2b2", "so1_contenedor_1", "polinux/stress"),
            *("high", 1, "excess-high", 128.5, 99.0, "removed", 340, "", 1000.0, 2000.0),
            *("remove", "", "docker"),
        ),
        (
            *(2, timestamp, "decision-2", "b2b2b2b2b2b2", "so1_contenedor_2", "polinux/stress"),
            *("high", 2, "excess-high", 128.5, 99.0, "failed", 340, "busy", 1000.0, 2000.0),
            *("remove", "", "docker"),
        ),
    ]
    assert ask(path, "SELECT * FROM attribution_checks") == [(1, timestamp, *range(1, 12))]


def test_each_part_of_a_container_s_cost_is_stored_under_its_own_name(path: Path) -> None:
    cost = replace(
        totals(held_kb=10_240),
        rss_kb=7168,
        cache_kb=512,
        cpu_percent=12.5,
        cpu_short_lived_percent=3.25,
        cpu_unexplained_percent=-1.0004,
        starts=40,
        exits=38,
        oom_kills=2,
    )
    with open_store(path) as store:
        store.write_tick(a_tick(totals=(cost,)))

    assert ask(path, "SELECT held_mb, rss_mb, cache_mb FROM container_totals") == [(10.0, 7.0, 0.5)]
    assert ask(
        path, "SELECT cpu_usage, cpu_short_lived, cpu_unexplained FROM container_totals"
    ) == [(12.5, 3.25, -1.0)]
    assert ask(path, "SELECT starts, exits, oom_kills FROM container_totals") == [(40, 38, 2)]


def test_fractions_stay_fractions_also_where_the_first_is_whole(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(processes=(a_process(1, rss_kb=1024), a_process(2, rss_kb=1))))

    assert ask(path, "SELECT typeof(ram_usage), ram_usage FROM process_stats") == [
        ("real", 1.0),
        ("real", 1 / 1024),
    ]


def test_while_docker_is_away_the_container_count_is_unknown_rather_than_0(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(container_count=None, source=Source.PSUTIL))

    assert ask(path, "SELECT container_count, source FROM metrics") == [(None, "psutil")]


def test_a_tick_is_one_transaction_and_one_statement_for_fifty_rows(path: Path) -> None:
    statements: Counter[str] = Counter()
    with open_store(path) as store:
        assert store._database is not None
        store._database.connection().set_trace_callback(lambda sql: statements.update([sql[:24]]))
        for number, size in enumerate((1, 49, 50, 51, 500)):
            statements.clear()
            store.write_tick(a_tick(START_NS + number * SECOND_NS, size))
            kinds = Counter(sql.split()[0] for sql in statements.elements())
            inserts = {sql for sql in statements if sql.startswith("INSERT")}
            assert kinds["BEGIN"] == kinds["COMMIT"] == 1
            assert len(inserts) == 5, inserts
            # sqlite3 tells of each run of a prepared statement.
            assert kinds["INSERT"] == size // 50 + size % 50 + 4
            newest = "SELECT count(*) FROM process_stats GROUP BY timestamp ORDER BY timestamp DESC"
            assert ask(path, newest)[0] == (size,)


@pytest.mark.parametrize("size", [1, 2000])
def test_looking_for_old_rows_costs_two_queries_a_tick(path: Path, size: int) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(START_NS, size))
        record = a_tick(START_NS + 20 * SECOND_NS, size)
        # page_count and freelist: how old the oldest rows are is known from the tick before.
        with assert_query_count(2):
            store.write_tick(record)


def test_nothing_of_a_tick_is_stored_where_one_of_its_rows_does_not_fit(path: Path) -> None:
    impossible = a_tick(container_processes=(a_container_process(2**70),))
    with open_store(path) as store:
        with pytest.raises(StoreError, match="does not fit"):
            store.write_tick(impossible)
        assert [count(path, table) for table in TABLES] == [0] * 6
        assert store.unstored_ticks == 1
        store.write_tick(a_tick(START_NS + SECOND_NS))
        assert store.state.ok

    assert count(path, "metrics") == 1


def test_a_figure_that_is_not_a_number_fails_its_tick_and_no_other(path: Path) -> None:
    with open_store(path) as store:
        with pytest.raises(StoreError, match="does not fit"):
            store.write_tick(a_tick(processes=(a_process(1, cpu=math.nan),)))
        store.write_tick(a_tick())

    assert count(path, "metrics") == 1


@given(name=st.text(st.characters(), max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_text_a_workload_can_think_of_is_stored_as_one_value(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    path = tmp_path_factory.mktemp("text") / "metrics.db"
    hostile = a_container(name=name)
    record = a_tick(
        processes=(a_process(1, name or "x"),),
        container_processes=(a_container_process(1, name, hostile),),
        totals=(totals(hostile),),
    )
    with open_store(path) as store:
        store.write_tick(record)

    expected = "".join("?" if 0xD800 <= ord(c) < 0xE000 else c for c in name[:255])
    expected = expected.replace("\0", "\ufffd")
    ((stored,),) = ask(path, "SELECT process_name FROM container_stats")
    assert stored == expected
    assert [count(path, table) for table in TABLES] == [1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("name", ["\udcff\udcfe", "x" * 10_000, "a\0b", "'; DROP TABLE metrics;--"])
def test_names_that_sqlite_or_people_cannot_read_are_made_fit(path: Path, name: str) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(processes=(a_process(1, name),), totals=()))

    ((stored,),) = ask(path, "SELECT name FROM process_stats")
    assert stored.encode("utf-8")
    assert "\0" not in stored
    assert len(stored) <= 255


def test_a_pass_outside_a_tick_is_in_deletions_at_once_and_before_the_next_row(path: Path) -> None:
    clock = FakeClock()
    with open_store(path, clock) as store:
        first = store.write_tick(a_tick(START_NS))
        store.write_removals(a_pass(a_removal(1)), START_NS + 3 * SECOND_NS)
        rows = ask(path, "SELECT timestamp, decision FROM deletions")
        second = store.write_tick(a_tick(START_NS + 20 * SECOND_NS))

    assert rows == [(first + 3000, "decision-1")]
    assert second == first + 20_000


def test_removals_that_no_row_counted_are_the_newest_rows_and_no_others(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(replace(a_tick(START_NS), deleted_count=2))
        store.write_tick(replace(a_tick(START_NS + SECOND_NS), deleted_count=1))
        store.write_removals(a_pass(a_removal(1)), START_NS + 2 * SECOND_NS)
        store.write_removals(a_pass(a_removal(2)), START_NS + 3 * SECOND_NS, 3)

    assert ask(path, "SELECT deleted_count FROM metrics ORDER BY id") == [(2,), (4,)]
    assert count(path, "deletions") == 2


def test_removals_before_the_first_row_are_in_deletions_alone(path: Path) -> None:
    with open_store(path) as store:
        store.write_removals(a_pass(a_removal(1)), START_NS, 1)

    assert (count(path, "metrics"), count(path, "deletions")) == (0, 1)


def test_an_empty_pass_stores_nothing(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(passes=(replace(a_pass(), removals=()),)))

    assert count(path, "deletions") == 0


@given(
    walls=st.lists(
        st.one_of(
            st.integers(START_NS - 10**16, START_NS + 10**16),
            st.integers(START_NS, START_NS + 5 * 10**6),
        ),
        min_size=1,
        max_size=12,
    ),
    outside=st.sets(st.integers(0, 11)),
    restarts=st.sets(st.integers(0, 11)),
)
@settings(max_examples=40, deadline=None)
def test_timestamps_rise_by_a_millisecond_at_least_whatever_the_clock_does(
    tmp_path_factory: pytest.TempPathFactory,
    walls: list[int],
    outside: set[int],
    restarts: set[int],
) -> None:
    path = tmp_path_factory.mktemp("clock") / "metrics.db"
    store = open_store(path)
    given_back = []
    newest = -1
    for number, wall in enumerate(walls):
        if number in restarts:
            store.close()
            store = open_store(path)
        if number in outside:
            store.write_removals(a_pass(), wall)
            newest = max(newest + 1, wall // 10**6)
        else:
            timestamp = store.write_tick(a_tick(wall, 1, passes=(a_pass(),)))
            # The wall clock wherever it rises; one millisecond on wherever it does not.
            newest = max(newest + 1, wall // 10**6)
            assert timestamp == newest
            given_back.append(timestamp)
    store.close()

    stored = [row[0] for row in ask(path, "SELECT timestamp FROM metrics ORDER BY id")]
    assert stored == given_back == sorted(set(given_back))
    deletions = [row[0] for row in ask(path, "SELECT timestamp FROM deletions ORDER BY id")]
    assert deletions == sorted(set(deletions))


def test_the_sum_of_deleted_count_is_the_callers_and_no_pass_is_stored_twice(path: Path) -> None:
    with open_store(path) as store:
        with pytest.raises(StoreError):
            store.write_tick(a_tick(processes=(a_process(2**70),), passes=(a_pass(a_removal(1)),)))
        store.write_tick(a_tick(START_NS + SECOND_NS, passes=(a_pass(a_removal(2)),)))
        store.write_tick(a_tick(START_NS + 2 * SECOND_NS))

    assert ask(path, "SELECT decision FROM deletions ORDER BY id") == [
        ("decision-1",),
        ("decision-2",),
    ]


def test_a_closed_store_says_so(path: Path) -> None:
    store = open_store(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.write_tick(a_tick())


def test_each_tier_and_outcome_is_stored_by_its_own_word(path: Path) -> None:
    passes = tuple(a_pass(a_removal(n, outcome)) for n, outcome in enumerate(Outcome))
    rows = tuple(replace(totals(), tier=tier) for tier in Tier)
    with open_store(path) as store:
        store.write_tick(a_tick(totals=rows, passes=passes))

    assert {row[0] for row in ask(path, "SELECT outcome FROM deletions")} == {
        *("removed", "gone", "failed", "dry-run", "stopped", "restarted", "paused", "notified")
    }
    assert {row[0] for row in ask(path, "SELECT tier FROM container_totals")} == {
        *("low", "high", "none")
    }


def test_the_history_is_readable_by_plain_sqlite_between_ticks(path: Path) -> None:
    with open_store(path) as store:
        for number in range(3):
            store.write_tick(a_tick(START_NS + number * SECOND_NS))
            connection = sqlite3.connect(path)
            assert connection.execute("SELECT count(*) FROM metrics").fetchone() == (number + 1,)
            connection.close()
