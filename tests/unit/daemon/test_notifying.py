"""Messages beside the loop: stored before they are sent, again after a kill, in nobody's way."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.actions.notify.receivers import Receiver, Sender
from agent.config_outlets import NotifySettings
from agent.daemon.notifying import Notifying
from agent.errors import AgentError, StoreError
from agent.model.notification import Alert, Event, Message
from agent.policy.outbox import ReceiverTraits
from agent.store.store import Store
from tests.unit.store.builders import SECOND_NS, FakeClock, a_tick, ask, open_store

SETTINGS = NotifySettings(per_minute=60)
SENDER = Sender("host-1", "f" * 32, lambda: 0)
ALERT = Alert("rule/ci/abc", Event.RULE, "It holds.", {"container": "web"})


class Inbox:
    """A receiver that refuses while `down`."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.states: list[str] = []
        self.down = False

    def receiver(self, *, forgets: bool = False) -> Receiver:
        def send(messages: Sequence[Message], _sender: Sender, _dropped: int) -> None:
            self.ids += [one.id for one in messages]
            if self.down:
                raise AgentError("It is down.")
            self.states += [str(one.state) for one in messages]

        return Receiver(ReceiverTraits("inbox", forgets), "here", False, send)


def at_once(work: Callable[[], object]) -> None:
    work()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.db"


def notifying(
    store: Store,
    inbox: Inbox,
    clock: FakeClock,
    begin: Callable[[Callable[[], object]], None] = at_once,
) -> Notifying:
    return Notifying([inbox.receiver()], SENDER, SETTINGS, store, clock, begin)


def looks(one: Notifying, times: int = 2) -> None:
    """One look begins a delivery, the next takes up what it came to."""
    for _ in range(times):
        one.look()


def test_a_message_is_in_the_database_with_the_tick_that_it_is_of(path: Path) -> None:
    with open_store(path) as store:
        one = notifying(store, Inbox(), FakeClock())
        one.fire(ALERT)
        store.write_tick(a_tick())
        (row,) = ask(path, "SELECT receiver, dedup_key, state, attempts, payload FROM outbox")
        assert row[:4] == ("inbox", "rule/ci/abc", "firing", 0)
        assert json.loads(row[4])["alert"]["labels"] == {"container": "web"}
        assert ask(path, "SELECT dedup_key FROM alerts") == [("rule/ci/abc",)]


def test_what_was_delivered_leaves_the_database_and_the_alert_stays_until_it_ends(
    path: Path,
) -> None:
    inbox = Inbox()
    with open_store(path) as store:
        one = notifying(store, inbox, FakeClock())
        one.fire(ALERT)
        store.write_tick(a_tick())
        looks(one)
        store.write_tick(a_tick())
        assert ask(path, "SELECT * FROM outbox") == []
        assert ask(path, "SELECT dedup_key FROM alerts") == [("rule/ci/abc",)]
        one.resolve(ALERT.key)
        looks(one)
        store.write_tick(a_tick())
        assert ask(path, "SELECT * FROM alerts") == []
    assert inbox.states == ["firing", "resolved"]


def test_after_a_kill_what_was_stored_is_sent_with_the_same_id(path: Path) -> None:
    inbox, clock = Inbox(), FakeClock()
    killed = open_store(path)
    one = notifying(killed, inbox, clock)
    one.fire(ALERT)
    killed.write_tick(a_tick())
    looks(one)  # delivered, and killed before a tick has stored that
    del killed
    with open_store(path) as store:
        two = notifying(store, inbox, clock)
        looks(two)
        assert inbox.states == ["firing", "firing"]
        assert len(set(inbox.ids)) == 1
        two.fire(ALERT)
        looks(two)
        assert inbox.states == ["firing", "firing"]


def test_a_tick_that_is_not_stored_stores_no_message_and_the_next_one_does(path: Path) -> None:
    with open_store(path) as store:
        one = notifying(store, Inbox(), FakeClock())
        store.write_tick(a_tick())
        one.fire(ALERT)
        fails = _Failing()
        store.kept.append(fails)
        with pytest.raises(StoreError):
            store.write_tick(a_tick())
        assert ask(path, "SELECT * FROM outbox") == []
        fails.over = True
        store.write_tick(a_tick())
        assert len(ask(path, "SELECT * FROM outbox")) == 1


