"""Exactly how many records of a ring buffer are gone.

Every CPU numbers what happens on it, and counts it whether there is room for a record or not. A
number that is passed over is a record that was lost; so is one that the count has and that never
came: without the count a lost tail would go unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Numbering:
    """What came of each CPU's numbers, against what they say there were."""

    def __init__(self) -> None:
        self._got: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._counted: Sequence[int] = ()
        self.lost = 0
        """Records that are gone since the start, without those counted since the last note()."""

    def note(self, came: Iterable[tuple[int, int]], counted: Sequence[int]) -> None:
        """(CPU, number) of each record that was read; `counted` by CPU, read just before."""
        for cpu, number in came:
            self._got[cpu] = self._got.get(cpu, 0) + 1
            self._last[cpu] = max(self._last.get(cpu, 0), number)
        # A number is taken a moment before its record is there, so the count of the last reading
        # is held against what has come up to this one.
        before = dict(enumerate(self._counted))
        lost = sum(
            max(before.get(cpu, 0), self._last.get(cpu, 0)) - self._got.get(cpu, 0)
            for cpu in range(len(counted))
        )
        self.lost = max(self.lost, lost)
        self._counted = tuple(counted)
