"""What is wrong with the rules of a file, each fault with the rule's name and line. Pure.

A rule that can never act, or never match, is a typing error that nobody would notice otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.model.container import ContainerState
from agent.model.removal import BUILT_IN_NAMES, Action
from agent.policy import image
from agent.policy.rules import (
    DURATION_FORM,
    ENDED,
    MOST_PATTERNS,
    NAME_FORM,
    STATE_GROUPS,
    Match,
    Rule,
    When,
    duration_ns,
    patterns,
    states,
)

_HEADER = re.compile(r"""\s*\[\[\s*["']?policy["']?\s*\.\s*["']?rule["']?\s*\]\]""")
_DEFAULT_MAX = 10
_KEYS = ("image", "image_contains", "label", "name", "project", "engine")
_MOST_OF_ALL = 4096
"""Patterns of a file: each is held against those of every rule before it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The rules of a file, and what is wrong with them: one clause for each fault."""

    rules: tuple[Rule, ...]
    problems: tuple[str, ...]


def rules_of(text: str, data: Mapping[str, Any]) -> Checked:
    """Checks the rules in `data`, which is `text` decoded. What is no rule at all is left to the
    check of the whole file."""
    policy = data.get("policy")
    entries = policy.get("rule") if isinstance(policy, dict) else None
    if not isinstance(policy, dict) or not isinstance(entries, list):
        return Checked((), ())
    lines = _lines(text, entries)
    rules: list[Rule] = []
    problems: list[str] = []
    left = _MOST_OF_ALL
    for number, entry in enumerate(entries):
        where = _where(entry, number, lines[number])
        try:
            rule = msgspec.convert(entry, Rule)
        except msgspec.ValidationError as error:
            problems.append(f"{where}: {_form(error)}")
            continue
        left -= sum(len(patterns(getattr(rule.match, key))) for key in _KEYS)
        if left < 0:
            problems.append(
                f"{where}: the rules up to here have more than {_MOST_OF_ALL} patterns in all"
            )
            break
        limit = policy.get("max_containers", _DEFAULT_MAX)
        found = [*own_faults(rule, limit), *among_faults(rule, rules)]
        problems += [f"{where}: {fault}" for fault in found]
        rules.append(rule)
    return Checked(tuple(rules), tuple(problems))


def own_faults(rule: Rule, max_containers: object) -> list[str]:
    """What is wrong with one rule by itself."""
    faults = []
    when = rule.when or When()
    if rule.match == Match():
        faults.append('match is empty; write name = "*" for every container')
    if rule.match.managed:
        faults.append("managed is for the built-in set only; give a name or a label")
    if rule.keep is None and when == When():
        faults.append("it has neither keep nor when, so it would act on everything that it matches")
    if rule.keep is not None and isinstance(max_containers, int) and rule.keep > max_containers:
        faults.append(f"keep {rule.keep} is more than max_containers allows ({max_containers})")
    if clash := _clash(rule, when):
        faults.append(clash)
    return faults + _step_faults(rule)


def _clash(rule: Rule, when: When) -> str:
    """Conditions that exclude each other, "" where none do."""
    of_running = [
        key
        for key in ("age", "idle", "held_mb", "unhealthy", "cpu")
        if getattr(when, key) is not None
    ]
    wanted = states(rule.match.state)
    if when.exited is not None:
        if of_running:
            return f"exited and {of_running[0]} exclude each other: one that ended does not run"
        if rule.keep is not None:
            return "exited and keep exclude each other: ended ones never count"
        if odd := [one for one in rule.actions if one in (Action.STOP, Action.PAUSE)]:
            return f"exited and action {odd[0]} exclude each other: it has ended already"
        if wanted and not set(wanted) & set(ENDED):
            return f"exited and state {wanted[0]} exclude each other"
    elif wanted and not set(wanted) & set(STATE_GROUPS[0]):
        return f"state {wanted[0]} never runs, and only exited is measured of what does not run"
    if when.idle is not None:
        if when.cpu is not None and when.cpu.above >= 0.1:
            return "idle and cpu exclude each other: idle is no CPU beyond 0.1 %"
        if wanted == (ContainerState.PAUSED,):
            return "idle and state paused exclude each other: a paused one cannot be idle"
    if when.cpu is not None and wanted == (ContainerState.PAUSED,):
        return "cpu and state paused exclude each other: a paused one has none"
    return ""


def _step_faults(rule: Rule) -> list[str]:
    faults = []
    if Action.REMOVE in rule.actions[:-1]:
        faults.append("a step after remove can never come")
    after = [duration_ns(one.after) for one in rule.step]
    if any(later <= earlier for earlier, later in zip([0, *after], after, strict=False)):
        faults.append("the steps' after must rise, from more than 0")
    return faults


def among_faults(rule: Rule, earlier: Sequence[Rule]) -> list[str]:
    """What is wrong with a rule beside those before it."""
    faults = []
    if any(one.name == rule.name for one in earlier):
        faults.append("another rule has this name")
    if rule.name in BUILT_IN_NAMES:
        faults.append("this is the name of a built-in rule")
    if taken := next((one.name for one in earlier if claims_all(one, rule)), ""):
        faults.append(f'it can never match: "{taken}" before it claims all that it would')
    return faults


def claims_all(earlier: Rule, later: Rule) -> bool:
    """Whether all that `later` matches is surely claimed by `earlier`."""
    one, other = earlier.match, later.match
    # A destructive rule takes a container's own labels only, one that reports the image's too.
    labels_count = not earlier.is_destructive or later.is_destructive
    if (one.label or one.project) and not labels_count:
        return False
    everybody = ("*",)
    return (
        (not one.managed or other.managed)
        and (not one.state or _within(states(other.state), states(one.state)))
        and all(
            _covered(
                patterns(getattr(one, key)), patterns(getattr(other, key)) or everybody, covers
            )
            for key, covers in (
                ("name", image.glob_covers),
                ("engine", image.glob_covers),
                ("image", image.covers),
            )
        )
        and _covered(patterns(one.label), patterns(other.label), _label_covers)
        and _covered(patterns(one.project), patterns(other.project), image.glob_covers)
        and _covered(
            patterns(one.image_contains),
            patterns(other.image_contains),
            lambda mine, theirs: mine in theirs,
        )
    )


def _within(inner: Sequence[ContainerState], outer: Sequence[ContainerState]) -> bool:
    return bool(inner) and set(inner) <= set(outer)


def _covered(
    earlier: Sequence[str], later: Sequence[str], covers: Callable[[str, str], bool]
) -> bool:
    """Whether each pattern of `later` is covered; a key that `earlier` has not takes everything."""
    if not earlier:
        return True
    return bool(later) and all(any(covers(one, other) for one in earlier) for other in later)


def _label_covers(earlier: str, later: str) -> bool:
    if "=" in later and "=" not in earlier:
        key = later.partition("=")[0]
        return not re.search(r"[*?[]", key) and image.glob_covers(earlier, key)
    return image.glob_covers(earlier, later)


def _where(entry: Any, number: int, line: int) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    shown = f'rule "{name[:64]}"' if isinstance(name, str) else f"rule number {number + 1}"
    return f"{shown} (line {line})" if line else shown


def _lines(text: str, entries: Sequence[Any]) -> list[int]:
    """The line of each rule's header; where rules are written otherwise, that of its name; 0 where
    neither is sure."""
    rows = text.splitlines()
    headers = [number for number, row in enumerate(rows, start=1) if _HEADER.match(row)]
    if len(headers) == len(entries):
        return headers
    return [_line_of_name(rows, entry) for entry in entries]


def _line_of_name(rows: Sequence[str], entry: Any) -> int:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        return 0
    named = re.compile(rf"""\bname\s*=\s*["']{re.escape(name)}["']""")
    found = [number for number, row in enumerate(rows, start=1) if named.search(row)]
    return found[0] if len(found) == 1 else 0


_FORMS = (
    (DURATION_FORM, "a time with its unit, as in 30s, 10m, 6h or 1h30m"),
    (NAME_FORM, "letters, digits, `.`, `_` and `-`"),
)


def _form(error: msgspec.ValidationError) -> str:
    """The error without a regular expression, which tells nobody what to write."""
    said = str(error)
    for pattern, form in _FORMS:
        said = said.replace(f"`str` matching regex {pattern!r}", form)
    return said.replace(
        f"`array` of length <= {MOST_PATTERNS}", f"at most {MOST_PATTERNS} patterns"
    )
