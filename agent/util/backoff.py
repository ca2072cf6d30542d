"""How long to wait after so many failures in a row: the first pause, doubled up to a longest.

Pure: whoever tries keeps the number of failures and the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

_MOST_DOUBLINGS = 62
"""More than any two pauses are apart, and no number that grows without end."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing pauses, in nanoseconds."""

    first_ns: int
    longest_ns: int

    def pause_ns(self, failures: int) -> int:
        """The pause after `failures` in a row; 0 where there was none."""
        if failures <= 0:
            return 0
        return min(self.first_ns << min(failures - 1, _MOST_DOUBLINGS), self.longest_ns)
