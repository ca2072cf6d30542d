"""Moments and spans of time, as people write and read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from agent.errors import ConfigError

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_AGO = re.compile(r"(\d{1,9})\s*([smhd])(?:\s+ago)?")
_SECONDS = re.compile(r"\d:\d+:\d|[T ]\d{6}")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HINT = "Write it as 14:02, 14:02:11, 2026-11-28 14:02, or as a span ago: 90s, 30m, 2h, 7d."


def parse_at(text: str, now_ms: int) -> int:
    """`text` as Unix milliseconds, in local time where it names no zone.

    A time of day is today's, or yesterday's where today's is yet to come. What is left out counts
    to its end: 14:02 is the whole minute. Raises ConfigError.
    """
    words = text.strip()
    now = datetime.fromtimestamp(now_ms / 1000).astimezone()
    try:
        if match := _AGO.fullmatch(words):
            ago_ms = int(match[1]) * _UNIT_S[match[2]] * 1000
            datetime.fromtimestamp((now_ms - ago_ms) / 1000)  # noqa: DTZ006 - is it one at all?
            return now_ms - ago_ms
        if match := _CLOCK.fullmatch(words):
            hour, minute, second = (int(part or 0) for part in match.groups())
            begin = now.replace(tzinfo=None, hour=hour, minute=minute, second=second, microsecond=0)
            if begin > now.replace(tzinfo=None):
                begin -= timedelta(days=1)
            begin = begin.astimezone()
            whole = timedelta(seconds=1) if match[3] else timedelta(minutes=1)
        else:
            begin = datetime.fromisoformat(words).astimezone()
            whole = timedelta(seconds=1)
            if not _SECONDS.search(words):
                whole = timedelta(minutes=1) if ":" in words else timedelta(days=1)
        begin_ms = int(begin.timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(f"--at {text!r} is no moment.", _HINT) from error
    if begin_ms > now_ms:
        raise ConfigError(f"--at {text!r} is yet to come.", _HINT)
    return min(begin_ms + int(whole.total_seconds() * 1000) - 1, now_ms)


def moment(timestamp_ms: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Local date and time of Unix milliseconds; the number itself where a file or the database has
    one that is no moment."""
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000).astimezone().strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"


def span(milliseconds: int) -> str:
    """`2 d 3 h`, `5 min`, `42 s`: the two largest units."""
    left = max(0, milliseconds) // 1000
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"
