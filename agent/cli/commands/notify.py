"""`agent notify test`: one message through each receiver of the settings, and what it said."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import ConfigOption, JsonOption
from agent.config import load_config
from agent.errors import AgentError
from agent.place import SETTINGS
from agent.util import streams

app = typer.Typer(
    name="notify",
    help="Who is notified, and whether it works.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def notify() -> None:
    """Who is notified, and whether it works."""


@app.command()
def test(
    as_json: JsonOption = False,
    summary: Annotated[
        str, typer.Option("--summary", metavar="TEXT", help="What the message says.")
    ] = "A test: this host's agent can reach this receiver.",
    config: ConfigOption = None,
) -> int:
    """Send one message through each receiver. Exit status 1: one has not taken it."""
    from agent.actions.notify.receivers import Sender, receivers_of
    from agent.cli.views.tables import aligned
    from agent.model.notification import Alert, AlertState, Event, Message
    from agent.sources.host_metrics import require_root
    from agent.store.installation import existing_installation_id
    from agent.util.terminal import printable

    settings = load_config(config)
    require_root("agent notify test")
    receivers = receivers_of(settings.notify)
    if not receivers:
        raise AgentError(
            "No receiver is set.",
            f"Set journal, webhook.url or alertmanager.urls below [notify] in {SETTINGS}.",
        )
    now_ms = time.time_ns() // 10**6
    message = Message(
        id=secrets.token_hex(8),
        alert=Alert("test", Event.TEST, printable(summary)),
        state=AlertState.FIRING,
        began_ms=now_ms,
        created_ms=now_ms,
        ended_ms=now_ms,
    )
    installation = existing_installation_id(Path(settings.paths.database).parent) or ""
    sender = Sender(socket.gethostname(), installation, lambda: time.time_ns() // 10**6)
    outcomes = []
    for one in receivers:
        (receipt,) = one.deliver([message], sender, 0)
        outcomes.append({"receiver": one.name, "where": one.where, "problem": receipt.problem})
    if as_json:
        streams.out(streams.json_text({"id": message.id, "receivers": outcomes}))
    else:
        rows = [
            (one["receiver"], one["where"], printable(one["problem"]) or "has it")
            for one in outcomes
        ]
        streams.out("\n".join(aligned(rows)))
    return 1 if any(one["problem"] for one in outcomes) else 0
