"""What leaves the host, where it is wanted: `/metrics`, flushes to a centre, notifications.

Each is imported only then: an agent without them is none the larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clock import Clock
from agent.config import Config
from agent.model.removal import Removal
from agent.policy.alerts import Lasting
from agent.store.store import Store
from agent.util.undo import UndoStack

if TYPE_CHECKING:
    from agent.daemon.metrics import Metrics
    from agent.daemon.notifying import Notifying
    from agent.daemon.shipping import Shipping


class Outlets:
    """Brings them up and, through the undo stack, down."""

    def __init__(self) -> None:
        self.metrics: Metrics | None = None
        self.notifying: Notifying | None = None
        self._shipping: Shipping | None = None

    def start(
        self, config: Config, config_file: Path | None, store: Store, clock: Clock, undo: UndoStack
    ) -> None:
        """Starts what is set. Raises nothing: what does not work is in `problems`."""
        if config.metrics.listen:
            from agent.daemon.metrics import Metrics  # noqa: PLC0415 - see above

            self.metrics = Metrics.start(config, store)
            undo.push("metrics", self.metrics.close)
        if config.fleet.dsn:
            from agent.daemon.shipping import Shipping  # noqa: PLC0415 - see above

            self._shipping = Shipping(config, config_file, clock)
            store.hold_ms = self._shipping.hold_ms
            if config.fleet.resolution == "60s":
                from agent.store.minutes import Minutes  # noqa: PLC0415 - see above

                store.minutes = Minutes(clock.boot_ns)
            undo.push("fleet", self._shipping.close)
        if config.notify.wanted:
            from agent.daemon.notifying import Notifying  # noqa: PLC0415 - see above

            self.notifying = Notifying.start(config, store, clock)
            undo.push("notify", self.notifying.close)

    def removed(self, removals: Sequence[Removal]) -> None:
        """Counts removals that ended, and notifies of them."""
        if self.metrics is not None:
            self.metrics.removed(removals)
        if self.notifying is not None:
            self.notifying.ended(removals)

    def stands(self, lasting: Lasting) -> None:
        """Notifies of what lasts, or does not any more."""
        if self.notifying is not None:
            self.notifying.stands(lasting)

    @property
    def waiting(self) -> tuple[tuple[str, int], ...]:
        """By receiver: messages that wait."""
        if self.notifying is None:
            return ()
        return tuple((one.receiver, one.waiting) for one in self.notifying.backlogs)

    def look(self) -> None:
        """Gives a flush and messages that are due their start. Never waits."""
        if self._shipping is not None:
            self._shipping.look()
        if self.notifying is not None:
            self.notifying.look()

    @property
    def problems(self) -> list[str]:
        """One sentence for each that does not work."""
        parts = (("metrics", self.metrics), ("fleet", self._shipping))
        found = [f"{name}: {one.problem}" for name, one in parts if one and one.problem]
        return found + (self.notifying.problems if self.notifying is not None else [])
