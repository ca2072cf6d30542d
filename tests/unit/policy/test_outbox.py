"""What is sent to whom and when: once, in order, again until it arrived, and within bounds."""

from __future__ import annotations

from itertools import count

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.model.notification import Alert, AlertState, Event, Receipt
from agent.policy import outbox as rules
from agent.policy.outbox import Outbox, ReceiverTraits

NOW = 1_700_000_000_000
HOOK = ReceiverTraits("webhook")
MANAGER = ReceiverTraits("alertmanager", forgets=True)


def alert(key: str = "rule/a/1") -> Alert:
    return Alert(key, Event.RULE, f"{key} holds.", {"container": "web"})


def outbox(*receivers: ReceiverTraits, per_minute: int = 600) -> Outbox:
    numbers = count(1)
    return Outbox(receivers or (HOOK,), per_minute, lambda: f"m{next(numbers)}")


def send(one: Outbox, now: int, name: str = "webhook", problem: str = "") -> list[str]:
    """What a receiver gets (or refuses) now, as `id state`."""
    due = one.due(name, now)
    one.ended([Receipt(name, each.message.id, problem) for each in due], now)
    return [f"{each.message.id} {each.message.state}" for each in due]


def test_an_alert_that_lasts_is_one_message_however_often_it_is_seen() -> None:
    one = outbox()
    assert [one.fire(alert(), NOW + n) for n in range(3)] == [True, False, False]
    assert send(one, NOW) == ["m1 firing"]
    assert send(one, NOW + 10**9) == []


def test_its_end_is_one_message_too_and_then_it_may_begin_again() -> None:
    one = outbox()
    one.fire(alert(), NOW)
    assert one.resolve("rule/a/1", NOW + 5)
    assert not one.resolve("rule/a/1", NOW + 6)
    # Nobody is told of the end before the begin: one after the other.
    assert send(one, NOW + 7) == ["m1 firing"]
    assert send(one, NOW + 7) == ["m2 resolved"]
    assert one.fire(alert(), NOW + 8)
    assert send(one, NOW + 9) == ["m3 firing"]


