"""`agent who`: which container a process belongs to, on what that rests, and what it costs.

One look at the host, the same that a tick takes, so it works beside a running agent and without
one; what ended is in the history alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from agent.cli.options import ConfigOption, DatabaseOption, JsonOption
from agent.config import Config, load_config, with_overrides
from agent.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from agent.cli.views.who import WhoEnded, WhoLives
    from agent.clock import Clock
    from agent.model.tick import Tick
    from agent.store.queries import History

_DAY_MS = 86_400_000
_MS_NS = 10**6
_MOST = 100
NOT_FOUND = 1


def who(
    pids: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Argument(
            metavar="[PID]...", min=1, max=1 << 22, help="Processes by their host's numbers."
        ),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", "-n", metavar="NAME", help="All of that command's name."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> int:
    """Which container a process is in, or was: on what that rests, its parents, what it costs."""
    from agent.clock import SystemClock
    from agent.sources.host_metrics import require_root

    if not pids and not name:
        raise ConfigError("`agent who` needs a PID or --name.", "Try: agent who 4711")
    settings = with_overrides(load_config(config), paths__database=database)
    require_root("agent who")
    return answer(settings, SystemClock(), pids or [], _as_kept(name or ""), as_json=as_json)


def _as_kept(name: str) -> str:
    """A command's name as the kernel cuts it and the sources read it: what is no UTF-8 replaced."""
    return os.fsencode(name)[:15].decode("utf-8", "replace")


def answer(config: Config, clock: Clock, pids: list[int], name: str, *, as_json: bool) -> int:
    """Prints an answer for each process. 1 where one of them is not known. Raises AgentError."""
    from agent.cli.views import who as view
    from agent.daemon.watch import glance
    from agent.store.queries import History
    from agent.util import streams
    from agent.util.terminal import Say

    say = Say(sys.stderr)
    tick = glance(config, clock, say)
    try:
        with History.open(Path(config.paths.database)) as history:
            found, unknown = _answers(tick, history, clock, pids, name)
            notes = _state_of(history, config, clock)
    except StoreError as error:
        # A damaged one may open, and fail at the first question.
        found, unknown = _answers(tick, None, clock, pids, name)
        notes = [f"What ended, and what ticks saw, is not known. {error}"]
    if as_json:
        streams.out(streams.json_text(view.document(found, [*unknown, *notes])))
    else:
        blocks = ["\n".join(view.text(one)) for one in found]
        if blocks:
            streams.out("\n\n".join(blocks))
        for note in (*unknown, *notes):
            say(note)
    return NOT_FOUND if unknown else 0


def _answers(
    tick: Tick, history: History | None, clock: Clock, pids: list[int], name: str
) -> tuple[list[WhoLives | WhoEnded], list[str]]:
    """What is known, and a sentence for each that nothing is known of."""
    found: list[WhoLives | WhoEnded] = []
    unknown: list[str] = []
    for pid in pids:
        answers = _of(tick, history, clock, pid=pid)
        found += answers[:1]
        if not answers:
            unknown.append(
                f"No process {pid} is there, and none of that number is known to have ended "
                "within the last day."
            )
    if name:
        answers = _of(tick, history, clock, name=name)
        found += answers[:_MOST]
        if not answers:
            unknown.append(
                f"No process is called {name!r}, and none of that name is known to have ended "
                "within the last day."
            )
        elif len(answers) > _MOST:
            unknown.append(f"{len(answers) - _MOST} more are called {name!r}: name one by its PID.")
    return found, unknown


def _of(
    tick: Tick, history: History | None, clock: Clock, *, pid: int | None = None, name: str = ""
) -> list[WhoLives | WhoEnded]:
    """The living ones, then those that ended, the latest first."""
    from agent.cli.views import who as view
    from agent.store import incidents

    since_ms = clock.wall_ns() // _MS_NS - _DAY_MS
    sightings = incidents.sightings(history, since_ms, pid=pid, name=name) if history else ()
    boot_to_wall_ns = clock.wall_ns() - clock.boot_ns()
    wanted = [
        one
        for one in tick.sample.snapshot.processes
        if (one.pid == pid if pid is not None else one.name == name)
    ]
    found: list[WhoLives | WhoEnded] = [
        view.living(tick, one, sightings, boot_to_wall_ns) for one in wanted
    ]
    if history is None:
        return found
    told = incidents.ended(history, since_ms, pid=pid, name=name)
    # A zombie's end is known, and says more than what is left of it.
    dead = {one.pid for one in told}
    found = [one for one in found if one.state != view.ZOMBIE or one.pid not in dead]
    over: list[WhoEnded] = [
        view.ended(one, incidents.kill_of(history, one.pid, one.timestamp_ms)) for one in told
    ]
    over += [
        view.killed(one)
        for one in incidents.killed(history, since_ms, pid=pid, name=name)
        if one.kill.pid not in dead
    ]
    living = {(one.pid, one.container_id[:12]) for one in found}
    known = {(one.pid, one.container_id) for one in told} | living
    over += [
        view.last_seen(one, incidents.kill_of(history, one.pid, one.last_ms + _DAY_MS // 1440))
        for one in sightings
        if (one.pid, one.container_id) not in known
        and not any(other.pid == one.pid and other.oom for other in over)
    ]
    return [*found, *sorted(over, key=lambda one: -one.ended_ms)]


def _state_of(history: History, config: Config, clock: Clock) -> list[str]:
    """A sentence where no agent has been watching lately."""
    from agent.cli.views.moments import moment

    last = history.last_tick()
    if last is None:
        return []
    age_ms = clock.wall_ns() // _MS_NS - last.timestamp_ms
    if age_ms <= 3 * config.interval_s * 1000:
        return []
    since = moment(last.timestamp_ms)
    return [f"No agent has stored a tick since {since}: what ended since is not known."]
