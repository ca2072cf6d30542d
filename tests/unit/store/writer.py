"""A store that is written to, tick by tick, and what a test of its faults looks at afterwards."""

from __future__ import annotations

from pathlib import Path

from agent.store.store import Store
from tests.unit.store.builders import (
    SECOND_NS,
    FakeClock,
    a_tick,
    ask,
    count,
)

ROWS = 40


class Writer:
    """Ticks of one size, 20 s apart."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock

    def tick(self, times: int = 1, rows: int = ROWS) -> None:
        for _ in range(times):
            self.clock.pass_time(20 * SECOND_NS)
            self.store.write_tick(a_tick(self.clock.wall_ns(), rows))


def assert_whole(path: Path) -> int:
    """Every tick of `metrics` has all its rows, and no row is without its tick. Gives the ticks."""
    counted = ask(
        path,
        """SELECT process_count, (SELECT count(*) FROM process_stats p
                WHERE p.timestamp = m.timestamp) FROM metrics m""",
    )
    assert all(said == stored for said, stored in counted), counted
    assert count(path, "process_stats") == sum(stored for _, stored in counted)
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    return len(counted)


def quarantined(path: Path) -> list[Path]:
    return sorted(one for one in path.parent.glob("*.damaged-*") if one.name[-4:-3] != "-")


def noise(path: Path, begin: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes((n * 7919 + n // 251 + 7) % 256 for n in range(length)))
