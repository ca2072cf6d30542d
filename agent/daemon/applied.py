"""What a person applies beside the ticks: taken up for the history, and left alone meanwhile.

A tick looks, decides and acts while `agent policy apply` may do the same. What that has begun or
done since the tick began is not in the tick's look, or not yet in what its rules remember; and
what the ticks have begun is not in the look of that, unless they say so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.model.removal import Action, Decision, Removal, RemovalPass
from agent.store import handover
from agent.store.under_way import UnderWay

log = logging.getLogger(__name__)


class Applied:
    """The files and the locks beside one database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._under_way = UnderWay(directory)
        self._was_at_work = False
        self._seen: frozenset[str] = frozenset()
        """Ids of the decisions that were carried out before the last look began."""

    def looks(self) -> None:
        """A look begins: what has been done by now is in it."""
        self._seen = frozenset(one.decision.id for one in self._done())

    def take(self) -> Sequence[RemovalPass]:
        """All that was done since the last call, each once."""
        return handover.take(self._directory)

    def says(self, under_way: Iterable[Decision]) -> None:
        """Whom the ticks are acting on: for whoever decides beside them."""
        acting = (one for one in under_way if one.action is not Action.NOTIFY)
        self._under_way.say({one.container for one in acting})

    def leaves(
        self,
        decisions: Sequence[Decision],
        under_way: Sequence[Decision],
        *,
        acts: bool,
        waits: bool,
    ) -> tuple[Decision, ...]:
        """Those that are for a tick to carry out now, and whom it acts on with that is said.

        Where it `waits` all of them are for the next tick while somebody is applying a plan, and
        where one ended since the look began: what went by it is in the look and counts in these
        decisions. Without `acts` nothing is carried out.
        """
        # Said first: of two who decide at once, one knows of the other.
        self.says((*under_way, *decisions) if acts else under_way)
        if not waits:
            return tuple(decisions)
        left = self._left(decisions)
        self.says((*under_way, *left) if acts else under_way)
        return left

    def _left(self, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
        if not decisions:
            return ()
        # In this order: who ends in between has left its file by then.
        at_work = handover.is_at_work(self._directory)
        if at_work != self._was_at_work:
            self._was_at_work = at_work
            if at_work:
                log.info("decisions=%d outcome=wait cause=apply", len(decisions))
        if at_work:
            return ()
        done = self._done()
        if any(one.decision.id not in self._seen for one in done):
            return ()
        known = {one.decision.container for one in done}
        return tuple(one for one in decisions if one.container not in known)

    def _done(self) -> Sequence[Removal]:
        """What was carried out and is not taken up yet."""
        return [one for each in handover.waiting(self._directory) for one in each.removals]
