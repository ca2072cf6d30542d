"""Repeated measurements: wall and CPU time of a piece of work, as medians with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds over the repetitions: median, smallest, largest; CPU is this process's own."""

    wall_ms: float
    wall_min_ms: float
    wall_max_ms: float
    cpu_ms: float
    repetitions: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, against what, and how often it is cheaper."""

    section: str
    what: str
    timing: Timing | None
    figure: str = ""
    ratio: float | None = None
    """By how much `against` takes longer."""
    against: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class IncompleteError(RuntimeError):
    """A section's own subject could not be measured; what else it measured is in `rows`."""

    def __init__(self, missing: str, rows: Sequence[Row]) -> None:
        super().__init__(missing)
        self.rows = tuple(rows)


def timed(work: Callable[[], object], repetitions: int, *, warm: bool = True) -> Timing:
    """`work` run `repetitions` times, with `warm` once unmeasured before."""
    if warm:
        work()
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(repetitions):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return of(walls, cpus)


def of(walls_ms: Sequence[float], cpus_ms: Sequence[float] = (0.0,)) -> Timing:
    """A timing of measurements that were taken elsewhere."""
    return Timing(
        wall_ms=statistics.median(walls_ms),
        wall_min_ms=min(walls_ms),
        wall_max_ms=max(walls_ms),
        cpu_ms=statistics.median(cpus_ms),
        repetitions=len(walls_ms),
    )


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times longer `slow` takes."""
    return slow.wall_ms / fast.wall_ms if fast.wall_ms else float("inf")