class _Failing:
    over = False

    def write(self, _connection: object) -> None:
        if not self.over:
            raise ValueError("no")

    def written(self) -> None:
        pass


def test_a_database_that_was_replaced_gets_all_of_it_again(path: Path) -> None:
    inbox = Inbox()
    inbox.down = True
    with open_store(path) as store:
        one = notifying(store, inbox, FakeClock())
        one.fire(ALERT)
        store.write_tick(a_tick())
        for side in path.parent.glob("metrics.db*"):
            side.unlink()
        store.write_tick(a_tick())
        assert len(ask(path, "SELECT * FROM outbox")) == 1


def test_a_delivery_that_does_not_end_holds_up_nothing_and_no_second_one_begins(
    path: Path,
) -> None:
    begun: list[Callable[[], object]] = []
    clock = FakeClock()
    inbox = Inbox()
    with open_store(path) as store:
        one = notifying(store, inbox, clock, begun.append)
        one.fire(ALERT)
        looks(one, 5)
        clock.pass_time(600 * SECOND_NS)
        looks(one, 5)
        assert len(begun) == 1
        (problem,) = one.problems
        assert problem.startswith("notify: inbox: 1 waiting, the oldest for 600 s")
        begun[0]()
        looks(one)
        assert one.problems == []


def test_what_does_not_arrive_is_a_problem_with_its_cause_until_it_does(path: Path) -> None:
    inbox, clock = Inbox(), FakeClock()
    inbox.down = True
    with open_store(path) as store:
        one = notifying(store, inbox, clock)
        one.fire(ALERT)
        looks(one)
        clock.pass_time(4 * SECOND_NS)
        assert one.problems == ["notify: inbox: 1 waiting, the oldest for 4 s: It is down."]
        inbox.down = False
        clock.pass_time(SECOND_NS)
        looks(one)
        assert one.problems == []
    assert len(set(inbox.ids)) == 1


def test_without_a_thread_it_is_tried_again(path: Path) -> None:
    def none_left(_work: Callable[[], object]) -> None:
        raise RuntimeError("can't start new thread")

    clock = FakeClock()
    with open_store(path) as store:
        one = notifying(store, Inbox(), clock, none_left)
        one.fire(ALERT)
        looks(one)
        assert "No thread is left." in one.problems[0]


def test_what_was_given_up_is_counted_over_a_restart(path: Path) -> None:
    with open_store(path) as store:
        one = notifying(store, Inbox(), FakeClock())
        for number in range(503):
            one.happened(Alert(f"k{number}", Event.ACTION, "x"))
        store.write_tick(a_tick())
    with open_store(path) as store:
        two = notifying(store, Inbox(), FakeClock())
        assert any("inbox: 3 given up" in each for each in two.problems)


def test_a_stop_stores_what_is_left(path: Path) -> None:
    inbox = Inbox()
    inbox.down = True
    with open_store(path) as store:
        one = notifying(store, inbox, FakeClock())
        one.fire(ALERT)
        looks(one, 1)
        one.close()
    assert [row[0] for row in ask(path, "SELECT attempts FROM outbox")] == [1]


def test_rows_that_are_none_of_ours_are_left_out(path: Path) -> None:
    with open_store(path) as store:
        one = notifying(store, Inbox(), FakeClock())
        one.fire(ALERT)
        store.write_tick(a_tick())
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO outbox VALUES ('inbox', 'x', 'k', 'firing', 1, 1, 0, 0, '{')"
        )
        connection.execute("INSERT INTO alerts VALUES ('k', x'00')")
    with open_store(path) as store:
        two = notifying(store, Inbox(), FakeClock())
        assert len(two.outbox.state.pending) == 1
        assert list(two.outbox.active) == ["rule/ci/abc"]
