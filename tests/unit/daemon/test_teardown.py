"""What a stop and a cleanup say of the containers that they could not or would not remove."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from agent.daemon import teardown
from agent.errors import AgentError
from agent.model.container import Tier
from agent.model.removal import Decision, Outcome, Reason, Removal
from agent.util.terminal import Say


def removal(name: str, outcome: Outcome, error: str = "") -> Removal:
    decision = Decision(
        "d", name * 64, f"name-{name}", "image", 1, Tier.NONE, 1, Reason.STOP, 0.0, 0.0
    )
    return Removal(decision, outcome, 1, error)


@pytest.fixture
def ending(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What is printed where the removals end as given."""

    def call(*removals: Removal) -> str:
        monkeypatch.setattr(teardown, "remove_installation", lambda *_, **__: removals)
        teardown.remove_containers("unix:///x", "0" * 32, Say(sys.stdout))
        return capsys.readouterr().out

    return call


def test_one_that_is_not_what_was_decided_on_is_named_as_left_alone(
    ending: Callable[..., str],
) -> None:
    said = ending(
        removal("a", Outcome.REMOVED),
        removal("b", Outcome.GONE),
        removal("c", Outcome.GONE, "not governed any more"),
    )
    assert said == "name-c is left alone: not governed any more.\n"


def test_one_that_could_not_be_removed_is_an_error(ending: Callable[..., str]) -> None:
    with pytest.raises(AgentError, match="name-a could not be removed: busy"):
        ending(removal("a", Outcome.FAILED, "busy"))
