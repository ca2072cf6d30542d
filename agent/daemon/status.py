"""What a running agent tells others about itself: one JSON file, replaced whole at each tick.

`agent status` reads it; whether the agent is alive is the word of its lock, never of this file.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.errors import AgentError
from agent.util import files

FILE_NAME = "status.json"


class TickStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last tick."""

    number: int
    wall_ms: int
    processes: int
    mapped: int
    container_count: int | None
    removed: int
    failed: int
    used_kb: int
    total_kb: int
    tick_ms: int
    tiers: dict[str, int]
    checks: dict[str, int]
    stages_ms: dict[str, float]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The agent at one moment. `problems` has one sentence for each thing that does not work."""

    version: str
    pid: int
    since_wall_ms: int
    interval_s: float
    scope: str
    dry_run: bool
    source: str
    database: str
    grafana: str
    cron: str
    bpf: str
    unstored_ticks: int
    problems: list[str]
    engines: dict[str, str] = {}
    """How each engine is doing, by its name; empty in files of 1.0."""
    reloads: int = 0
    """How often the rules were read again, taken or not."""
    armed: bool = True
    """Whether the policy acts; it does not in a dry run either, see `dry_run`."""
    disarmed_since_ms: int = 0
    disarmed_why: str = ""
    budgets: dict[str, float] = {}
    """How much of each budget of `[proof]` the last tick used; 1 is all of it."""
    notify: dict[str, int] = {}
    """By receiver: messages that wait."""
    tick: TickStatus | None = None


def write(run_dir: Path, status: Status) -> None:
    """Replaces the file whole. Raises OSError where the directory is gone or full."""
    text = msgspec.json.encode(status) + b"\n"
    files.replace(run_dir / FILE_NAME, text, 0o640, durable=False)


def read(run_dir: Path) -> Status | None:
    """The last status written, None where there is none. Raises AgentError for a bad one."""
    try:
        text = (run_dir / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AgentError(
            f"The agent's status cannot be read: {error.strerror}.", "Run `sudo agent status`."
        ) from error
    try:
        return msgspec.json.decode(text, type=Status)
    except msgspec.DecodeError as error:
        raise AgentError(
            f"The agent's status file is not readable: {error}.", "Wait for the next tick."
        ) from error


def clear(run_dir: Path) -> None:
    """Removes the file, so that a stopped agent leaves no word behind, nor a killed one half of it.

    Raises OSError.
    """
    files.remove(run_dir / FILE_NAME)
