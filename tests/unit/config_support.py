"""What tests of the settings share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.errors import AgentError


def one_line(error: AgentError) -> None:
    """What a person is told: a sentence, and what to do."""
    assert error.message
    assert error.hint
    assert error.exit_status == 2
    assert "Traceback" not in str(error)
