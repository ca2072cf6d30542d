"""`agent top`: the last tick, live. The terminal and its keys; what they mean is `views.top`."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.options import AtOption, ConfigOption, DatabaseOption
from agent.cli.views.moments import moment, parse_at
from agent.cli.views.top_keys import Key, Sort, keys_in
from agent.config import Config, load_config, with_overrides
from agent.errors import AgentError

if TYPE_CHECKING:
    from rich.console import Console

    from agent.cli.views.top import Choice, LastTick

_LOOK_EVERY_S = 1.0
_MS_NS = 10**6
_ESCAPE_WAIT_S = 0.05


def top(
    sort: Annotated[
        Sort, typer.Option("--sort", help="What the containers are sorted by.")
    ] = Sort.RAM,
    once: Annotated[bool, typer.Option("--once", help="Print the last tick and end.")] = False,
    at: AtOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Containers and their processes at the last tick, live, and which one would go next."""
    from agent.cli.views import top as view
    from agent.util import streams
    from agent.util.terminal import is_terminal

    settings = with_overrides(load_config(config), paths__database=database)
    state = view.Choice(sort=sort)
    if at is not None:
        at_ms = parse_at(at, _now_ms())
        streams.out(view.plain(_read(settings, at_ms), state, at_ms, is_past=True))
        return 0
    if once or not is_terminal() or not sys.stdin.isatty():
        streams.out(view.plain(_read(settings), state, _now_ms()))
        return 0
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    try:
        with keyboard(sys.stdin.fileno()):
            _watch(settings, state, console)
    except KeyboardInterrupt:
        return 0
    return 0


def _watch(settings: Config, state: Choice, console: Console) -> None:
    """Looks for a new tick every second, and at the keys in between."""
    from rich.live import Live

    from agent.cli.views import top as view

    last = _read(settings)
    read_s = time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while state.running:
            live.update(
                view.frame(last, state, _now_ms(), settings.interval_s, console.height),
                refresh=True,
            )
            for key in pressed(sys.stdin.fileno(), _LOOK_EVERY_S):
                state = view.press(state, key, last)
            if time.monotonic() - read_s >= _LOOK_EVERY_S:
                last = _read(settings)
                read_s = time.monotonic()


def _read(settings: Config, at_ms: int | None = None) -> LastTick:
    from agent.cli.views import top as view

    path = Path(settings.paths.database)
    last = view.read(path, settings.policy, at_ms)
    if last is None and at_ms is not None:
        raise AgentError(
            f"No tick of {moment(at_ms)} or before is stored in {path}.",
            "Ticks are kept for history_days; see how far they go: agent report --since 30d",
        )
    if last is None:
        raise AgentError(f"No tick is stored in {path} yet.", "Start the agent: sudo agent start")
    return last


def _now_ms() -> int:
    return time.time_ns() // _MS_NS


@contextmanager
def keyboard(descriptor: int) -> Iterator[None]:
    """Within the block keys arrive at once and unseen; the terminal is put back in any case."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def pressed(descriptor: int, wait_s: float) -> list[Key]:
    """The keys pressed within `wait_s`, as soon as there are any. A terminal that is gone quits."""
    if not select.select([descriptor], [], [], wait_s)[0]:
        return []
    data = os.read(descriptor, 64)
    if not data:
        return [Key.QUIT]
    if data == b"\x1b" and select.select([descriptor], [], [], _ESCAPE_WAIT_S)[0]:
        data += os.read(descriptor, 64)
    return list(keys_in(data))
