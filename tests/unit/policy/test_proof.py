"""Budgets of error: what spends them, what does not, and how a spent one recovers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config_outlets import ProofSettings
from agent.model.attribution import AttributionCounts
from agent.model.container import ContainerTotals, Unknown
from agent.model.proof import BudgetName, BudgetUse, ByHand, CanaryResult, ProofState
from agent.policy import proof
from tests.unit.store.builders import totals

DEFAULTS = ProofSettings()
NO_COUNTS = AttributionCounts()
GOOD = (BudgetUse(BudgetName.AGREEMENT, 0.2, "fine"),)
BAD = (BudgetUse(BudgetName.LOSS, 1.5, "30 of 40 records are lost"),)


def busy(cpu: float, unexplained: float | Unknown) -> ContainerTotals:
    return replace(totals(), cpu_percent=cpu, cpu_unexplained_percent=unexplained)


def used(
    name: BudgetName,
    counts: AttributionCounts = NO_COUNTS,
    seen: int = 0,
    of: tuple[ContainerTotals, ...] = (),
    canary: CanaryResult | None = None,
    settings: ProofSettings = DEFAULTS,
) -> float | None:
    uses = {one.name: one.used for one in proof.spending(counts, seen, of, canary, settings)}
    return uses.get(name)


def test_the_defaults_are_those_of_the_documents() -> None:
    assert (DEFAULTS.agreement, DEFAULTS.loss, DEFAULTS.unexplained) == (0.95, 0.02, 0.10)
    assert (DEFAULTS.canary, DEFAULTS.canary_hours) == (0.05, 0)


def test_a_host_without_bpf_spends_nothing() -> None:
    counts = AttributionCounts(unverified=100, strayed=3, moved=2)
    of = (busy(300.0, Unknown.CANNOT), busy(50.0, Unknown.NOT_YET))
    assert proof.spending(counts, 0, of, None, DEFAULTS) == ()


@pytest.mark.parametrize(
    ("agree", "conflict", "share"),
    [(100, 0, 0.0), (0, 5, 20.0), (95, 5, 1.0), (94, 6, 1.2), (1, 1, 0.0), (5, 1, 0.0)],
)
def test_agreement_is_of_those_on_which_both_witnesses_spoke(
    agree: int, conflict: int, share: float
) -> None:
    """One process that is disputed is spared by itself and says nothing of the others."""
    counts = AttributionCounts(agree=agree, conflict=conflict, unverified=1000)
    assert used(BudgetName.AGREEMENT, counts) == pytest.approx(share)


@pytest.mark.parametrize(
    ("lost", "seen", "share"),
    [(0, 10, 0.0), (9, 0, 0.0), (10, 0, 50.0), (20, 980, 1.0), (100, 100, 25.0)],
)
def test_loss_is_a_share_of_what_there_was(lost: int, seen: int, share: float) -> None:
    counts = AttributionCounts(agree=5, events_lost=lost, events_missed=lost // 2)
    assert used(BudgetName.LOSS, counts, seen) == pytest.approx(share)


def test_what_is_corrected_or_late_is_no_loss() -> None:
    counts = AttributionCounts(agree=5, events_corrected=10**6, events_late=10**6)
    assert used(BudgetName.LOSS, counts, 10) == 0


@pytest.mark.parametrize(
    ("parts", "share"),
    [
        ([(100.0, 0.5)], 0.0),
        ([(100.0, 19.9)], 0.0),
        ([(200.0, 20.0)], 1.0),
        ([(200.0, 15.0), (200.0, -25.0)], 1.0),
        ([(0.0, 50.0)], 10.0),
    ],
)
def test_unexplained_cpu_counts_without_its_sign(
    parts: list[tuple[float, float]], share: float
) -> None:
    of = tuple(busy(*one) for one in parts)
    assert used(BudgetName.UNEXPLAINED, of=of) == pytest.approx(share)


def test_a_canary_spends_by_how_far_it_is_off_and_only_where_one_is_set() -> None:
    hourly = ProofSettings(canary_hours=1)
    off = CanaryResult(1, 0.1, "CPU")
    assert used(BudgetName.CANARY, canary=off, settings=hourly) == pytest.approx(2.0)
    assert used(BudgetName.CANARY, canary=CanaryResult(1, 0.0), settings=hourly) == 0
    assert used(BudgetName.CANARY, canary=off) is None
    assert used(BudgetName.CANARY, settings=hourly) is None


def test_a_budget_of_one_is_never_spent_and_one_of_nothing_by_the_least() -> None:
    never = ProofSettings(agreement=0, loss=1, unexplained=1, canary=1, canary_hours=1)
    uses = proof.spending(
        AttributionCounts(conflict=50, events_lost=50),
        0,
        (busy(0.0, 400.0),),
        CanaryResult(1, 1.0, "all"),
        never,
    )
    assert [one.name for one in uses] == list(BudgetName)
    assert proof.over(uses) is None
    strict = ProofSettings(agreement=1)
    assert proof.over(proof.spending(AttributionCounts(999, 2), 0, (), None, strict)) is not None


def run(*ticks: tuple[BudgetUse, ...]) -> list[bool]:
    """Whether it is disarmed after each tick."""
    state = ProofState()
    found = []
    for number, uses in enumerate(ticks):
        state = proof.after_tick(state, uses, 1000 + number)
        found.append(state.disarmed)
    return found


def test_the_second_bad_tick_disarms_and_one_alone_does_not() -> None:
    assert run(BAD, BAD) == [False, True]
    assert run(BAD, *[GOOD] * 9, BAD) == [False] * 11
    assert run(BAD, *[GOOD] * 8, BAD)[-1]


def test_fifteen_good_ticks_in_a_row_arm_again_and_one_bad_begins_them_anew() -> None:
    assert run(BAD, BAD, *[GOOD] * 15)[-2:] == [True, False]
    assert run(BAD, BAD, *[GOOD] * 14, BAD, *[GOOD] * 14)[-1]


def test_what_cannot_be_known_counts_as_good() -> None:
    assert not run(BAD, BAD, *[()] * 15)[-1]


def test_why_and_since_when_is_kept() -> None:
    state = proof.after_tick(proof.after_tick(ProofState(), BAD, 7), BAD, 8)
    assert (state.since_ms, state.why) == (
        8,
        "the budget loss is spent: 30 of 40 records are lost",
    )
    word = proof.word_of(state, None)
    assert (word.armed, word.since_ms, word.why) == (False, 8, state.why)


def test_which_budgets_are_spent_is_kept_until_all_have_recovered() -> None:
    other = (BudgetUse(BudgetName.AGREEMENT, 2.0, "9 of 10 processes are disputed"),)
    state = ProofState()
    for uses in (BAD, BAD, other, *[GOOD] * 14):
        state = proof.after_tick(state, uses, 9)
    assert state.spent == (BudgetName.AGREEMENT, BudgetName.LOSS)
    assert proof.after_tick(state, GOOD, 9).spent == ()


def test_by_hand_goes_before_the_budgets() -> None:
    hand = ByHand(armed=False, at_ms=5, why="maintenance")
    assert proof.word_of(ProofState(), hand).why == "by hand: maintenance"
    assert not proof.word_of(ProofState(), hand).armed
    # The budgets cannot arm what somebody disarmed.
    assert not proof.word_of(proof.armed_by_hand(ProofState(), hand), hand).armed


def test_arming_by_hand_begins_with_whole_budgets_and_not_twice() -> None:
    spent = proof.after_tick(proof.after_tick(ProofState(), BAD, 100), BAD, 200)
    early, late = ByHand(armed=True, at_ms=150), ByHand(armed=True, at_ms=250)
    assert proof.armed_by_hand(spent, early).disarmed
    fresh = proof.armed_by_hand(spent, late)
    assert not fresh.disarmed
    assert proof.word_of(fresh, late).armed
    again = proof.after_tick(proof.after_tick(fresh, BAD, 300), BAD, 400)
    assert proof.armed_by_hand(again, late).disarmed


@pytest.mark.parametrize("at_ms", [0, 10**15])
def test_each_word_by_hand_is_taken_up_once_however_the_clock_was_set(at_ms: int) -> None:
    """Written with a clock that was behind, or far ahead of the one that disarms."""
    spent = proof.after_tick(proof.after_tick(ProofState(), BAD, 100), BAD, 200)
    hand = ByHand(armed=True, at_ms=at_ms, id="one")
    fresh = proof.armed_by_hand(spent, hand)
    assert not fresh.disarmed
    again = proof.after_tick(proof.after_tick(fresh, BAD, 300), BAD, 400)
    assert proof.armed_by_hand(again, hand).disarmed
    recovered = again
    for _ in range(15):
        recovered = proof.after_tick(recovered, GOOD, 500)
    assert not recovered.disarmed
    once_more = proof.after_tick(proof.after_tick(recovered, BAD, 600), BAD, 700)
    assert proof.armed_by_hand(once_more, hand).disarmed
    assert not proof.armed_by_hand(once_more, ByHand(armed=True, at_ms=at_ms, id="two")).disarmed


def test_a_word_by_hand_while_armed_ends_no_later_disarming() -> None:
    hand = ByHand(armed=True, at_ms=10**15, id="one")
    state = proof.armed_by_hand(ProofState(), hand)
    state = proof.after_tick(proof.after_tick(state, BAD, 100), BAD, 200)
    assert proof.armed_by_hand(state, hand).disarmed


@given(st.lists(st.booleans(), max_size=60))
def test_it_never_flaps(ticks: list[bool]) -> None:
    """Between a disarming and the next arming lie fifteen ticks at least."""
    states = run(*[BAD if bad else GOOD for bad in ticks])
    changes = [n for n in range(1, len(states)) if states[n] != states[n - 1]]
    for begin, end in pairwise(changes):
        if states[begin]:
            assert end - begin >= proof.ARMING
