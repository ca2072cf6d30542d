"""Which decisions are due: a rule acts once on a container, and again only after it was false.

So a restart by age does not loop and a report comes once. Later steps of a rule count from its
first action while its conditions hold. Pure but for what it remembers, which `kept` gives to the
history and `resume` takes from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.model.container import ContainerKey
from agent.model.removal import Action, Decision, Outcome, Removal
from agent.policy.decide import Standing
from agent.policy.rules import Rule, RuleSet, duration_ns

Key = tuple[str, ContainerKey]
"""The rule's name and the container."""
DONE = (
    Outcome.NOTIFIED,
    Outcome.STOPPED,
    Outcome.RESTARTED,
    Outcome.PAUSED,
    Outcome.DRY_RUN,
)
"""After these the container is there still. One that was removed is not, or is to go again."""


@dataclass(frozen=True, slots=True)
class Fired:
    """What a rule has done to one container since it last was false."""

    first_ns: int
    """When its first action was done (boot clock)."""
    stages: int
    """How many of its actions are done."""
    rehearsed: int = 0
    """How many of them a dry run did: this run alone remembers those."""


class Arming:
    """What each rule has done and what it is to do next."""

    def __init__(self) -> None:
        self._fired: dict[Key, Fired] = {}

    def resume(self, kept: Mapping[Key, Fired]) -> None:
        """Goes on from what an earlier run had done, in the same boot."""
        self._fired = dict(kept)

    @property
    def kept(self) -> Mapping[Key, Fired]:
        return dict(self._fired)

    @property
    def any(self) -> bool:
        """Whether any rule has done anything."""
        return bool(self._fired)

    @property
    def firsts(self) -> Mapping[Key, int]:
        """When each rule's first action was done."""
        return {key: fired.first_ns for key, fired in self._fired.items()}

    def seen(self, standings: Iterable[Standing], apart: Collection[str] = ()) -> None:
        """Re-arms every rule for what it would not act on now. Called with each whole look.

        `apart` are engines that nothing is decided of now: nothing changes of their containers.
        Where that is unknown nothing changes: it has not been seen to be false.
        """
        holding = {
            (one.rule.name, one.totals.container.key) for one in standings if one.holds is not False
        }
        self._fired = {
            key: fired
            for key, fired in self._fired.items()
            if key in holding or key[1].engine in apart
        }

    def due(
        self, decisions: Sequence[Decision], rules: RuleSet, now_ns: int
    ) -> tuple[Decision, ...]:
        """Those whose turn it is, with the action that it is the turn of."""
        found = []
        for one in decisions:
            rule = rules.named(one.rule)
            action = one.action if rule is None else self._next(rule, one.container, now_ns)
            if action is not None:
                found.append(one if action is one.action else replace(one, action=action))
        return tuple(found)

    def _next(self, rule: Rule, container: ContainerKey, now_ns: int) -> Action | None:
        fired = self._fired.get((rule.name, container))
        if fired is None:
            return rule.action
        if fired.stages > len(rule.step):
            return None
        step = rule.step[fired.stages - 1]
        return step.action if now_ns - fired.first_ns >= duration_ns(step.after) else None

    def spent(self, rules: RuleSet, now_ns: int) -> frozenset[Key]:
        """Those on which a rule that touches them has done all that it does at this moment."""
        named = {(key, rules.named(key[0])) for key in self._fired}
        return frozenset(
            key
            for key, rule in named
            if rule is not None
            and rule.action.is_destructive
            and self._next(rule, key[1], now_ns) is None
        )

    def done(self, removals: Iterable[Removal], now_ns: int) -> None:
        """Notes what was carried out. What failed is due again, after the remover's pause."""
        for removal in removals:
            decision = removal.decision
            if not decision.rule or removal.outcome not in DONE or removal.is_withheld:
                continue
            key = (decision.rule, decision.container)
            before = self._fired.get(key, Fired(now_ns, 0))
            self._fired[key] = replace(
                before,
                stages=before.stages + 1,
                rehearsed=before.rehearsed + (removal.outcome is Outcome.DRY_RUN),
            )
