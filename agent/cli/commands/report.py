"""`agent report`: what the history says of the last hour, or of any time before now."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import AtOption, ConfigOption, DatabaseOption, JsonOption
from agent.cli.views.moments import moment, parse_at, span
from agent.config import load_config, with_overrides

_MS_NS = 10**6


def report(
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="How far back: 90s, 30m, 6h, 7d.")
    ] = "1h",
    at: AtOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """What the host and its containers used, what was removed and why. Exit status 1: no ticks."""
    from agent.cli.views import report as report_text
    from agent.cli.views import report_figures as reports
    from agent.store.queries import History
    from agent.util import streams
    from agent.util.terminal import Say, is_terminal

    settings = with_overrides(load_config(config), paths__database=database)
    span_ms = reports.parse_since(since)
    now_ms = time.time_ns() // _MS_NS
    at_ms = None if at is None else parse_at(at, now_ms)
    with History.open(Path(settings.paths.database), at_ms) as history:
        value = reports.build(history, span_ms, now_ms if at_ms is None else at_ms)
        last = None if value is not None else history.last_tick()
    if as_json:
        streams.out(streams.json_text(value))
        return 0 if value is not None else 1
    if value is None:
        say = Say(sys.stderr)
        before = "" if at_ms is None else f" before {moment(at_ms)}"
        say(f"No tick in the last {since}{before}.")
        if last is not None:
            age = span((at_ms or now_ms) - last.timestamp_ms)
            say(f"The last one is {age} old: see it with a longer --since.")
        return 1
    if is_terminal():
        from rich.console import Console

        report_text.show(value, Console(highlight=False, markup=False, emoji=False))
    else:
        encoding = (sys.stdout.encoding or "").lower()
        streams.out(report_text.plain(value, ascii_only=not encoding.startswith("utf")))
    return 0
