"""Which file a running agent reads its settings from, by its own command line."""

from __future__ import annotations

import os
from pathlib import Path

from agent.config import DEFAULT_CONFIG, load_config
from agent.errors import ConfigError


def settings_of(pid: int, proc: Path = Path("/proc")) -> Path | None:
    """The file, absolute; None where that process is no agent, or cannot be looked at."""
    about = proc / str(pid)
    try:
        words = (about / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        here = os.readlink(about / "cwd")
    except OSError:
        return None
    if b"start" not in words:
        return None
    given = DEFAULT_CONFIG
    options = iter(words[words.index(b"start") + 1 :])
    for word in options:
        name, is_joined, value = word.partition(b"=")
        if name == b"--config":
            given = Path(os.fsdecode(value if is_joined else next(options, b"")))
    return Path(here, given)


def check_same(theirs: Path, named: Path | None) -> None:
    """Raises ConfigError where `named` is another file than the agent's, and, where none is named,
    for one of the agent's that does not pass."""
    if os.path.realpath(theirs) == os.path.realpath(named or DEFAULT_CONFIG):
        return
    if named is None:
        load_config(theirs)
        return
    raise ConfigError(
        f"The running agent reads {theirs}, not {named.absolute()}.",
        "Change that one and leave --config out, or restart the agent with the other.",
    )
