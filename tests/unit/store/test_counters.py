"""The counters' tables: stored with a tick or not at all, and there again after a kill."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.analysis.counters import ContainerCounters, LastingCounters
from agent.errors import StoreError
from agent.store import counters as tables
from tests.unit.store.builders import KEY_A, a_pass, a_tick, ask, open_store

SOME = LastingCounters(
    {KEY_A: ContainerCounters(1, 2, -3, 4, 5, -6)},
    {("ticks",): 7, ("removals", 'a "rule"\n', "exited", "removed"): 8},
)


def test_a_database_without_counters_has_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        store.write_tick(a_tick())
    assert tables.read(path) == LastingCounters()


def test_what_a_tick_stored_is_read_again_by_another_process_beside_a_live_agent(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        store.counters = lambda: SOME
        store.write_tick(a_tick())
        assert tables.read(path) == SOME
        assert ask(path, "SELECT living_ns, pending_ns FROM container_counters") == [(1, -6)]


def test_removals_between_two_ticks_store_them_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        store.counters = lambda: SOME
        store.write_removals(a_pass(), 1)
    assert tables.read(path) == SOME


def test_a_tick_that_fails_stores_none_of_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"

    def fails() -> LastingCounters:
        raise sqlite3.OperationalError("disk I/O error")

    with open_store(path) as store:
        store.counters = lambda: SOME
        store.write_tick(a_tick())
        store.counters = fails
        with pytest.raises(StoreError):
            store.write_tick(a_tick())
    assert tables.read(path) == SOME
    assert ask(path, "SELECT count(*) FROM metrics") == [(1,)]


def test_a_database_begun_anew_has_all_counters_with_its_first_tick(tmp_path: Path) -> None:
    path = tmp_path / "metrics.db"
    with open_store(path) as store:
        store.counters = lambda: SOME
        store.write_tick(a_tick())
        path.unlink()
        store.write_tick(a_tick())
    assert tables.read(path) == SOME


@pytest.mark.parametrize(
    "damage",
    [
        "INSERT INTO host_counters VALUES ('not JSON', 1)",
        "INSERT INTO host_counters VALUES ('[\"x\"]', 'many')",
        "DROP TABLE host_counters",
    ],
)
def test_rows_that_are_no_counters_are_one_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "metrics.db"
    open_store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    with pytest.raises(StoreError):
        tables.read(path)
