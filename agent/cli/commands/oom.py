"""`agent oom`: whom the kernel killed for lack of memory, why, and who had grown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from agent.cli.options import ConfigOption, DatabaseOption, JsonOption
from agent.config import load_config, with_overrides
from agent.errors import AgentError

_MS_NS = 10**6
_DAY_MS = 86_400_000


def oom(
    number: Annotated[
        Optional[int],  # noqa: UP045
        typer.Argument(
            metavar="[ID]",
            min=1,
            max=(1 << 63) - 1,
            help="One kill, by the number that the list gives.",
        ),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="SPAN", help="How far back: 90s, 30m, 6h, 30d.")
    ] = "30d",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Whom the kernel killed for lack of memory, whose limit it was, and who had grown."""
    from agent.cli.views import oom as view
    from agent.cli.views import report_figures
    from agent.store import incidents
    from agent.store.queries import History
    from agent.util import streams

    settings = with_overrides(load_config(config), paths__database=database)
    path = Path(settings.paths.database)
    now_ms = time.time_ns() // _MS_NS
    with History.open(path) as history:
        if number is not None:
            entry = incidents.oom_kill(history, number)
            if entry is None:
                raise AgentError(f"There is no OOM kill {number}.", "List them: agent oom")
            if as_json:
                streams.out(streams.json_text(view.document(entry)))
            else:
                streams.out("\n".join(view.detail(entry)))
            return 0
        since_ms = now_ms - report_figures.parse_since(since)
        entries = incidents.oom_kills(history, 100, since_ms)
        uncounted = incidents.uncounted(history, max(since_ms, now_ms - _DAY_MS))
    if as_json:
        document = {
            "kills": [view.document(one) for one in entries],
            "without_record": uncounted,
        }
        streams.out(streams.json_text(document))
    else:
        streams.out("\n".join(view.listing(entries, uncounted)))
    return 0