def test_what_failed_comes_again_under_the_same_id_after_a_growing_pause() -> None:
    one = outbox()
    one.fire(alert(), NOW)
    now, pauses = NOW, []
    for _ in range(8):
        assert send(one, now, problem="no") == ["m1 firing"]
        before = now
        while not (due := one.due("webhook", now)):
            now += 1000
        assert due[0].message.id == "m1"
        pauses.append((now - before) // 1000)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    assert one.backlogs(now)[0].problem == "no"
    assert send(one, now) == ["m1 firing"]
    assert one.backlogs(now)[0].problem == ""
    assert one.state.pending == ()


def test_a_message_that_is_refused_for_ever_holds_no_other_up() -> None:
    one = outbox()
    one.fire(alert("poison"), NOW)
    one.fire(alert("good"), NOW)
    due = one.due("webhook", NOW)
    assert [each.message.alert.key for each in due] == ["poison", "good"]
    # A delivery stops at its first failure, so the good one was not tried.
    one.ended([Receipt("webhook", due[0].message.id, "400")], NOW)
    due = one.due("webhook", NOW + 5000)
    assert due[0].message.alert.key == "good"


def test_a_receiver_that_forgets_is_reminded_while_it_lasts_and_not_after() -> None:
    one = outbox(MANAGER, HOOK)
    one.fire(alert(), NOW)
    assert send(one, NOW, "alertmanager") == ["m1 firing"]
    assert send(one, NOW + 59_999, "alertmanager") == []
    assert send(one, NOW + 60_000, "alertmanager") == ["m1 firing"]
    assert send(one, NOW + 60_000, "webhook") == ["m1 firing"]
    assert [each.waiting for each in one.backlogs(NOW)] == [0, 0]
    one.resolve("rule/a/1", NOW + 70_000)
    assert send(one, NOW + 70_000, "alertmanager") == ["m2 resolved"]
    assert send(one, NOW + 10**8, "alertmanager") == []


def test_one_that_ended_before_it_could_be_told_is_told_whole() -> None:
    one = outbox(MANAGER)
    one.fire(alert(), NOW)
    assert send(one, NOW, "alertmanager", problem="down") == ["m1 firing"]
    one.resolve("rule/a/1", NOW + 1000)
    assert send(one, NOW + 5000, "alertmanager") == ["m1 firing"]
    assert send(one, NOW + 5000, "alertmanager") == ["m2 resolved"]
    assert one.state.pending == ()


def test_what_only_happened_is_not_kept_as_lasting() -> None:
    one = outbox(MANAGER)
    one.happened(alert(), NOW)
    one.happened(alert(), NOW)
    assert dict(one.active) == {}
    assert send(one, NOW, "alertmanager") == ["m1 firing"]
    assert send(one, NOW, "alertmanager") == ["m2 firing"]
    assert one.state.pending == ()


def test_no_more_than_the_rate_goes_out_and_the_rest_waits() -> None:
    one = outbox(per_minute=4)
    for number in range(10):
        one.fire(alert(f"k{number}"), NOW)
    assert len(send(one, NOW)) == 4
    assert send(one, NOW + 14_999) == []
    assert len(send(one, NOW + 15_000)) == 1
    assert len(send(one, NOW + 10 * 60_000)) == 4
    assert one.backlogs(NOW)[0].waiting == 1


def test_too_many_cost_the_oldest_and_are_counted() -> None:
    one = outbox()
    for number in range(rules.MOST_PENDING + 7):
        one.happened(alert(f"k{number}"), NOW + number)
    assert len(one.state.pending) == rules.MOST_PENDING
    assert one.state.pending[0].message.alert.key == "k7"
    assert one.backlogs(NOW)[0].dropped == 7


def test_alerts_without_number_cost_no_memory_without_bound() -> None:
    one = outbox()
    for number in range(rules.MOST_PENDING + 7):
        one.fire(alert(f"k{number}"), NOW)
    assert len(one.active) == rules.MOST_PENDING
    assert one.backlogs(NOW)[0].dropped == 7


def test_a_week_is_enough_for_one_message() -> None:
    one = outbox()
    one.fire(alert(), NOW)
    send(one, NOW, problem="no")
    assert send(one, NOW + rules.KEPT_MS) == []
    assert one.backlogs(NOW)[0].dropped == 1


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    one = outbox(MANAGER)
    one.fire(alert(), NOW)
    send(one, NOW, "alertmanager", problem="no")
    assert send(one, NOW - 3_600_000, "alertmanager") == ["m1 firing"]


def test_another_run_goes_on_where_the_last_one_was() -> None:
    one = outbox(MANAGER, HOOK)
    one.fire(alert(), NOW)
    send(one, NOW, "alertmanager")
    send(one, NOW, "webhook", problem="down")
    two = outbox(MANAGER, HOOK)
    two.resume(one.state)
    assert two.state == rules.OutboxState(
        one.state.active,
        tuple(msgspec.structs.replace(each, next_ms=0) for each in one.state.pending),
    )
    assert not two.fire(alert(), NOW + 1)
    assert send(two, NOW + 1, "webhook") == ["m1 firing"]
    # Alertmanager may have been killed meanwhile: it is told at once.
    assert send(two, NOW + 1, "alertmanager") == ["m1 firing"]


def test_what_waits_for_a_receiver_that_is_set_no_more_is_counted() -> None:
    one = outbox(HOOK)
    one.fire(alert(), NOW)
    two = outbox(MANAGER)
    two.resume(one.state)
    assert two.state.dropped == {"webhook": 1}


KEYS = st.sampled_from("abc")
STEP = st.tuples(st.sampled_from(["fire", "resolve", "send", "fail", "restart"]), KEYS)


@given(st.lists(STEP, max_size=40), st.booleans())
def test_whatever_fails_each_receiver_hears_begins_and_ends_in_turn_and_none_is_missing(
    steps: list[tuple[str, str]], forgets: bool
) -> None:
    traits = ReceiverTraits("r", forgets=forgets)
    numbers = count(1)
    one = Outbox([traits], 600, lambda: f"m{next(numbers)}")
    now = NOW
    happened: dict[str, list[str]] = {key: [] for key in "abc"}
    heard: dict[str, list[str]] = {key: [] for key in "abc"}

    def hear() -> None:
        for each in one.due("r", now):
            key, state = each.message.alert.key, str(each.message.state)
            if each.delivered:  # a reminder of what it has
                assert heard[key][-1] == state == AlertState.FIRING
            else:
                heard[key].append(state)
            one.ended([Receipt("r", each.message.id)], now)

    for what, key in steps:
        now += 400_000
        if what == "fire" and one.fire(alert(key), now):
            happened[key].append("firing")
        elif what == "resolve" and one.resolve(key, now):
            happened[key].append("resolved")
        elif what == "send":
            hear()
        elif what == "fail":
            due = one.due("r", now)
            one.ended([Receipt("r", each.message.id, "no") for each in due[:1]], now)
        elif what == "restart":
            kept = one.state
            one = Outbox([traits], 600, lambda: f"m{next(numbers)}")
            one.resume(kept)
    for _ in range(100):
        now += 400_000
        hear()
    assert heard == happened
