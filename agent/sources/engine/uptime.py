"""How long a container has been up at least, from Docker's words for people (`Up 4 minutes`).

The list has no other figure for it. Text that is not understood counts as «just started», which
costs a question and is never wrong.
"""

from __future__ import annotations

import re

_SECOND_NS = 10**9
_UNIT_S = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 24 * 3600,
    "week": 7 * 24 * 3600,
    "month": 30 * 24 * 3600,
    "year": 365 * 24 * 3600,
}
_UP = re.compile(r"^Up (?:About )?(an?|\d{1,6}) (second|minute|hour|day|week|month|year)s?\b")


def at_least_up_ns(status: str) -> int:
    """A lower bound in ns for the time since the container's start, 0 where there is none.

    Docker rounds (go-units `HumanDuration`: seconds and minutes down, hours to the nearest, the
    rest down from those), so half an hour is taken off from hours on.
    """
    match = _UP.match(status)
    if match is None:
        return 0
    number, unit = match.groups()
    count = 1 if number in ("a", "an") else int(number)
    seconds = count * _UNIT_S[unit]
    if _UNIT_S[unit] >= _UNIT_S["hour"]:
        seconds -= _UNIT_S["hour"] // 2
    return seconds * _SECOND_NS
