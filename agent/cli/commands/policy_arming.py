"""`agent policy disarm | arm`: whether the policy may touch anything, by hand.

With or without a running agent: it takes effect before the next action, and stays through restarts.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import ConfigOption, DatabaseOption
from agent.config import Config, load_config, with_overrides
from agent.errors import AgentError
from agent.model.proof import ByHand
from agent.util import streams

_MOST_CHARACTERS = 200


def disarm(
    why: Annotated[
        str, typer.Argument(metavar="[WHY]", help="For whoever wonders, in a few words.")
    ] = "",
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Touch no container until `agent policy arm`: what would be done is notified instead."""
    from agent.util.terminal import printable

    settings = _settings(config, database, "agent policy disarm")
    _write(settings, ByHand(False, _now_ms(), printable(why)[:_MOST_CHARACTERS], _new_id()))
    streams.out("Disarmed: no container is touched until `sudo agent policy arm`.")
    return 0


def arm(config: ConfigOption = None, database: DatabaseOption = None) -> int:
    """Act again, also where a budget of `[proof]` had disarmed the policy; budgets begin whole."""
    settings = _settings(config, database, "agent policy arm")
    _write(settings, ByHand(True, _now_ms(), id=_new_id()))
    streams.out("Armed: the policy acts from the agent's next look on.")
    return 0


def _settings(config: Path | None, database: str | None, command: str) -> Config:
    from agent.sources.host_metrics import require_root

    settings = with_overrides(load_config(config), paths__database=database)
    require_root(command)
    _check_place(settings, is_named=database is not None)
    return settings


def _check_place(settings: Config, *, is_named: bool) -> None:
    """Raises AgentError where the running agent would never read the word, or nobody would.

    A directory of the settings that is not there yet is made: the agent's first start uses it.
    """
    from agent.daemon import status as status_file
    from agent.daemon.lock import agent_is_running

    ours, run_dir = Path(settings.paths.database), Path(settings.paths.run)
    running = status_file.read(run_dir) if agent_is_running(run_dir) else None
    if running and os.path.realpath(ours.parent) != os.path.realpath(Path(running.database).parent):
        raise AgentError(
            f"The running agent uses the database {running.database}, not {ours}, so nothing was "
            "changed.",
            f"Name the agent's: --database {running.database}",
        )
    if is_named and not ours.parent.is_dir():
        raise AgentError(
            f"There is no directory {ours.parent}, so no agent uses a database in it.",
            "Name the agent's database: sudo agent status",
        )


def _write(settings: Config, wanted: ByHand) -> None:
    from agent.store import by_hand
    from agent.store.files import prepare_directory

    database = Path(settings.paths.database)
    prepare_directory(database)
    by_hand.write(database.parent, wanted)


def _new_id() -> str:
    return secrets.token_hex(8)


def _now_ms() -> int:
    return time.time_ns() // 10**6
