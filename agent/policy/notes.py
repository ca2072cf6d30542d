"""What a checked set of rules does not do on this host, or in this version, and why. Pure."""

from __future__ import annotations

from agent.config import PolicySettings, Scope
from agent.model.removal import Action
from agent.policy import original
from agent.policy.rules import Rule, RuleOrder, Rules


def notes(
    settings: PolicySettings,
    *,
    has_psi: bool = True,
    no_psi: str = "Boot with psi=1.",
    no_trigger: str = "",
    io_problem: str = "",
) -> tuple[str, ...]:
    """One sentence for each condition that is never met here, and for each surprise of `scope`.

    `no_psi` says why the host tells no memory pressure, and the remedy; `no_trigger` why nobody is
    woken by it; `io_problem` why it does not tell what a container reads and writes.
    """
    without = "" if has_psi else no_psi
    found = [note for rule in settings.rule for note in _of_rule(rule, io_problem, without)]
    if no_trigger and has_psi and any(one.when and one.when.pressure for one in settings.rule):
        found.append(f"pressure is read each second, nothing wakes the agent: {no_trigger}.")
    if (
        settings.scope is Scope.ALL
        and settings.rules is not Rules.NONE
        and original.reach(settings) is Scope.MANAGED
    ):
        found.append(
            'scope = "all": beside rules of your own the built-in set stays with this '
            'installation\'s containers, unless rules = "original" is written too.'
        )
    if settings.rules is Rules.NONE and not settings.rule:
        found.append('rules = "none" without rules of your own: nothing is removed.')
    return tuple(found)


def _of_rule(rule: Rule, io_problem: str, no_psi: str) -> list[str]:
    found = []
    when = rule.when
    if io_problem and (
        (when is not None and when.idle is not None) or rule.order is RuleOrder.IDLE
    ):
        found.append(f'rule "{rule.name}": idle is never met: {io_problem}.')
    if when is not None and when.pressure is not None and no_psi:
        found.append(
            f'rule "{rule.name}": pressure is never met: this kernel tells no memory pressure. '
            f"{no_psi}"
        )
    if Action.STOP in rule.actions[:-1]:
        found.append(
            f'rule "{rule.name}": the step after stop never comes: one that does not run meets '
            "none of its conditions. Let a rule for ended ones take it from there."
        )
    return found
