"""Rules that cannot be meant are refused with the rule's name and line, all of a file at once."""

from __future__ import annotations

import msgspec
import pytest

from agent.config import PolicySettings, Scope, decode_config
from agent.errors import ConfigError
from agent.model.removal import Action
from agent.policy.meaning import claims_all
from agent.policy.notes import notes
from agent.policy.rules import (
    CpuAbove,
    Match,
    Pressure,
    Rule,
    RuleOrder,
    Rules,
    Step,
    When,
    duration_ns,
)

GOOD = """
[policy]
scope = "managed"

[[policy.rule]]
name = "ci-jobs"
match = { image = ["registry.example/ci/*"], state = "running", engine = "docker" }
when = { age = "6h", held_mb = 2048, cpu = { above = 90, for = "10m" } }
keep = 5
order = "held"
action = "notify"
grace_s = 10
step = [ { after = "1h", action = "stop" } ]
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        decode_config(text, "/etc/so1/agent.toml")
    assert caught.value.exit_status == 2
    assert "Traceback" not in caught.value.message
    assert "/etc/so1/agent.toml" in caught.value.message
    return caught.value.message


def one_rule(body: str, before: str = "[policy]\n") -> str:
    return f'{before}[[policy.rule]]\nname = "mine"\n{body}'


def test_a_rule_arrives_as_it_was_written_and_reports_where_it_names_no_action() -> None:
    (rule,) = decode_config(GOOD, "agent.toml").policy.rule
    assert (rule.name, rule.keep, rule.grace_s) == ("ci-jobs", 5, 10)
    assert rule.when is not None
    assert rule.when.cpu == CpuAbove(above=90, lasting="10m")
    (quiet,) = decode_config(one_rule('match.name = "x"\nkeep = 1'), "agent.toml").policy.rule
    assert quiet.action == "notify"
    assert quiet.order is RuleOrder.HELD


FAULTS = {
    "an unknown key": ('match = { nmae = "x" }\nkeep = 1', "nmae"),
    "an unknown condition": ('match.name = "x"\nwhen = { old = "1h" }', "old"),
    "an unknown action": ('match.name = "x"\nkeep = 1\naction = "kill"', "kill"),
    "a time without a unit": ('match.name = "x"\nwhen.age = "6"', "a time with its unit"),
    "a time that is a number": ('match.name = "x"\nwhen.age = 6', "$.when.age"),
    "no match": ("match = {}\nkeep = 1", "match is empty"),
    "neither keep nor when": ('match.name = "x"', "neither keep nor when"),
    "an empty when": ('match.name = "x"\nwhen = {}', "neither keep nor when"),
    "more kept than may run": ('match.name = "x"\nkeep = 11', "more than max_containers allows"),
    "exited and age": ('match.name = "x"\nwhen = { exited = "1h", age = "1h" }', "exclude"),
    "exited and keep": ('match.name = "x"\nwhen.exited = "1h"\nkeep = 1', "exclude each other"),
    "exited of running ones": (
        'match = { name = "x", state = "running" }\nwhen.exited = "1h"',
        "exited and state running exclude",
    ),
    "exited and stop": (
        'match.name = "x"\nwhen.exited = "1h"\naction = "stop"',
        "exited and action stop exclude",
    ),
    "keep of ended ones": ('match = { name = "x", state = "dead" }\nkeep = 1', "never runs"),
    "idle and busy": (
        'match.name = "x"\nwhen = { idle = "1h", cpu = { above = 50 } }',
        "idle and cpu exclude",
    ),
    "idle and paused": (
        'match = { name = "x", state = "paused" }\nwhen.idle = "1h"',
        "a paused one cannot be idle",
    ),
    "a step after the last": (
        'match.name = "x"\nkeep = 1\naction = "remove"\nstep = [{ after = "1h", action = "stop" }]',
        "after remove",
    ),
    "steps that go back": (
        'match.name = "x"\nkeep = 1\nstep=[{after="2h",action="pause"},{after="1h",action="stop"}]',
        "must rise",
    ),
    "a time with a line's end": ('match.name = "x"\nwhen.age = "1s\\n"', "a time with its unit"),
    "more patterns than anybody writes": (
        f"match.name = {['x'] * 257}\nkeep = 1",
        "Expected at most 256 patterns - at `$.match.name`",
    ),
    "the key of the built-in set": ("match.managed = true\nkeep = 1", "built-in set only"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_rule_that_cannot_be_meant_is_refused_with_its_name_and_line(what: str) -> None:
    body, named = FAULTS[what]
    said = refused(one_rule(body))
    assert named in said
    assert 'rule "mine" (line 2)' in said


def test_all_faults_of_a_file_are_named_at_once_each_with_its_rule() -> None:
    said = refused(
        '[policy]\n[[policy.rule]]\nname = "a"\nmatch = {}\nkeep = 1\n\n'
        '# [[policy.rule]]\n[[ policy . rule ]]\nmatch.name = "x"\n'
        '[[policy.rule]]\nname = "a"\nmatch.name = "y"\nkeep = 99\n'
        '[[policy.rule]]\nname = "original-low"\nmatch.name = "z"\nkeep = 1\n'
    )
    for clause in (
        'rule "a" (line 3): match is empty',
        "rule number 2 (line 8): ",
        'rule "a" (line 10): keep 99',
        'rule "a" (line 10): another rule has this name',
        'rule "original-low" (line 14): this is the name of a built-in rule',
    ):
        assert clause.replace("(line 3)", "(line 2)") in said, clause


def test_a_name_with_a_line_s_end_is_refused() -> None:
    said = refused('[[policy.rule]]\nname = "nl\\n"\nmatch.name = "x"\nkeep = 1')
    assert "letters, digits, `.`, `_` and `-` - at `$.name`" in said


def test_the_patterns_of_a_file_are_counted_before_they_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[Rule] = []

    def among_faults(rule: Rule, _: object) -> list[str]:
        compared.append(rule)
        return []

    monkeypatch.setattr("agent.policy.meaning.among_faults", among_faults)
    key = f"match = {{ name = {['x*'] * 256}, image = {['y*'] * 256} }}\nkeep = 1\n"
    text = "".join(f'[[policy.rule]]\nname = "r{number}"\n{key}' for number in range(12))
    assert 'rule "r8" (line 33): the rules up to here have more than 4096 patterns' in refused(text)
    assert len(compared) == 8


def test_a_rule_written_in_a_list_is_found_by_its_name() -> None:
    said = refused('[policy]\nrule = [\n {name = "x", match = {name = "x"}},\n]')
    assert 'rule "x" (line 3): it has neither' in said


def mine(**match: object) -> Rule:
    return msgspec.convert({"name": "x", "match": match, "keep": 1, "action": "remove"}, Rule)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"name": "*"}, {"name": "web-*"}),
        ({"name": "web-*"}, {"name": "web-1"}),
        ({"name": ["a", "b*"]}, {"name": ["b1", "a"], "image": "x"}),
        ({"image": "registry.example/ci/*"}, {"image": "registry.example/ci/app:7"}),
        ({"image": "alpine"}, {"image": "docker.io/library/alpine:3"}),
        ({"image": "*"}, {"label": "x"}),
        ({"label": "job"}, {"label": "job=7"}),
        ({"label": "job=*"}, {"label": "job=7"}),
        ({"state": ["running", "paused"]}, {"state": "paused", "name": "x"}),
        ({"image_contains": "ci"}, {"image_contains": "my-ci-x"}),
    ],
)
def test_a_rule_that_an_earlier_one_leaves_nothing_to_is_refused(
    earlier: dict[str, object], later: dict[str, object]
) -> None:
    assert claims_all(mine(**earlier), mine(**later))


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"name": "web-*"}, {"name": "*"}),
        ({"name": "web-?"}, {"name": "web-*"}),
        ({"name": ["a"]}, {"name": ["a", "b"]}),
        ({"image": "registry.example/ci/*"}, {"image": "registry.example/*"}),
        ({"image": "alpine:3"}, {"image": "alpine"}),
        ({"label": "job"}, {"name": "x"}),
        ({"label": "*b"}, {"label": "a=b"}),
        ({"label": "*"}, {"name": "*"}),
        ({"project": "*"}, {"name": "*"}),
        ({"state": "running"}, {"name": "x"}),
        ({"name": "x", "state": "running"}, {"name": "x"}),
    ],
)
def test_a_rule_that_may_still_match_something_is_taken(
    earlier: dict[str, object], later: dict[str, object]
) -> None:
    assert not claims_all(mine(**earlier), mine(**later))


def test_a_rule_that_only_reports_still_has_what_an_image_s_label_keeps_from_the_one_before() -> (
    None
):
    reports = Rule(name="r", match=Match(label="job"), keep=1)
    assert not claims_all(mine(label="job"), reports)
    assert claims_all(reports, mine(label="job"))


def test_the_name_of_the_rule_that_claims_all_is_in_the_sentence() -> None:
    said = refused(
        '[[policy.rule]]\nname = "all"\nmatch.name = "*"\nkeep = 5\n'
        '[[policy.rule]]\nname = "jobs"\nmatch.name = "job-*"\nkeep = 1\n'
    )
    assert 'rule "jobs" (line 5): it can never match: "all" before it claims all' in said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("6h", 21600), ("1d", 86400), ("1h30m", 5400), ("500ms", 0.5)],
)
def test_a_time_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert duration_ns(text) == seconds * 10**9


def test_conditions_that_are_never_met_on_this_host_are_named() -> None:
    rules = (
        Rule(name="a", match=Match(name="a"), when=When(idle="1h")),
        Rule(name="b", match=Match(name="b"), when=When(pressure=Pressure(memory=20))),
    )
    said = notes(PolicySettings(rule=rules), has_psi=False, io_problem="no I/O is counted")
    assert [one.split(":")[0] for one in said] == ['rule "a"', 'rule "b"']
    assert notes(PolicySettings(rule=rules)) == ()


def test_a_step_behind_a_stop_is_named_as_one_that_never_comes() -> None:
    steps = (Step(after="1h", action=Action.STOP), Step(after="2h", action=Action.REMOVE))
    ends = msgspec.structs.replace(mine(name="x"), action=Action.NOTIFY, step=steps)
    (said,) = notes(PolicySettings(rule=(ends,)))
    assert "the step after stop never comes" in said
    fine = msgspec.structs.replace(ends, step=steps[:1])
    assert notes(PolicySettings(rule=(fine,))) == ()


def test_a_scope_that_rules_of_one_s_own_keep_from_widening_is_named() -> None:
    own = (mine(name="x"),)
    assert "scope" in notes(PolicySettings(rule=own, scope=Scope.ALL))[0]
    both = PolicySettings(rule=own, scope=Scope.ALL, rules=Rules.ORIGINAL)
    assert notes(both) == ()
    assert notes(PolicySettings(scope=Scope.ALL)) == ()
