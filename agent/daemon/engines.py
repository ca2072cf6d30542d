"""The container engines of one run: how each is reached, followed and asked, and how it does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from agent.clock import Clock
from agent.config import Config, EngineKind, EngineSettings
from agent.daemon.events import StartsSeen, engine_callback
from agent.engine_api.address import Address, listing_command
from agent.engine_api.cri import CriHelper
from agent.model.container import ContainerKey
from agent.sources.engine.cri import CriEngine
from agent.sources.engine.events import EngineEvents, NoEvents
from agent.sources.engine.inventory import Engine
from agent.sources.engine.kept_list import ContainerSource, KeptList
from agent.sources.engine.lists import EngineLists
from agent.sources.engine.lives import EngineLives

if TYPE_CHECKING:
    from pathlib import Path

    from agent.daemon.collector import Collector
    from agent.daemon.outside import Outside


def address_of(settings: EngineSettings) -> str:
    """Where it listens, for whatever asks it."""
    if settings.kind is EngineKind.DOCKER:
        return settings.socket
    return Address(settings.socket, str(settings.kind))


def cri_helper(settings: EngineSettings, clock: Clock) -> CriHelper:
    """What asks an engine of kind cri; it is started with the first question."""
    return CriHelper(settings.socket, settings.environment, clock)


def engine_of(
    settings: EngineSettings, clock: Clock, *, all_labels: bool = False
) -> ContainerSource:
    """It as a source; `all_labels` as `Engine` has it."""
    if settings.kind is EngineKind.CRI:
        return CriEngine(cri_helper(settings, clock), clock, settings.name)
    observed = "" if settings.governed else f"the engine {settings.name} is observed only"
    return Engine(
        address_of(settings),
        clock,
        name=settings.name,
        observed_only=observed,
        all_labels=all_labels,
    )


def events_of(
    settings: EngineSettings, clock: Clock, callback: Callable[[str, str], None]
) -> EngineEvents | NoEvents:
    """What follows its events. containerd has them by CRI from 1.7 on only."""
    if settings.kind is EngineKind.CRI:
        return NoEvents()
    return EngineEvents(address_of(settings), clock, callback)


def governed_hosts(config: Config) -> dict[str, str]:
    """Where each engine listens whose containers may be acted on, by its name."""
    return {one.name: address_of(one) for one in config.engines if one.governed}


class Engines:
    """Every engine of one run, with its list, its events and what they report of lives."""

    def __init__(
        self,
        outside: Outside,
        root: Path,
        starts: StartsSeen,
        interrupted: Callable[[str], None],
    ) -> None:
        """`root` is where the hierarchy is mounted that identifies containers; `interrupted` is
        called with the engine's name, from any thread, where its events may have been missed.
        """
        self._kinds = {one.name: str(one.kind) for one in outside.config.engines}
        self._events: dict[str, EngineEvents | NoEvents] = {}
        self.lives = {one.name: EngineLives(root) for one in outside.config.engines}
        """What each engine reports of lives between two looks."""
        self.kept: dict[str, KeptList] = {}
        """Each engine's list."""
        for one in outside.config.engines:
            callback = engine_callback(starts, self.lives[one.name], partial(interrupted, one.name))
            events = self._events[one.name] = outside.events(one, callback)
            self.kept[one.name] = KeptList(
                outside.engine(one), outside.clock, partial(getattr, events, "quiet_since_ns")
            )
        self.lists = EngineLists(self.kept)

    def start(self) -> None:
        """Begins to follow the events of all."""
        for events in self._events.values():
            events.start()

    def started(self) -> dict[ContainerKey, tuple[str, str]]:
        """Name and image of the containers whose starts were reported lately."""
        return {
            ContainerKey(engine, key): one
            for engine, events in self._events.items()
            for key, one in events.names.items()
        }

    def ask_all_labels(self, wanted: bool) -> None:
        """Whether images are asked for their labels from now on, of every engine."""
        for kept in self.kept.values():
            kept.ask_all_labels(wanted)

    def close(self) -> None:
        """Ends that."""
        for events in self._events.values():
            events.close()
        self.lists.close()
        for name, kept in self.kept.items():
            if self._kinds[name] == EngineKind.CRI:
                kept.close()

    def problems(self, collector: Collector) -> list[str]:
        """One sentence for each thing that does not work, by the collector's last look."""
        found = [f"{name}: {why}" for name, why in collector.engine_problems.items()]
        for name, left_out in collector.left_out.items():
            if left_out:
                found.append(
                    f"{name}: {left_out} entries of its list are odd and left out. "
                    f"The log names them; look at `sudo {listing_command(self._kinds[name])}`."
                )
        for name, events in self._events.items():
            if name not in collector.engine_problems and events.problem:
                found.append(
                    f"events: {'Docker' if name == 'docker' else name}'s events are not followed, "
                    "so the limit is looked at with each tick only: "
                    f"{events.problem}"
                )
        return found

    def states(self, collector: Collector) -> dict[str, str]:
        """How each engine is doing, in a few words."""
        return {
            name: f"away: {why}" if (why := collector.engine_problems.get(name, "")) else "answers"
            for name in self.kept
        }
