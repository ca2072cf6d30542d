"""Docker's words for how long a container has been up are a lower bound of it."""

from __future__ import annotations

import pytest

from agent.sources.engine.uptime import at_least_up_ns
from tests.unit.sources.engine.fake_engine import (
    SECOND,
)


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ("Up Less than a second", 0),
        ("Up 1 second", 1),
        ("Up 59 seconds", 59),
        ("Up About a minute", 60),
        ("Up 4 minutes (Paused)", 240),
        ("Up 4 minutes (healthy)", 240),
        ("Up About an hour", 1800),
        ("Up 2 hours", 5400),
        ("Up 2 days", 2 * 86400 - 1800),
        ("Up 3 weeks", 21 * 86400 - 1800),
        ("Up 2 months", 60 * 86400 - 1800),
        ("Up 2 years", 730 * 86400 - 1800),
        ("Exited (0) 2 hours ago", 0),
        ("Restarting (1) 3 minutes ago", 0),
        ("Created", 0),
        ("", 0),
        ("Up 99999999 years", 0),
        ("Up two hours", 0),
    ],
)
def test_dockers_words_for_how_long_are_a_lower_bound(status: str, seconds: int) -> None:
    assert at_least_up_ns(status) == seconds * SECOND
