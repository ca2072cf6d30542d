"""What seldom changes of a container is a row for each change, and of all of them once an hour."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import StoreError
from agent.model.container import ContainerState
from agent.model.state_seen import StateSeen
from tests.unit.store.builders import (
    HOUR_NS,
    KEY_A,
    KEY_B,
    SECOND_NS,
    START_NS,
    a_tick,
    ask,
    open_store,
)

if TYPE_CHECKING:
    from pathlib import Path

RUNS = StateSeen(KEY_A, ContainerState.RUNNING, "healthy", 5_000, 7 * SECOND_NS, False, START_NS)
ENDED = StateSeen(KEY_B, ContainerState.EXITED, "", 6_000, 0, False, START_NS)
STORED = "SELECT container_id, state, health, created, started, disputed FROM container_states"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


def rows(path: Path) -> list[tuple[Any, ...]]:
    return ask(path, f"{STORED} ORDER BY id")


def test_a_row_says_what_was_seen(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(states=(RUNS, ENDED)))
    assert rows(path) == [
        (KEY_A.id[:12], "running", "healthy", 5_000, START_NS // 10**6 + 7_000, 0),
        (KEY_B.id[:12], "exited", "", 6_000, 0, 0),
    ]
    assert ask(path, "SELECT DISTINCT engine, timestamp FROM container_states") == [
        (KEY_A.engine, START_NS // 10**6)
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"state": ContainerState.PAUSED},
        {"health": "unhealthy"},
        {"started_ns": 8 * SECOND_NS},
        {"disputed": True},
    ],
)
def test_only_what_changed_is_written_again(path: Path, changed: dict[str, Any]) -> None:
    with open_store(path) as store:
        for number, one in enumerate((RUNS, RUNS, replace(RUNS, **changed), RUNS)):
            store.write_tick(a_tick(START_NS + number * SECOND_NS, states=(one, ENDED)))
    assert len(rows(path)) == 2 + 2


def test_a_clock_that_was_set_changes_nobody(path: Path) -> None:
    with open_store(path) as store:
        store.write_tick(a_tick(states=(RUNS,)))
        store.write_tick(a_tick(START_NS + SECOND_NS, states=(replace(RUNS, boot_ns=5),)))
    assert len(rows(path)) == 1


def test_all_are_written_once_an_hour_and_after_a_start(path: Path) -> None:
    """Whoever reads any hour finds everybody in it or in the one before."""
    for run in ((0, HOUR_NS // 2, HOUR_NS, HOUR_NS + SECOND_NS), (HOUR_NS * 3 // 2,)):
        with open_store(path) as store:
            for after_ns in run:
                store.write_tick(a_tick(START_NS + after_ns, states=(RUNS,)))
    seen_ms = [at for (at,) in ask(path, "SELECT timestamp FROM container_states ORDER BY id")]
    assert [at - START_NS // 10**6 for at in seen_ms] == [0, 3_600_000, 5_400_000]


class Full:
    """A disk that takes nothing more once everything is written."""

    def write(self, connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def written(self) -> None:
        raise AssertionError("nothing was")


def test_what_could_not_be_written_is_written_with_the_next_tick(path: Path) -> None:
    paused = replace(RUNS, state=ContainerState.PAUSED)
    with open_store(path) as store:
        store.write_tick(a_tick(states=(RUNS,)))
        store.kept.append(Full())
        with pytest.raises(StoreError):
            store.write_tick(a_tick(START_NS + SECOND_NS, states=(paused,)))
        store.kept.clear()
        store.write_tick(a_tick(START_NS + 2 * SECOND_NS, states=(paused,)))
    assert [row[1] for row in rows(path)] == ["running", "paused"]
