"""`agent report`: what the history says of the last hour, or of any time before now."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import ConfigOption, DatabaseOption, JsonOption
from agent.config import load_config, with_overrides

_MS_NS = 10**6


def report(
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="How far back: 90s, 30m, 6h, 7d.")
    ] = "1h",
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
    with History.open(Path(settings.paths.database)) as history:
        value = reports.build(history, span_ms, time.time_ns() // _MS_NS)
        last = None if value is not None else history.last_tick()
    if as_json:
        streams.out(streams.json_text(value))
        return 0 if value is not None else 1
    if value is None:
        say = Say(sys.stderr)
        say(f"No tick in the last {since}.")
        if last is not None:
            age = report_text.span(time.time_ns() // _MS_NS - last.timestamp_ms)
            say(f"The last one is {age} old: see it with a longer --since.")
        return 1
    if is_terminal():
        from rich.console import Console

        report_text.show(value, Console(highlight=False, markup=False, emoji=False))
    else:
        encoding = (sys.stdout.encoding or "").lower()
        streams.out(report_text.plain(value, ascii_only=not encoding.startswith("utf")))
    return 0
