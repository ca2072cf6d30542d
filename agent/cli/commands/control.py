"""`agent stop`, `agent status` and `agent cleanup`: what is done to an agent from outside it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console

from agent.actions import cron, kernel_modules
from agent.actions.grafana import Grafana
from agent.cli.commands.settings_of import check_same, settings_of
from agent.cli.views import status as render
from agent.cli.views.drawing import folded
from agent.cli.views.tables import Cell
from agent.config import Config
from agent.daemon import keeping, teardown
from agent.daemon import status as status_file
from agent.daemon.lock import (
    CLEANUP,
    AgentLock,
    GeneratorLock,
    agent_is_running,
    holder,
    signal_agent,
)
from agent.daemon.signals import RELOAD
from agent.daemon.status import Status
from agent.daemon.trust import word_on_disk
from agent.errors import AgentError
from agent.model.removal import Outcome, Reason
from agent.store import by_hand
from agent.store.installation import existing_installation_id, remove_leftovers
from agent.store.queries import Deletion, last_deletions
from agent.store.under_way import UnderWay
from agent.util import streams
from agent.util.terminal import Say, is_terminal, printable
from agent.util.undo import UndoStack

T = TypeVar("T")

_STOP_WAIT_S = 300.0
_RELOAD_WAIT_S = 60.0
_DELETIONS = 5
NOT_RUNNING = 3
_OTHER_OUTCOMES = (Outcome.STOPPED, Outcome.RESTARTED, Outcome.PAUSED, Outcome.NOTIFIED)


def stop(config: Config, *, keep: bool = False) -> int:
    """Sends SIGTERM to the agent that holds the lock and waits until it has let go of it.

    With `keep` its containers and Grafana stay. Raises AgentError for an agent that cannot keep
    them, which then goes on.
    """
    run_dir = Path(config.paths.run)
    say = Say(sys.stdout)
    if keep:
        keeping.ask(run_dir)
    pid = signal_agent(run_dir, signal.SIGTERM)
    if not pid:
        say("No agent is running.")
        return 0
    say(f"Stopping the agent (pid {pid}) …")
    deadline = time.monotonic() + _STOP_WAIT_S
    while (now := holder(run_dir)) is not None and now.pid == pid:
        if time.monotonic() > deadline:
            raise AgentError(
                f"The agent (pid {pid}) has not ended after {_STOP_WAIT_S:g} s.",
                f"End it by force: `sudo kill -9 {pid}`, then `sudo agent cleanup`.",
            )
        time.sleep(0.1)
    say("Stopped.")
    return 0


def reload(config: Config, file: Path | None = None) -> int:
    """Has the running agent read its rules again and waits until it has. 1: it keeps the old ones.

    `config` was checked, that of `file` where one was named; the agent reads its own file, with
    what its command line says. Raises ConfigError where it reads another one than was named, or
    one that does not pass.
    """
    run_dir = Path(config.paths.run)
    say = Say(sys.stdout)
    value = status_file.read(run_dir)
    before = value.reloads if value else 0
    theirs = settings_of(value.pid) if value and agent_is_running(run_dir) else None
    if theirs is not None:
        check_same(theirs, file)
    if not signal_agent(run_dir, RELOAD):
        say("No agent is running.")
        return NOT_RUNNING
    deadline = time.monotonic() + _RELOAD_WAIT_S
    while not (value := status_file.read(run_dir)) or value.reloads <= before:
        if time.monotonic() > deadline or not agent_is_running(run_dir):
            raise AgentError(
                f"The agent has not read its rules within {_RELOAD_WAIT_S:g} s.",
                "Look at `sudo agent status`; an agent of before the rules has to be restarted.",
            )
        time.sleep(0.1)
    kept = [one for one in value.problems if one.startswith("rules: ")]
    if kept:
        raise AgentError(kept[0].removeprefix("rules: "), "Look at `sudo agent status`.")
    of = f", those of {printable(str(theirs))}" if theirs else ""
    say(f"The agent goes by the rules as they are now{of}.")
    return 0


def status(config: Config, *, as_json: bool) -> int:
    """Prints what the agent tells of itself and the last removals. 0 running, 3 not.

    Each source stands alone: what one of them cannot tell is said, and the others' answers stay.
    Whether the agent runs is what the exit status says; where that is unknown it is the error's.
    """
    run_dir = Path(config.paths.run)
    failures: list[AgentError] = []
    running = _ask(lambda: agent_is_running(run_dir), failures)
    exit_status = failures[0].exit_status if failures else 0 if running else NOT_RUNNING
    value = _ask(lambda: status_file.read(run_dir), failures) if running else None
    value = value and _with_word_on_disk(value)
    database = Path(config.paths.database)
    deletions = _ask(lambda: last_deletions(database, _DELETIONS), failures) or ()
    problems = [str(error) for error in failures]
    if as_json:
        document = {
            "running": running,
            "status": value,
            "deletions": [msgspec.to_builtins(one) for one in deletions],
            "problems": problems,
        }
        streams.out(streams.json_text(document))
        return exit_status
    if value is not None:
        rows = render.status_rows(value, time.time_ns() // 10**6)
    elif running:
        told = "its status is not known" if failures else "its first tick is not done yet"
        rows = [("agent", f"running, {told}")]
    elif running is None:
        rows = [("agent", "running or not")]
    else:
        rows = [("agent", "not running. Start it with `sudo agent start`.")]
    rows += [("not working", printable(problem)) for problem in problems]
    rows += [(_heading(one), _deletion(one)) for one in deletions]
    if is_terminal():
        styles = {"not working": "red"}
        cells = [(Cell(name, "bold"), Cell(value, styles.get(name, ""))) for name, value in rows]
        Console().print(folded(cells))
    else:
        streams.out(render.plain(rows))
    return exit_status


def _with_word_on_disk(value: Status) -> Status:
    """What somebody wants by hand holds before the next action, and not from the next tick on."""
    database = Path(value.database)
    hand = by_hand.read(database.parent)
    if hand is None or hand.armed == value.armed:
        return value
    word = word_on_disk(database)
    if word.armed != hand.armed or (hand.armed and hand.at_ms < value.disarmed_since_ms):
        return value  # a budget disarmed it since
    return msgspec.structs.replace(
        value,
        armed=word.armed,
        disarmed_since_ms=0 if word.armed else word.since_ms,
        disarmed_why=word.why,
    )


def _ask(question: Callable[[], T], failures: list[AgentError]) -> T | None:
    """The answer, None with the error among `failures` where there is none."""
    try:
        return question()
    except AgentError as error:
        failures.append(error)
        return None


def cleanup(config: Config) -> int:
    """Takes down leftovers in the order of a stop. Raises LockedError beside a live agent."""
    run_dir = Path(config.paths.run)
    say = Say(sys.stdout)
    undo = UndoStack()
    generator = GeneratorLock(run_dir)
    with ExitStack() as stack:
        stack.callback(generator.release)
        stack.enter_context(AgentLock(run_dir, CLEANUP))
        stack.enter_context(undo)
        undo.push("status", lambda: status_file.clear(run_dir))
        undo.push("modules", lambda: _report(say, "kernel modules", kernel_modules.unload()))
        undo.push("grafana", lambda: _grafana_down(config, say))
        undo.push("containers", lambda: _remove_containers(config, say))
        undo.push("generator", lambda: teardown.hold_generator(generator))
        undo.push("cron", lambda: _report(say, "cron file", cron.remove(config.cron)))
    if undo.failures:
        raise AgentError(f"Not everything could be removed: {'; '.join(undo.failures)}")
    say("Clean.")
    return 0


def _report(say: Say, what: str, gone: object) -> None:
    if gone:
        named = ", ".join(gone) if isinstance(gone, tuple) else ""
        say(f"Removed the {what}{': ' + named if named else ''}.")


def _remove_containers(config: Config, say: Say) -> None:
    directory = Path(config.paths.database).parent
    remove_leftovers(directory)
    UnderWay(directory).say(())
    installation = existing_installation_id(directory)
    if installation is not None and config.docker_host:
        teardown.remove_containers(config.docker_host, installation, say)


def _grafana_down(config: Config, say: Say) -> None:
    if not config.docker_host:
        return
    grafana = Grafana.configured(config)
    if grafana.is_ours():
        grafana.down()
        say("Took down Grafana; its volume stays.")


def _heading(one: Deletion) -> str:
    if one.outcome in _OTHER_OUTCOMES:
        return one.outcome
    return "removed" if one.is_away else "not removed" if one.action == "remove" else "not done"


def _deletion(one: Deletion) -> str:
    why = f" ({printable(one.error)})" if one.error else ""
    return (
        f"{render.moment(one.timestamp_ms)} {printable(one.container_name)} ({one.tier}, "
        f"{one.held_mb:.1f} MB held): {one.ending}{why}, {one.reason}"
        + (f" {printable(one.rule)}" if one.reason == Reason.RULE else "")
    )
