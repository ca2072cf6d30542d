"""A stop that leaves the containers running: `agent stop --keep`, and a package's upgrade.

The signal that stops an agent has no room for a word, so the word is a file beside its lock, and it
names the one agent that it is for: a later one never finds it meant for itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from agent.daemon.lock import AGENT_LOCK, CLEANUP, named_holder, read_holder
from agent.errors import AgentError
from agent.util import files

KEEP_FILE = "keep"
_MODE = 0o600


def ask(run_dir: Path) -> None:
    """Leaves the word for the running agent; nothing where none runs.

    Raises AgentError for an agent that is too old to heed it: its stop would remove what was to
    stay; and where the lock's file does not name who holds it, so that nobody could be meant.
    """
    found = named_holder(run_dir)
    if found is None or found.role == CLEANUP:
        return
    if not found.keeps:
        raise AgentError(
            f"The running agent (process {found.pid}) does not know `--keep` and would remove its "
            "containers.",
            f"End it alone (`sudo kill -9 {found.pid}`) and start the new one, or stop it without "
            "--keep.",
        )
    word = {"pid": found.pid, "started_wall_ns": found.started_wall_ns}
    files.replace(run_dir / KEEP_FILE, json.dumps(word).encode("ascii"), _MODE, durable=False)


def is_asked(run_dir: Path) -> bool:
    """Whether the word is there for this very process, which holds the agent's lock."""
    try:
        with (run_dir / KEEP_FILE).open("rb") as opened:
            about = os.fstat(opened.fileno())
            word = json.loads(opened.read(4096))
        if about.st_uid != os.geteuid():
            return False
        named = (int(word["pid"]), int(word["started_wall_ns"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    own = read_holder(run_dir / AGENT_LOCK)
    return named == (own.pid, own.started_wall_ns) and own.pid == os.getpid()


def forget(run_dir: Path) -> None:
    """Removes the word. Raises OSError."""
    files.remove(run_dir / KEEP_FILE)
