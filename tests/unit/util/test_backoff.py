"""The pauses after failures: what everybody who tries again waits by."""

from __future__ import annotations

import pytest

from agent.util.backoff import Backoff

BACKOFF = Backoff(20, 100)


@pytest.mark.parametrize(
    ("failures", "pause"), [(0, 0), (1, 20), (2, 40), (3, 80), (4, 100), (5, 100), (10**9, 100)]
)
def test_each_failure_in_a_row_doubles_the_pause_up_to_the_longest(
    failures: int, pause: int
) -> None:
    assert BACKOFF.pause_ns(failures) == pause


def test_one_pause_is_never_longer_than_the_longest() -> None:
    assert Backoff(20, 5).pause_ns(1) == 5
