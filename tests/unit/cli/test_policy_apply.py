"""`agent policy apply` twice, beside another, and ended by a signal."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from agent.cli.commands import policy_apply, policy_look
from agent.model.proof import ByHand
from agent.model.removal import Outcome, Removal
from agent.store import by_hand, handover
from tests.unit.cli.test_policy_look import Agent, Remover, installed, planned, remover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.model.removal import Decision

__all__ = ["installed", "remover"]


def test_the_same_plan_twice_before_the_next_tick_acts_once(
    installed: Agent, remover: Remover
) -> None:
    file = planned(installed)
    assert installed("apply", str(file))[0] == 0
    before = list(remover.done)
    assert before
    status, out, _ = installed("apply", str(file))
    assert status == 0
    assert remover.done == before
    assert "job-1: left" in out
    assert out.count("done already; it acts again once this was false for a moment") == 2
    assert "done already" in installed("why", "job-1")[1]
    assert len(handover.take(installed.database.parent)) == 1, "the agent's to take still"


def test_a_plan_that_an_editor_gave_a_mark_of_the_byte_order_is_the_same_plan(
    installed: Agent, remover: Remover
) -> None:
    file = planned(installed)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert installed("apply", str(file))[0] == 0
    assert remover.done


def test_one_beside_another_is_refused(installed: Agent, remover: Remover) -> None:
    file = planned(installed)
    lock = os.open(installed.database.parent / "policy-apply.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    status, _, err = installed("apply", str(file))
    os.close(lock)
    assert (status, remover.done) == (1, [])
    assert "Another `agent policy apply` is at work" in err


class Signalled(Remover):
    """A signal comes while the first is under way; the rest ends by the waiting for it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.waited_s = 0.0

    def remove(self, decisions: Sequence[Decision], deadline_ns: int) -> list[Removal]:
        self.done += decisions
        signal.raise_signal(self.number)
        assert self.hurry(), "nothing is waited for any more"
        return []

    def close(self, wait_s: float) -> list[Removal]:
        self.waited_s = wait_s
        return [Removal(one, Outcome.STOPPED, 1) for one in self.done]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_action_without_its_record(
    installed: Agent, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    ended = Signalled(number)
    monkeypatch.setattr(policy_apply, "Remover", lambda *_: ended)
    monkeypatch.setattr(policy_look.Look, "is_stale", lambda *_: False)
    before = signal.signal(number, signal.default_int_handler)
    try:
        _, out, _ = installed("apply", str(planned(installed)))
    finally:
        signal.signal(number, before)
    assert "job-1: stopped" in out
    assert ended.waited_s > 0
    (left,) = handover.take(installed.database.parent)
    assert [one.outcome for one in left.removals] == [Outcome.NOTIFIED, Outcome.STOPPED]


def test_an_error_while_it_acts_leaves_the_record_too(
    installed: Agent, remover: Remover, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Removal]:
        raise KeyboardInterrupt

    monkeypatch.setattr(remover, "remove", broken)
    installed("apply", str(planned(installed)))
    assert len(handover.take(installed.database.parent)) == 1


def test_a_plan_says_that_the_policy_is_disarmed(installed: Agent) -> None:
    assert "disarmed" not in installed("plan")[1]
    by_hand.write(installed.database.parent, ByHand(False, 1, "migration", "a"))
    assert "The policy is disarmed (by hand: migration)" in installed("plan")[1]
    assert json.loads(installed("plan", "--json")[1])["decisions"]
