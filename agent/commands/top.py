"""`agent top`: the last tick, live. The terminal and its keys; what they mean is `agent.top`."""

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
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from agent import top as view
from agent.config import Config, load_config, with_overrides
from agent.errors import AgentError

if TYPE_CHECKING:
    from rich.console import Console

_LOOK_EVERY_S = 1.0
_MS_NS = 10**6
_ESCAPE_WAIT_S = 0.05
_KEYS = {
    b"r": view.Key.BY_RAM,
    b"c": view.Key.BY_CPU,
    b"p": view.Key.BY_PROCESSES,
    b"n": view.Key.BY_NAME,
    b"q": view.Key.QUIT,
    b"k": view.Key.UP,
    b"j": view.Key.DOWN,
    b"\n": view.Key.OPEN,
    b"\r": view.Key.OPEN,
    b"\x7f": view.Key.BACK,
    b"\x1b": view.Key.BACK,
    b"\x1b[A": view.Key.UP,
    b"\x1b[B": view.Key.DOWN,
    b"\x1b[C": view.Key.OPEN,
    b"\x1b[D": view.Key.BACK,
    b"\x1bOA": view.Key.UP,
    b"\x1bOB": view.Key.DOWN,
}


def top(
    sort: Annotated[
        view.Sort, typer.Option("--sort", help="What the containers are sorted by.")
    ] = view.Sort.RAM,
    once: Annotated[bool, typer.Option("--once", help="Print the last tick and end.")] = False,
    config: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time on 3.11
        typer.Option("--config", metavar="FILE", help="Settings, instead of /etc/so1/agent.toml."),
    ] = None,
    database: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--database", metavar="PATH", help="The SQLite file."),
    ] = None,
) -> int:
    """Containers and their processes at the last tick, live, and which one would go next."""
    from agent.terminal import is_terminal

    settings = with_overrides(load_config(config), paths__database=database)
    state = view.State(sort=sort)
    if once or not is_terminal() or not sys.stdin.isatty():
        typer.echo(view.plain(_read(settings), state, _now_ms()))
        return 0
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    try:
        with keyboard(sys.stdin.fileno()):
            _watch(settings, state, console)
    except KeyboardInterrupt:
        return 0
    return 0


def _watch(settings: Config, state: view.State, console: Console) -> None:
    """Looks for a new tick every second, and at the keys in between."""
    from rich.live import Live

    snapshot = _read(settings)
    read_s = time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while state.running:
            live.update(
                view.frame(snapshot, state, _now_ms(), settings.interval_s, console.height),
                refresh=True,
            )
            for key in pressed(sys.stdin.fileno(), _LOOK_EVERY_S):
                state = view.press(state, key, snapshot)
            if time.monotonic() - read_s >= _LOOK_EVERY_S:
                snapshot = _read(settings)
                read_s = time.monotonic()


def _read(settings: Config) -> view.Snapshot:
    path = Path(settings.paths.database)
    snapshot = view.read(path, settings.policy)
    if snapshot is None:
        raise AgentError(f"No tick is stored in {path} yet.", "Start the agent: sudo agent start")
    return snapshot


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


def pressed(descriptor: int, wait_s: float) -> list[view.Key]:
    """The keys pressed within `wait_s`, as soon as there are any. A terminal that is gone quits."""
    if not select.select([descriptor], [], [], wait_s)[0]:
        return []
    data = os.read(descriptor, 64)
    if not data:
        return [view.Key.QUIT]
    if data == b"\x1b" and select.select([descriptor], [], [], _ESCAPE_WAIT_S)[0]:
        data += os.read(descriptor, 64)
    return list(keys_in(data))


def keys_in(data: bytes) -> Iterator[view.Key]:
    """The keys in what a terminal sent; anything unknown is nothing."""
    place = 0
    while place < len(data):
        length = 3 if data[place : place + 2] in (b"\x1b[", b"\x1bO") else 1
        key = _KEYS.get(data[place : place + length])
        if key is not None:
            yield key
        place += length
