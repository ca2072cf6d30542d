"""What the outcome of a decision says about the container."""

from __future__ import annotations

import pytest

from agent.model.container import Tier
from agent.model.removal import Decision, Outcome, Reason, Removal

DECISION = Decision("d", "a" * 64, "x", "alpine", 0, Tier.LOW, 1, Reason.EXITED, 0.0, 0.0)


@pytest.mark.parametrize(
    ("outcome", "error", "away"),
    [
        (Outcome.REMOVED, "", True),
        (Outcome.GONE, "", True),
        (Outcome.GONE, "it runs again", False),
        (Outcome.FAILED, "operation not permitted", False),
        (Outcome.DRY_RUN, "", False),
    ],
)
def test_only_what_was_left_alone_or_could_not_go_is_still_there(
    outcome: Outcome, error: str, away: bool
) -> None:
    assert Removal(DECISION, outcome, 0, error).is_away is away
