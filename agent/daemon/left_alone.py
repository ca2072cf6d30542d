"""What is due and is left alone all the same: what its owner brings back each time, and what
another container needs. Both are reported, once for as long as it lasts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from agent.model.container import Container, ContainerKey
from agent.model.removal import Decision
from agent.policy import dependants
from agent.policy.recreation import Recreations

log = logging.getLogger(__name__)

_MAX_SHOWN = 256
"""Characters of an owner's or a container's name in a line of the log."""


class LeftAlone:
    """One a running agent."""

    def __init__(self, recreations: Recreations) -> None:
        self._recreations = recreations
        self._needed_reported: set[ContainerKey] = set()

    def seen(self, containers: Iterable[Container], now_ns: int) -> None:
        """All that there are now."""
        for owner in self._recreations.seen(containers, now_ns):
            log.warning("outcome=owner-recreates owner=%r", owner[:_MAX_SHOWN])

    def out_of(
        self, due: Sequence[Decision], containers: Iterable[Container]
    ) -> tuple[Decision, ...]:
        """Those that are carried out. The built-in set goes on, and whoever looks after the other
        container must hear of it."""
        needed = dependants.needed_by(containers)
        now = {one.container for one in due if one.container in needed}
        for key in now - self._needed_reported:
            log.warning("container=%s outcome=needed %s", key.short_id, needed[key][:_MAX_SHOWN])
        self._needed_reported = now
        return tuple(
            one
            for one in due
            if not (self._recreations.leaves(one) or dependants.spares(one, needed))
        )
