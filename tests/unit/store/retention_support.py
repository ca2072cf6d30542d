"""A database with a clock, for retention's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.store.builders import (
    FakeClock,
    a_tick,
    ask,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def ticks(path: Path, table: str = "metrics") -> list[int]:
    sql = f"SELECT DISTINCT timestamp FROM {table} ORDER BY timestamp"
    return [row[0] for row in ask(path, sql)]


def run_for(store: object, clock: FakeClock, span_ns: int, step_ns: int, **tick: object) -> None:
    for _ in range(span_ns // step_ns):
        clock.pass_time(step_ns)
        store.write_tick(a_tick(clock.wall_ns(), **tick))  # type: ignore[attr-defined, arg-type]
