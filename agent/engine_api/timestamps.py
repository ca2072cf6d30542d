"""Docker's way to write a moment, for whoever compares when a container was created."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.ASCII
)


def parse_time_ns(text: str) -> int:
    """Docker's time (RFC 3339, up to nanoseconds) on the wall clock. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    second, fraction, zone = match.groups()
    moment = datetime.fromisoformat(second + ("+00:00" if zone == "Z" else zone))
    whole = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return whole * 10**9 + int((fraction or "0").ljust(9, "0"))
