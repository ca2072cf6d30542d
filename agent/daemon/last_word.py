"""What is looked at immediately before each action: whether the policy is armed, and its rules.

A decision may wait in a queue for as long as others take to stop; what was disarmed or changed
meanwhile holds for it too. The removals' threads ask; the loop alone changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.actions.removal import Ending
from agent.model.proof import ArmingWord
from agent.model.removal import Decision, Outcome, withheld_because
from agent.policy.rules import RuleSet


class LastWord:
    """One run's."""

    def __init__(self, arming: Callable[[], ArmingWord]) -> None:
        """`arming` says whether the policy acts at this moment; any thread may call it."""
        self._arming = arming
        self._revoked: frozenset[str] = frozenset()
        """Ids of decisions of rules that changed before they were begun."""

    def __call__(self, decision: Decision) -> Ending | None:
        """How it ends without the action, None where it is to be done."""
        word = self._arming()
        if not word.armed:
            return Ending(Outcome.NOTIFIED, withheld_because(word.why))
        if decision.id in self._revoked:
            return Ending(Outcome.GONE, f"the rules were changed since {decision.rule} decided")
        return None

    def rules_changed(self, waiting: Iterable[Decision], before: RuleSet, now: RuleSet) -> None:
        """Revokes what a rule decided that is not the same any more, or might not claim it.

        The first rule that matches claims: those before it have to be the same too. What is still
        to be done is decided afresh at the next tick.
        """
        self._revoked = frozenset(
            one.id
            for one in waiting
            if one.id in self._revoked or _up_to(one.rule, before) != _up_to(one.rule, now)
        )


def _up_to(name: str, rules: RuleSet) -> tuple[object, ...] | None:
    names = [one.name for one in rules.rules]
    return rules.rules[: names.index(name) + 1] if name in names else None
