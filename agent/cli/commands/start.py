"""`agent start`: the settings, what of the libraries is left out, and the run.

The command line's library stays in memory with every command that it knows of: 3 MB for as long as
the agent runs. So plain words are taken here without it; all others (`--help`, a typing error) are
its to parse and to answer. Both call `start`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.config import Config, Scope, SourceChoice, load_config, with_overrides
from agent.util import memory_tuning

_FLAGS = ("--once", "--dry-run", "--no-cron", "--no-bpf", "--no-grafana", "--keep-grafana")
_VALUES: Mapping[str, Callable[[str], object]] = {
    "--interval": float,
    "--scope": Scope,
    "--source": SourceChoice,
    "--config": Path,
    "--database": str,
}


def plain_options(words: Sequence[str]) -> dict[str, Any] | None:
    """What `start` is called with for the words after `agent start`; None for words that are the
    command line's library's to answer."""
    options: dict[str, Any] = {}
    left = iter(words)
    for word in left:
        name = word.removeprefix("--").replace("-", "_")
        if name in options:
            return None
        if word in _FLAGS:
            options[name] = True
        elif word in _VALUES:
            value = next(left, "-")
            if value.startswith("-"):
                return None
            try:
                options[name] = _VALUES[word](value)
            except ValueError:
                return None
        else:
            return None
    return options


def start(
    *,
    interval: float | None = None,
    once: bool = False,
    dry_run: bool = False,
    scope: Scope | None = None,
    source: SourceChoice | None = None,
    no_cron: bool = False,
    no_bpf: bool = False,
    no_grafana: bool = False,
    keep_grafana: bool = False,
    config: Path | None = None,
    database: str | None = None,
) -> int:
    """Runs the agent and gives its exit status. Raises AgentError where it cannot begin."""

    def read() -> Config:
        return with_overrides(
            load_config(config),
            interval_s=interval,
            policy__scope=scope,
            source=source,
            cron__enabled=False if no_cron else None,
            bpf__enabled=False if no_bpf else None,
            grafana__enabled=False if no_grafana else None,
            grafana__keep=True if keep_grafana else None,
            paths__database=database,
        )

    settings = read()
    # Before anything imports what they leave out.
    if not settings.metrics.listen:
        memory_tuning.leave_out_tls()
    memory_tuning.leave_out_detectors()
    memory_tuning.leave_out_objects()
    memory_tuning.leave_out_drivers()
    from agent.clock import SystemClock
    from agent.daemon import composition
    from agent.sources.host_metrics import require_root
    from agent.util import terminal

    require_root("agent start")
    terminal.set_up_logging(terminal.Say(sys.stderr))
    return composition.start(
        settings,
        composition.Options(once=once, dry_run=dry_run, config_file=config, read_again=read),
        SystemClock(),
        terminal.Say(sys.stdout),
    )
