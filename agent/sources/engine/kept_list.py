"""Docker's list, asked for again only where something may have happened to a container.

The list costs a tick more than anything else does, and on most ticks it is the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.clock import Clock
from agent.sources.engine.inventory import Listing

SETTLE_NS = 5 * 10**9
"""A list read this soon after an event is not kept: Docker tells of some changes (a pause) before
its own list shows them."""
LONGEST_NS = 60 * 10**9
"""How long a list is kept at most: Docker leaves out events for a listener that it finds slow."""


class ContainerSource(Protocol):
    """An engine, whatever it is asked by. One thread uses one object; it connects by itself."""

    def list(self) -> Listing:
        """All containers. Raises EngineUnavailableError."""

    def ask_all_labels(self, wanted: bool) -> None:
        """Whether the next lists tell which labels a container has itself, where that costs."""

    def close(self) -> None:
        """Lets go of what it uses; the next `list` takes it again."""


class KeptList:
    """One engine's list. One thread uses one object."""

    def __init__(
        self, engine: ContainerSource, clock: Clock, quiet_since_ns: Callable[[], int | None]
    ) -> None:
        """`quiet_since_ns` gives since when nothing has happened to any container (boot clock),
        None where nobody knows: then each list is asked for.
        """
        self._engine = engine
        self._clock = clock
        self._quiet_since_ns = quiet_since_ns
        self._kept: Listing | None = None
        self._labels_wanted: bool | None = None

    def list(self, *, fresh: bool = False) -> Listing:
        """All containers; with `fresh` by Docker's word of this moment.

        Raises EngineUnavailableError as `Engine.list` does.
        """
        if (wanted := self._labels_wanted) is not None:
            self._labels_wanted = self._kept = None
            self._engine.ask_all_labels(wanted)
        kept = self._kept
        if kept is not None and not fresh and self._holds(kept):
            return kept
        self._kept = None
        listing = self._engine.list()
        if not listing.undescribed:
            self._kept = listing
        return listing

    def ask_all_labels(self, wanted: bool) -> None:
        """As `Engine.ask_all_labels`, with the next list; what is kept was read without them.

        Any thread.
        """
        self._labels_wanted = wanted

    def close(self) -> None:
        """As the engine's own."""
        self._engine.close()

    def _holds(self, kept: Listing) -> bool:
        quiet_ns = self._quiet_since_ns()
        return (
            quiet_ns is not None
            and kept.read_ns - quiet_ns >= SETTLE_NS
            and self._clock.boot_ns() - kept.read_ns < LONGEST_NS
        )
