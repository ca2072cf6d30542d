"""A whole span of the history decided on again, and what came of it. Pure.

Under the rules of then each recorded decision is looked for among those that are made here; under
others it is told what would have gone, when, and what that would have given back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.model.container import ContainerKey
from agent.model.past import (
    PastContainer,
    PastDecision,
    PastPass,
    PastRow,
    PastState,
    PastTick,
)
from agent.model.removal import BUILT_IN_NAMES, Action, Decision, Reason, is_away
from agent.policy import original
from agent.policy.original import RulesInForce
from agent.policy.reclaim import BY_HAND
from agent.policy.replay import Redecider
from agent.policy.replay_match import PATIENCE_MS, DecidedKey, Unrecorded, key_of
from agent.policy.rules import RuleSet

MOST_SHOWN = 1000
"""Of differences and of actions; beyond these they are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One decision that is in the history or here alone."""

    timestamp_ms: int
    container_id: str
    container_name: str
    action: str
    rule: str
    recorded: bool
    """Whether it is the history that has it."""
    reason: str


@dataclass(frozen=True, slots=True)
class WouldAct:
    """One thing that other rules would have done."""

    timestamp_ms: int
    container_id: str
    container_name: str
    action: str
    rule: str
    held_mb: float
    unsure: bool
    """No rule claimed it then: whether a label protected it is not stored."""
    removed_ms: int | None = None
    """When it was really taken away, within the span."""


@dataclass(slots=True)
class Replayed:
    """What came of it."""

    from_ms: int | None = None
    """The first tick, and the last."""
    to_ms: int | None = None
    ticks: int = 0
    seen_since_ms: int | None = None
    """The first tick that has a container."""
    claims_since_ms: int | None = None
    """From when on rows say which rule claims; before, only the built-in set's tiers are known."""
    states_since_ms: int | None = None
    """From when on each container's state, start and health are stored."""
    rules_since_ms: int | None = None
    """From when on the rules of then are stored; before, those of the settings are taken."""
    recorded: int = 0
    reproduced: int = 0
    not_of_rules: int = 0
    """Of a stop, a clean-up or a plan by hand: no rule decided them."""
    differences: list[Difference] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    actions: list[WouldAct] = field(default_factory=list)
    action_count: int = 0
    most_given_back_mb: float = 0.0
    """The most that those would have held, at one tick, which would have gone before it."""
    most_given_back_ms: int | None = None


class _Span:
    """What both ways of replaying do."""

    def __init__(self, rules: RuleSet, longest_gap_ns: int, *, as_claimed: bool) -> None:
        self.result = Replayed()
        self._again = Redecider(rules, longest_gap_ns, as_claimed=as_claimed)

    def _note(self, tick: PastTick) -> None:
        found = self.result
        if found.from_ms is None:
            found.from_ms = tick.timestamp_ms
        found.to_ms = tick.timestamp_ms
        found.ticks += 1
        if found.seen_since_ms is None and tick.rows:
            found.seen_since_ms = tick.timestamp_ms
        if found.claims_since_ms is None and any(one.rule for one in tick.containers):
            found.claims_since_ms = tick.timestamp_ms

    def state(self, one: PastState) -> None:
        """What seldom changes of a container, from then on."""
        if self.result.states_since_ms is None:
            self.result.states_since_ms = one.timestamp_ms
        self._again.state(one)

    @property
    def lacks_states(self) -> bool:
        """Whether of some container no state was stored: its figures had to tell."""
        return self._again.lacks_states


