"""What a running agent shows to whoever scrapes it: the counters it keeps and the last tick's page.

Shown are only counters that are in the database, so that none falls when the agent is killed. While
the database takes nothing they stand still, and go on from there once it does.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Self

from agent import __version__
from agent.analysis.counters import LastingCounters, key_of
from agent.config import Config
from agent.config_outlets import MetricsSettings
from agent.errors import StoreError
from agent.export import figures
from agent.export.page import Page
from agent.export.server import ListenError, MetricsServer
from agent.model.proof import BudgetUse
from agent.model.record import TickRecord
from agent.model.removal import Removal
from agent.store import counters as counter_tables
from agent.store.store import Store

log = logging.getLogger(__name__)


class Metrics:
    """The main loop tells it of ticks and removals, the server's thread asks for the page."""

    def __init__(
        self, settings: MetricsSettings, interval_s: float, counters: LastingCounters
    ) -> None:
        self._settings = settings
        self._interval_s = interval_s
        self._counters = counters
        """As of now, stored or not."""
        self._written = self._stored = counters
        self._exemplars: dict[tuple[str, ...], str] = {}
        self._page = Page()
        self._server: MetricsServer | None = None
        self.problem = ""
        """Why nobody can scrape, "" while they can."""

    @classmethod
    def start(cls, config: Config, store: Store) -> Self:
        """Goes on from the counters in `store`, and listens as soon as the address is free."""
        try:
            counters = counter_tables.read(Path(config.paths.database))
        except StoreError as error:
            log.warning("metrics=counters-begin-at-0 %s", error)
            counters = LastingCounters()
        metrics = cls(config.metrics, config.interval_s, counters)
        store.counters = metrics.current
        metrics._listen()
        return metrics

    @property
    def port(self) -> int:
        """Where it listens, 0 while it does not."""
        return self._server.port if self._server else 0

    def close(self) -> None:
        """Ends the server; counting goes on until the last removal is written."""
        if self._server is not None:
            self._server.close()

    def _listen(self) -> None:
        try:
            server = MetricsServer(self._settings.address, self._page.get)
            server.start()
        except ListenError as error:
            if not self.problem:
                log.warning("metrics=not-listening %s", error)
            self.problem = str(error)
        else:
            self._server = server
            self.problem = ""

    def current(self) -> LastingCounters:
        """What the write under way takes with it."""
        self._written = self._counters
        return self._written

    def removed(self, removals: Iterable[Removal]) -> None:
        """Counts decisions that ended."""
        ended = tuple(removals)
        self._counters = self._counters.with_removals(ended)
        for one in ended:
            self._exemplars[key_of(one)] = one.decision.id

    def ticked(self, record: TickRecord) -> None:
        """Counts one tick, which is about to be written."""
        self._counters = self._counters.after(record)

    def show(
        self,
        record: TickRecord,
        *,
        armed: bool,
        stored: bool,
        uses: Sequence[BudgetUse] = (),
        spent: Collection[str] = (),
    ) -> None:
        """Lets the page be that of `record` from now on."""
        if self._server is not None and not self._server.answers:
            log.warning("metrics=ended its thread is gone, and is started again")
            self._server.close()
            self._server = None
        if self._server is None:
            self._listen()
        if stored:
            self._stored = self._written
        self._page.show(
            figures.figures_of(
                record,
                self._stored,
                version=__version__,
                interval_s=self._interval_s,
                max_containers=self._settings.containers,
                max_commands=self._settings.commands,
                exemplars=dict(self._exemplars),
                armed=armed,
                stored=stored,
                budgets=tuple(
                    figures.Budget(str(one.name), one.used, one.name in spent) for one in uses
                ),
            )
        )
