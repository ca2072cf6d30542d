"""Which rows are still to be shipped, and whether a cursor is a row of this history."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.fleet.errors import FleetError
from agent.fleet.local import Cursor, Queue, ShippingState, read_state, write_state
from agent.fleet.streams import REMOVALS, STOPS
from tests.unit.store.builders import START_NS, a_pass, a_removal, a_tick, open_store

AT_MS = START_NS // 10**6


def history(path: Path, removals: int = 5) -> Path:
    with open_store(path) as store:
        for number in range(removals):
            wall_ns = START_NS + number * 10**9
            store.write_tick(a_tick(wall_ns, passes=(a_pass(a_removal(number)),)))
    return path


def run(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql)


def test_rows_follow_the_cursor_in_order(tmp_path: Path) -> None:
    path = history(tmp_path / "metrics.db")
    with Queue(path) as queue:
        rows = queue.following(REMOVALS, Cursor(2, 0), 2)
        assert [row[0] for row in rows] == [3, 4]
        assert len(rows[0]) == 2 + len(REMOVALS.columns)
        assert queue.waiting(REMOVALS, Cursor(3, 0)) == (2, AT_MS + 3000)
        assert queue.waiting(REMOVALS, Cursor(5, 0)) == (0, 0)


def test_a_history_without_a_stream_has_none_of_its_rows(tmp_path: Path) -> None:
    path = history(tmp_path / "metrics.db")
    run(path, "DROP TABLE IF EXISTS agent_stops")
    with Queue(path) as queue:
        assert queue.following(STOPS, Cursor(), 10) == []
        assert queue.waiting(STOPS, Cursor()) == (0, 0)
        assert not queue.holds(STOPS, Cursor(1, 1))


@pytest.mark.parametrize(
    ("cursor", "held"),
    [
        (Cursor(0, 0), True),
        (Cursor(3, AT_MS + 2000), True),
        (Cursor(3, AT_MS + 2001), False),
        (Cursor(6, AT_MS + 9000), False),
    ],
)
def test_a_cursor_is_ours_if_its_row_is(tmp_path: Path, cursor: Cursor, held: bool) -> None:
    with Queue(history(tmp_path / "metrics.db")) as queue:
        assert queue.holds(REMOVALS, cursor) is held


def test_a_row_that_retention_deleted_is_still_ours(tmp_path: Path) -> None:
    path = history(tmp_path / "metrics.db")
    run(path, "DELETE FROM deletions WHERE id <= 3")
    with Queue(path) as queue:
        assert queue.holds(REMOVALS, Cursor(3, AT_MS + 2000))
        # Newer than the oldest that is left: it never was before it.
        assert not queue.holds(REMOVALS, Cursor(2, AT_MS + 9000))
    run(path, "DELETE FROM deletions")
    with Queue(path) as queue:
        assert queue.holds(REMOVALS, Cursor(5, AT_MS + 4000))
        assert not queue.holds(REMOVALS, Cursor(6, AT_MS + 9000))


def test_an_emptied_table_goes_on_counting(tmp_path: Path) -> None:
    path = history(tmp_path / "metrics.db")
    run(path, "DELETE FROM deletions")
    with open_store(path) as store:
        store.write_tick(a_tick(START_NS + 10**11, passes=(a_pass(),)))
    with Queue(path) as queue:
        assert [row[0] for row in queue.following(REMOVALS, Cursor(), 9)] == [6]


def test_a_database_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "metrics.db").write_bytes(b"x" * 5000)
    for name in ("metrics.db", "missing.db"):
        with pytest.raises(FleetError) as raised:
            Queue(tmp_path / name)
        assert raised.value.hint


def test_the_state_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    state = ShippingState(epoch="e", cursors={"removals": Cursor(1, 2)}, rows=3, problem="x")
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.json"]
    (tmp_path / "fleet.json").write_bytes(b'{"epoch": 1')
    assert read_state(tmp_path) == ShippingState()
    with pytest.raises(FleetError):
        write_state(tmp_path / "missing", state)