class Comparison(_Span):
    """Under the rules of then."""

    def __init__(self, rules: RuleSet, longest_gap_ns: int) -> None:
        super().__init__(rules, longest_gap_ns, as_claimed=True)
        self._rules = rules
        self.used = [rules]
        """All that decided, the first ones first."""
        self._waiting = Unrecorded()
        """Decided here, and no row of it yet."""
        self._rows: Sequence[PastRow] = ()
        self._tick_ms = 0
        self._is_unsure = False

    def tick(self, tick: PastTick) -> None:
        self._note(tick)
        self._again.goes(self._waiting.under_way)
        due = self._again.tick(tick)
        self._tick_ms = tick.timestamp_ms
        self._is_unsure = tick.disputed is None and not self._again.knows_states
        self._rows = tick.rows
        if due:
            self._decided(due, tick.timestamp_ms)
        if tick.engine_answered and self._waiting.any:
            keys = {key_of(one) for one in due}
            self._waiting.seen(keys, tick.timestamp_ms)
            self._give_up(keys, tick.timestamp_ms)

    def rules(self, one: RulesInForce) -> None:
        """Others decided from then on; the first ones, before the span, for all of it."""
        if self.result.rules_since_ms is None:
            self.result.rules_since_ms = one.timestamp_ms
        self._rules = original.rule_set(one.settings)
        if not self.result.ticks:
            self.used.clear()
        self.used.append(self._rules)
        self._again.use(self._rules)

    def host_pass(self, one: PastPass) -> None:
        self._again.goes(self._waiting.under_way)
        self._decided(self._again.host_pass(one), one.timestamp_ms)

    def decision(self, row: PastDecision) -> None:
        """A row of `deletions`."""
        found = self.result
        is_of_rule = row.reason != Reason.STOP and not row.decision.startswith(BY_HAND)
        if not is_of_rule:
            found.not_of_rules += 1
        else:
            found.recorded += 1
            key = (row.engine, row.container_id, row.action)
            decision = self._waiting.take(key, row.rule)
            is_same = decision is not None and row.rule in ("", decision.rule)
            if is_same or self._waiting.is_met(key):
                found.reproduced += 1
                self._waiting.meet(key)
            elif decision is None:
                self._differ(row, self._why_missing(row))
            else:
                self._differ(row, f'the rule "{decision.rule}" decides it now')
        self._again.was_done(row)

    def finish(self) -> Replayed:
        """After the last moment. What was decided just before may be under way still."""
        self._give_up(set(), self._tick_ms)
        return self.result

    def _decided(self, due: Iterable[Decision], at_ms: int) -> None:
        if not self._is_unsure:
            self._waiting.decided(due, at_ms)

    def _give_up(self, still: set[DecidedKey], now_ms: int) -> None:
        """What has been decided here for longer than anything is under way, and has no row."""
        for key, (at_ms, one) in self._waiting.first.items():
            if now_ms - at_ms < PATIENCE_MS:
                continue
            if at_ms == self.result.from_ms and key in still and one.rule not in BUILT_IN_NAMES:
                # A rule acts once: it had acted before the span, or a row of it would be here.
                self._waiting.give_up(key)
                self._again.done_before(one, at_ms)
                continue
            if key in still:
                reason = "nothing was recorded while the rules go on to decide it"
            elif key[:2] not in self._present():
                reason = "it went by itself before anything was recorded"
            else:
                reason = "the rules decide it for a moment only, and nothing was recorded"
            self._waiting.give_up(key)
            if key in still:
                self._waiting.meet(key)
            self._add(
                Difference(
                    at_ms,
                    one.container_id[:12],
                    one.container_name,
                    str(one.action),
                    one.rule,
                    recorded=False,
                    reason=f"{reason} (an engine away, budgets spent, left to its owner or needed "
                    "by another: the history does not tell these)",
                )
            )

    def _present(self) -> frozenset[tuple[str, str]]:
        """Engine and short id of all that the last tick had."""
        return frozenset(
            (one.engine, one.container_id) for one in map(PastContainer._make, self._rows)
        )

    def _why_missing(self, row: PastDecision) -> str:
        if row.rule and self._rules.named(row.rule) is None:
            return "its rule is not among the rules of now"
        if self._is_unsure:
            return "the witnesses disagreed, and of whom is not stored any more"
        key = ContainerKey(row.engine, row.container_id)
        why = self._again.why(key)
        if row.timestamp_ms != self._tick_ms:
            return (
                "decided between two ticks, on figures that are not stored"
                if not why
                else f"decided between two ticks; at the tick before, {why}"
            )
        return why or "no stored tick has it"

    def _differ(self, row: PastDecision, reason: str) -> None:
        self._add(
            Difference(
                row.timestamp_ms,
                row.container_id,
                row.container_name,
                row.action,
                row.rule,
                recorded=True,
                reason=reason,
            )
        )

    def _add(self, one: Difference) -> None:
        self.result.reasons[one.reason.partition(";")[0].partition(" is ")[0]] += 1
        if len(self.result.differences) < MOST_SHOWN:
            self.result.differences.append(one)


class Simulation(_Span):
    """Under other rules."""

    def __init__(self, rules: RuleSet, longest_gap_ns: int) -> None:
        super().__init__(rules, longest_gap_ns, as_claimed=False)
        self._place: dict[tuple[str, str], int] = {}
        """Of what would have gone: its place among the actions."""

    def tick(self, tick: PastTick) -> None:
        self._note(tick)
        due = self._again.tick(tick)
        given_mb = self._again.given_back_mb
        if given_mb > self.result.most_given_back_mb:
            self.result.most_given_back_mb = round(given_mb, 1)
            self.result.most_given_back_ms = tick.timestamp_ms
        # Where the engine was away, or the witnesses disagreed of nobody knows whom: nothing.
        knows_disputed = tick.disputed is not None or self._again.knows_states
        if due and tick.engine_answered and knows_disputed:
            governed = {(one.engine, one.container_id): one.governed for one in tick.containers}
            self._act(due, tick.timestamp_ms, governed)

    def rules(self, one: RulesInForce) -> None:
        """Those of then: nothing for others."""

    def host_pass(self, one: PastPass) -> None:
        """Its containers are those of the rules of then: nothing for others."""

    def decision(self, row: PastDecision) -> None:
        place = self._place.pop((row.engine, row.container_id), None)
        if place is not None and is_away(row.outcome, row.error):
            one = self.result.actions[place]
            self.result.actions[place] = _removed(one, row.timestamp_ms)

    def finish(self) -> Replayed:
        return self.result

    def _act(
        self,
        due: tuple[Decision, ...],
        at_ms: int,
        governed: Mapping[tuple[str, str], int],
    ) -> None:
        self._again.done(due, at_ms)
        self.result.action_count += len(due)
        for one in due:
            if len(self.result.actions) >= MOST_SHOWN:
                return
            key = (one.engine, one.container_id)
            if one.action in (Action.REMOVE, Action.STOP):
                self._place[key] = len(self.result.actions)
            self.result.actions.append(
                WouldAct(
                    at_ms,
                    one.container_id[:12],
                    one.container_name,
                    str(one.action),
                    one.rule,
                    round(one.held_mb, 1),
                    unsure=not governed.get(key),
                )
            )


def _removed(one: WouldAct, at_ms: int) -> WouldAct:
    return WouldAct(
        one.timestamp_ms,
        one.container_id,
        one.container_name,
        one.action,
        one.rule,
        one.held_mb,
        one.unsure,
        at_ms,
    )
