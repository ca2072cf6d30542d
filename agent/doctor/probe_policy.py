"""Finds what keeps notifications from arriving and the policy from acting; changes nothing."""

from __future__ import annotations

import time
from pathlib import Path

from agent.config import Config
from agent.doctor.facts import PressureFacts
from agent.errors import AgentError
from agent.sources import memory_pressure

_OLD_MS = 120_000


def notify_facts(config: Config, *, root: bool) -> tuple[str, str]:
    """Why messages do not arrive and the remedy, as far as can be told without sending one."""
    chosen = config.notify
    # Another user may read neither the key nor the history.
    if not chosen.wanted or not root:
        return "", ""
    from agent.actions.notify import journal
    from agent.actions.notify.secret import read_key

    if chosen.webhook.url:
        try:
            read_key(Path(chosen.webhook.key_file))
        except AgentError as error:
            return error.message, error.hint
    if chosen.journal and not journal.SOCKET.exists():
        return "there is no journal on this host", "notify.journal = false"
    return _waiting(config)


def disarmed(config: Config, *, root: bool) -> str:
    """Why the policy touches nothing, "" where it does or that cannot be told."""
    if not root:
        return ""
    from agent.daemon.trust import word_on_disk

    word = word_on_disk(Path(config.paths.database))
    return "" if word.armed else f"the policy is disarmed: {word.why}"


def _waiting(config: Config) -> tuple[str, str]:
    """What waits, by the running agent's own words, else by the history."""
    from agent.daemon import status
    from agent.store import database as sqlite
    from agent.store.failures import StorageError

    remedy = "sudo agent notify test"
    try:
        told = status.read(Path(config.paths.run))
    except AgentError:
        told = None
    if told is not None:
        said = [one.removeprefix("notify: ") for one in told.problems if one.startswith("notify: ")]
        return ("; ".join(said), remedy) if said else ("", "")
    try:
        database = sqlite.connect_to_read(Path(config.paths.database))
        try:
            found = sqlite.rows(
                database,
                "SELECT receiver, count(*), min(created_ms) FROM outbox WHERE NOT delivered"
                " GROUP BY receiver",
            )
        finally:
            database.close()
    except StorageError:
        return "", ""
    now_ms = time.time_ns() // 10**6
    said = [
        f"{receiver}: {count} waiting, the oldest for {(now_ms - oldest) // 1000} s"
        for receiver, count, oldest in found
        if now_ms - oldest > _OLD_MS
    ]
    return ("; ".join(said), "sudo agent start") if said else ("", "")


def pressure_facts(*, root: bool) -> PressureFacts:
    """Whether the kernel tells memory pressure, and wakes somebody by it."""
    if missing := memory_pressure.why_missing():
        return PressureFacts(missing.reason, missing.remedy)
    return PressureFacts(no_trigger=memory_pressure.why_no_trigger() if root else None)
