"""Budgets of error, and what a spent one does: armed → disarmed → armed again, with hysteresis.

Pure. A tick over a budget acts on nothing; two of the last ten disarm the policy, and fifteen good
ones in a row arm it again. What a host cannot tell (BPF is off or not ready, no canary is set)
spends nothing: the policy goes on as without budgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from agent.config_outlets import ProofSettings
from agent.model.attribution import AttributionCounts
from agent.model.container import ContainerTotals
from agent.model.proof import (
    ArmingWord,
    BudgetName,
    BudgetUse,
    ByHand,
    CanaryResult,
    ProofState,
)

WINDOW, DISARMING = 10, 2
"""So many bad ones of so many ticks disarm."""
ARMING = 15
"""So many good ticks in a row arm again."""
LEAST_CONFLICTS = 2
LEAST_LOST = 10
LEAST_UNEXPLAINED_PERCENT = 20.0
"""Below these (processes, records, percent of one CPU) a share of little is no evidence."""


def spending(
    counts: AttributionCounts,
    seen_records: int,
    totals: Iterable[ContainerTotals],
    canary: CanaryResult | None,
    settings: ProofSettings,
) -> tuple[BudgetUse, ...]:
    """What one tick used of each budget; without those of which nothing is known.

    `seen_records` is how many starts and exits BPF counted since the tick before.
    """
    found = [
        _agreement(counts, settings),
        _loss(counts, seen_records, settings),
        _unexplained(tuple(totals), settings),
        _canary(canary, settings),
    ]
    return tuple(one for one in found if one is not None)


def over(uses: Iterable[BudgetUse]) -> BudgetUse | None:
    """The one that is furthest over, None where none is."""
    return max((one for one in uses if one.is_over), key=lambda one: one.used, default=None)


def after_tick(state: ProofState, uses: Sequence[BudgetUse], now_ms: int) -> ProofState:
    """The state after one more tick."""
    worst = over(uses)
    recent = (*state.recent, worst is not None)[-max(WINDOW, ARMING) :]
    state = msgspec.structs.replace(state, recent=recent)
    spent = tuple(sorted({*state.spent, *(one.name for one in uses if one.is_over)}))
    if state.disarmed:
        if len(recent) >= ARMING and not any(recent[-ARMING:]):
            return ProofState(since_ms=now_ms, recent=recent, canary=state.canary, hand=state.hand)
        return msgspec.structs.replace(
            state, spent=spent, why=state.why if worst is None else in_words(worst)
        )
    if worst is None or sum(recent[-WINDOW:]) < DISARMING:
        return state
    return msgspec.structs.replace(
        state, disarmed=True, since_ms=now_ms, why=in_words(worst), spent=spent
    )


def armed_by_hand(state: ProofState, hand: ByHand | None) -> ProofState:
    """Somebody who arms the policy after it was disarmed begins with whole budgets.

    Once for each word: one that was taken up before a budget disarmed the policy ends nothing.
    """
    if hand is None or (hand.id and hand.id == state.hand):
        return state
    is_late = bool(hand.id) or hand.at_ms >= state.since_ms
    state = msgspec.structs.replace(state, hand=hand.id or state.hand)
    if not hand.armed or not state.disarmed or not is_late:
        return state
    return ProofState(since_ms=hand.at_ms, canary=state.canary, hand=state.hand)


def word_of(state: ProofState, hand: ByHand | None) -> ArmingWord:
    """Whether the policy acts: one that was disarmed by hand stays so until it is armed by hand."""
    if hand is not None and not hand.armed:
        return ArmingWord(False, hand.at_ms, f"by hand: {hand.why}" if hand.why else "by hand")
    if state.disarmed:
        return ArmingWord(False, state.since_ms, state.why)
    return ArmingWord(True, max(state.since_ms, hand.at_ms if hand else 0))


def in_words(use: BudgetUse) -> str:
    return f"the budget {use.name} is spent: {use.finding}"


def _agreement(counts: AttributionCounts, settings: ProofSettings) -> BudgetUse | None:
    spoke = counts.agree + counts.conflict
    if not spoke:
        return None
    share = counts.conflict / spoke if counts.conflict >= LEAST_CONFLICTS else 0.0
    finding = f"{counts.conflict} of {spoke} processes are disputed"
    return BudgetUse(BudgetName.AGREEMENT, _used(share, 1 - settings.agreement), finding)


def _loss(
    counts: AttributionCounts, seen_records: int, settings: ProofSettings
) -> BudgetUse | None:
    lost = counts.events_lost
    if not counts.agree + counts.conflict and not lost:
        return None
    share = lost / (lost + seen_records) if lost >= LEAST_LOST else 0.0
    finding = f"{lost} of {lost + seen_records} records are lost"
    return BudgetUse(BudgetName.LOSS, _used(share, settings.loss), finding)


def _unexplained(totals: Sequence[ContainerTotals], settings: ProofSettings) -> BudgetUse | None:
    known = [
        (one.cpu_unexplained_percent, one.cpu_percent)
        for one in totals
        if isinstance(one.cpu_unexplained_percent, float)
    ]
    if not known:
        return None
    nobodys = sum(abs(part) for part, _ in known)
    whole = sum(cpu for _, cpu in known)
    share = nobodys / max(whole, nobodys) if nobodys >= LEAST_UNEXPLAINED_PERCENT else 0.0
    finding = f"{nobodys:.1f} of {whole:.1f} % of a CPU is no process's"
    return BudgetUse(BudgetName.UNEXPLAINED, _used(share, settings.unexplained), finding)


def _canary(canary: CanaryResult | None, settings: ProofSettings) -> BudgetUse | None:
    if canary is None or not settings.canary_hours:
        return None
    finding = f"the canary's «{canary.line}» is off by {100 * canary.error:.1f} %"
    return BudgetUse(
        BudgetName.CANARY,
        _used(canary.error, settings.canary),
        finding if canary.error else "the canary is right",
    )


def _used(share: float, allowed: float) -> float:
    """1 is all of it; of a budget of 0 the least share is more than all."""
    if share <= 0:
        return 0.0
    return share / allowed if allowed > 0 else 1000.0
