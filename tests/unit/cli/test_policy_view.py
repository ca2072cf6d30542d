"""What `policy why` and `policy plan` print: nothing in it steers a terminal or ends a line."""

from __future__ import annotations

from agent.cli.views.policy import explanation_text, plan_text
from agent.model.container import Tier
from agent.model.removal import Decision, Reason
from agent.policy.conditions import Verdict
from agent.policy.explain import Explanation, RuleView

ODD = "nl\n\x1b[2J"


def test_an_explanation_of_odd_names_has_its_lines_and_no_other() -> None:
    verdict = Verdict("state", ODD, ODD, met=True)
    rule = RuleView(ODD, "stop", claims=True, mismatch="", verdicts=(verdict,))
    told = explanation_text(Explanation("a" * 64, ODD, "", (rule,), acts=True, why=ODD))
    assert len(told.split("\n")) == 3
    assert told.replace("\n", "").isprintable()


def test_a_plan_of_odd_names_has_a_line_each() -> None:
    one = Decision(
        "1", "a" * 64, ODD, "alpine", 1, Tier.LOW, 1, Reason.RULE, 1.0, 1.0, rule=ODD
    )  # fmt: skip
    told = plan_text([one, one])
    assert len(told.split("\n")) == 2
    assert told.replace("\n", "").isprintable()
