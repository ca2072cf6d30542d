"""Which containers others are built on: their volumes, their network, a link to them. Pure.

Whoever removes or stops such a one breaks the other. A rule of one's own spares it as long as the
other is there, running or not; the built-in set goes on as before, and the agent reports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.model.container import Container, ContainerKey
from agent.model.removal import BUILT_IN_NAMES, Decision

_ID_LENGTH = 12
"""Of the shortest id that is taken for one: Docker's own short form."""


def needed_by(containers: Iterable[Container]) -> Mapping[ContainerKey, str]:
    """By container that another one needs: which, and for what."""
    everyone = tuple(containers)
    by_name = {(one.engine, one.name): one.key for one in everyone}
    found: dict[ContainerKey, str] = {}
    for one in everyone:
        for need in one.needs:
            key = by_name.get((one.engine, need.container)) or _by_id(one, need.container, everyone)
            if key is not None and key != one.key:
                found.setdefault(key, f"{one.name} {need.what}")
    return found


def spares(decision: Decision, needed: Mapping[ContainerKey, str]) -> bool:
    """Whether a rule of one's own leaves it because another one needs it."""
    return (
        decision.container in needed
        and decision.action.is_destructive
        and decision.rule not in BUILT_IN_NAMES
    )


def _by_id(one: Container, text: str, everyone: Iterable[Container]) -> ContainerKey | None:
    if len(text) < _ID_LENGTH:
        return None
    found = [
        each.key for each in everyone if each.engine == one.engine and each.id.startswith(text)
    ]
    return found[0] if len(found) == 1 else None
