"""A running agent's notifications, on a host made of values: what begins, what ends, and once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from agent.actions.notify.receivers import Receiver, Sender
from agent.daemon.composition import Options, start
from agent.errors import AgentError
from agent.model.notification import Event, Message
from agent.model.removal import Action
from agent.policy.outbox import ReceiverTraits
from tests.unit.agent_scene import Host, alpine, signal_self, status
from tests.unit.daemon.test_disarmed import arm, disarm, jobs, rule

if TYPE_CHECKING:
    from pathlib import Path


class Mailbox:
    """What arrived: moment, event, state, container."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.down = False

    def receiver(self) -> Receiver:
        def send(messages: Sequence[Message], _sender: Sender, _dropped: int) -> None:
            if self.down:
                raise AgentError("It is down.")
            self.messages += messages

        return Receiver(ReceiverTraits("box"), "here", False, send)

    def of(self, event: Event) -> list[tuple[str, str]]:
        return [
            (one.alert.labels.get("container", ""), str(one.state))
            for one in self.messages
            if one.alert.event is event
        ]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    box = Mailbox()

    def at_once(work: Callable[[], object]) -> None:
        work()

    monkeypatch.setattr("agent.daemon.notifying.receivers_of", lambda _: (box.receiver(),))
    monkeypatch.setattr("agent.daemon.notifying.in_thread", at_once)
    return box


def run(host: Host, *rules: dict[str, Any], seconds: float, **settings: object) -> None:
    host.time.at(seconds, signal_self)
    outside = host.outside(policy__rule=rules, notify__journal=True, **settings)
    start(outside.config, Options(), outside.clock, outside.say, outside)


def test_a_rule_that_holds_is_one_message_and_its_end_another(host: Host, box: Mailbox) -> None:
    jobs(host)
    host.time.at(70, lambda: host.docker.containers.pop(f"{2:064x}"))
    run(host, rule(Action.NOTIFY), seconds=110)
    assert sorted(box.of(Event.RULE)[:2]) == [("job-1", "firing"), ("job-2", "firing")]
    # The one that is left claims less than `keep` lets stand: one of two is too many still.
    assert box.of(Event.RULE)[2:] == [("job-2", "resolved")]


def test_another_run_tells_nothing_again(host: Host, box: Mailbox) -> None:
    jobs(host)
    run(host, rule(Action.NOTIFY), seconds=30)
    told = list(box.messages)
    again = Host(host.directory)
    jobs(again)
    run(again, rule(Action.NOTIFY), seconds=50)
    assert box.messages == told


def test_an_engine_that_is_away_ends_nothing(host: Host, box: Mailbox) -> None:
    jobs(host)

    def away() -> None:
        host.docker.away = True

    host.time.at(25, away)
    run(host, rule(Action.NOTIFY), seconds=110)
    assert {state for _, state in box.of(Event.RULE)} == {"firing"}


def test_what_is_withheld_is_told_and_over_once_it_is_armed(host: Host, box: Mailbox) -> None:
    host.time.at(5, disarm(host, "migration"))
    host.time.at(6, lambda: jobs(host))
    host.time.at(70, arm(host))
    run(host, rule(Action.REMOVE), seconds=110)
    withheld = box.of(Event.WITHHELD)
    assert sorted(withheld) == [
        *[("job-1", "firing"), ("job-1", "resolved")],
        *[("job-2", "firing"), ("job-2", "resolved")],
    ]
    assert box.of(Event.DISARMED) == [("", "firing"), ("", "resolved")]
    assert box.of(Event.ACTION) == []
    (first, _) = [one for one in box.messages if one.alert.event is Event.DISARMED]
    assert first.alert.summary == "The policy is disarmed: by hand: migration."
    assert len(host.docker.removed) == 2


def test_actions_are_told_where_that_is_wanted(host: Host, box: Mailbox) -> None:
    jobs(host)
    run(host, rule(Action.STOP), seconds=50, notify__actions=True)
    assert sorted(box.of(Event.ACTION)) == [("job-1", "firing"), ("job-2", "firing")]
    assert {one.alert.labels["outcome"] for one in box.messages} == {"stopped"}


def test_what_was_gone_already_or_is_a_dry_run_is_no_action(host: Host, box: Mailbox) -> None:
    jobs(host)
    host.time.at(50, signal_self)
    outside = host.outside(
        policy__rule=[rule(Action.STOP)], notify__journal=True, notify__actions=True
    )
    start(outside.config, Options(dry_run=True), outside.clock, outside.say, outside)
    assert box.messages == []


def test_an_owner_that_does_not_give_up_is_told_once(host: Host, box: Mailbox) -> None:
    number = iter(range(100, 200))

    def come_back() -> None:
        # Whoever owns the name makes it again.
        host.docker.run(alpine(next(number), name="job-1"))

    jobs(host)
    for moment in range(5, 200, 20):
        host.time.at(moment, come_back)
    run(host, rule(Action.REMOVE), seconds=210)
    told = [one for one in box.messages if one.alert.event is Event.OWNER_RECREATES]
    assert [str(one.state) for one in told] == ["firing"]
    assert told[0].alert.labels["owner"] == "whatever makes job-1"


def test_what_waits_and_why_is_in_the_status(host: Host, box: Mailbox) -> None:
    box.down = True
    seen: dict[str, Any] = {}
    jobs(host)
    host.time.at(45, lambda: seen.update(status(host)))
    run(host, rule(Action.NOTIFY), seconds=50)
    assert seen["notify"] == {"box": 2}
    (problem,) = [one for one in seen["problems"] if one.startswith("notify")]
    assert problem.startswith("notify: box: 2 waiting, the oldest for ")
    assert problem.endswith("s: It is down.")
