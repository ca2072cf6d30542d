"""`agent doctor`: one table of what this host can and cannot do, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from agent.cli.views.drawing import folded
from agent.cli.views.tables import Cell, aligned
from agent.config import Config, load_config, with_overrides
from agent.doctor import Check, Facts, State, can_run, judge
from agent.doctor.probe import probe
from agent.errors import ConfigError
from agent.util import streams
from agent.util.terminal import is_terminal, printable

_STYLES = {State.OK: "green", State.DEGRADED: "yellow", State.MISSING: "red", State.UNKNOWN: "cyan"}


def doctor(path: Path | None, database: str | None, *, as_json: bool) -> int:
    """Prints the table. 0 where the main job can run on this host, 1 where it cannot."""
    problem = ""
    try:
        config = with_overrides(load_config(path), paths__database=database)
    except ConfigError as error:
        config, problem = Config(), error.message
    facts = probe(config, problem)
    checks = judge(facts, config)
    if as_json:
        streams.out(document(facts, checks))
    elif is_terminal():
        cells = [
            (
                Cell(check.name),
                Cell(check.state, _STYLES[check.state]),
                Cell(printable(check.finding)),
                Cell(printable(check.remedy)),
            )
            for check in checks
        ]
        Console().print(folded(cells, ("check", "state", "finding", "remedy")))
    else:
        streams.out(plain(checks))
    if not as_json:
        streams.out(verdict(checks))
    return 0 if can_run(checks) else 1


def document(facts: Facts, checks: Sequence[Check]) -> str:
    """`can_run`, the checks, and the facts behind them, as JSON."""
    value = {
        "can_run": can_run(checks),
        # `remedy` is what the remedy was called in 1.0.
        "checks": [{**msgspec.to_builtins(check), "remedy": check.remedy} for check in checks],
        "facts": msgspec.to_builtins(facts),
    }
    return streams.json_text(value)


def plain(checks: Sequence[Check]) -> str:
    """Aligned lines for a pipe: name, state, finding, and below it the remedy."""
    rows: list[tuple[str, str, str]] = []
    for check in checks:
        rows.append((check.name, check.state, printable(check.finding)))
        if check.remedy:
            rows.append(("", "", f"→ {printable(check.remedy)}"))
    return "\n".join(aligned(rows, least=(0, max(map(len, State)))))


def verdict(checks: Sequence[Check]) -> str:
    """The one sentence below the table."""
    count = {state: sum(check.state is state for check in checks) for state in State}
    if count[State.MISSING]:
        return f"The main job cannot run here: {count[State.MISSING]} missing."
    less = [f"{count[state]} {state}" for state in (State.DEGRADED, State.UNKNOWN) if count[state]]
    return f"The main job can run here{': ' + ', '.join(less) if less else ''}."
