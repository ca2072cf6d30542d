"""Gathers one `Sample`: every source read once, in an order that keeps close what is compared.

It decides and changes nothing on the host. `look` is how everybody comes to a `Tick`: the tick, the
pass that holds the limit between two of them, `agent bpf check` and the canary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from agent.analysis.derive import Govern, derive
from agent.clock import Clock
from agent.engine_api.own_container import OwnContainer
from agent.errors import EngineUnavailableError
from agent.model.activity import Activity
from agent.model.bpf import BpfView
from agent.model.container import DOCKER, CgroupView, Container, ContainerKey
from agent.model.host import HostCounters
from agent.model.process import Snapshot
from agent.model.tick import Carried, Part, Sample, Tick
from agent.policy import governance
from agent.sources.cgroup.layout import CgroupLayout
from agent.sources.engine.kept_list import KeptList
from agent.sources.engine.lives import EngineLives

log = logging.getLogger(__name__)

T = TypeVar("T")
ReadActivity = Callable[
    [CgroupLayout, Sequence[Container], CgroupView], Mapping[ContainerKey, Activity]
]
ReadCgroups = Callable[[CgroupLayout, Sequence[Container], frozenset[int]], CgroupView]

BETWEEN_TICKS = "a look between two ticks stores no row of the host"
MAX_SHOWN = 64
"""Characters of a workload's words in a line of the log."""


@dataclass(slots=True)
class Stopwatch:
    """How long each stage of a tick took."""

    clock: Clock
    stages_ms: dict[str, float] = field(default_factory=dict)

    def time(self, stage: str, work: Callable[[], T]) -> T:
        """What `work` gives; its time is added to `stage`."""
        began_ns = self.clock.boot_ns()
        try:
            return work()
        finally:
            spent_ms = (self.clock.boot_ns() - began_ns) / 10**6
            self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + spent_ms


class Collector:
    """Reads the sources. What it keeps from call to call is what was already reported."""

    def __init__(
        self,
        *,
        read_processes: Callable[[], Snapshot],
        engine: KeptList,
        layout: CgroupLayout,
        read_cgroups: ReadCgroups,
        read_bpf: Callable[[], Part[BpfView]],
        read_host: Callable[[], HostCounters],
        stopwatch: Stopwatch,
        lives: EngineLives | None = None,
        read_activity: ReadActivity | None = None,
    ) -> None:
        """`lives` is what is known of lives between two looks, where events are followed."""
        self._read_activity = read_activity
        self.measures_idle = False
        """Whether a tick's sample tells who is idle."""
        self._read_processes = read_processes
        self._engine = engine
        self._layout = layout
        self._read_cgroups = read_cgroups
        self._read_bpf = read_bpf
        self._read_host = read_host
        self._stopwatch = stopwatch
        self._clock = stopwatch.clock
        self._lives = lives
        self._odd_labels: frozenset[ContainerKey] = frozenset()
        self.left_out = 0
        """Entries of the engine's last list that were odd."""
        self.engine_problem = ""
        """Why the engine does not answer, "" while it does."""
        self.interruptions = 0
        """How often the engine was seen to be away, or to have been."""

    @property
    def root(self) -> Path:
        """Where the hierarchy is mounted that tells containers apart."""
        return self._layout.root

    def interrupt(self) -> None:
        """The engine was away. Any thread."""
        self.interruptions += 1

    def list_containers(self) -> tuple[Container, ...]:
        """The engine's list, kept where nothing happened since; empty while it is away."""
        try:
            return self._engine.list().containers
        except EngineUnavailableError:
            return ()

    def collect(
        self, unknown_cgroups: frozenset[int], *, fresh: bool = False, for_tick: bool = True
    ) -> Sample:
        """One sample. `fresh` asks the engine whatever is known of its list.

        `unknown_cgroups` are those that the engine was asked about before, in vain. The host's own
        figures are read where the sample is a tick's. Raises SourceError where no process source
        works.
        """
        interruptions = self.interruptions
        # The engine's list comes first: what is read after it lies close together, or the parts of
        # a container's CPU would not add up to the whole. A container born behind it is asked for.
        containers = self._stopwatch.time("docker", lambda: self._list(fresh=fresh))
        snapshot = self._stopwatch.time("read", self._read_processes)
        bpf = self._stopwatch.time("bpf", self._read_bpf)
        now_ns = self._clock.boot_ns()
        listed = containers.value
        view: Part[CgroupView] = Part(None, now_ns, containers.missing)
        if listed is not None:
            view = Part(
                self._stopwatch.time(
                    "cgroups", lambda: self._read_cgroups(self._layout, listed, unknown_cgroups)
                ),
                now_ns,
            )
        if self._lives is not None and view.value is not None:
            self._lives.learn({key.id: one.path for key, one in view.value.containers.items()})
        activity: Mapping[ContainerKey, Activity] = {}
        wanted = self.measures_idle and for_tick
        if wanted and self._read_activity is not None and listed and view.value is not None:
            activity = self._read_activity(self._layout, listed, view.value)
        now_ns = self._clock.boot_ns()
        host: Part[HostCounters] = Part(None, now_ns, BETWEEN_TICKS)
        if for_tick:
            host = Part(self._read_host(), now_ns)
        return Sample(
            containers=containers,
            snapshot=snapshot,
            bpf=bpf,
            cgroups=view,
            host=host,
            engine_ooms=_docker(self._lives.ooms()) if self._lives is not None else {},
            cgroup_owners=(
                {one: ContainerKey(DOCKER, key) for one, key in self._lives.cgroup_ids().items()}
                if self._lives is not None
                else {}
            ),
            activity=activity,
            interruptions=interruptions,
            interruptions_after=self.interruptions,
        )

    def _list(self, *, fresh: bool) -> Part[tuple[Container, ...]]:
        """The engine's list; its absence is reported once, and nothing is removed for a while."""
        now_ns = self._clock.boot_ns()
        try:
            listing = self._engine.list(fresh=fresh)
        except EngineUnavailableError as error:
            self.interrupt()
            if not self.engine_problem:
                log.warning("docker=away only system rows are stored: %s", error)
            self.engine_problem = str(error)
            return Part(None, now_ns, self.engine_problem)
        if self.engine_problem:
            log.info("docker=back")
            self.engine_problem = ""
        self.left_out = listing.left_out
        self._warn_of_odd_labels(listing.containers)
        return Part(listing.containers, listing.read_ns)

    def _warn_of_odd_labels(self, containers: Sequence[Container]) -> None:
        odd = {one.key: (one, governance.odd_protection(one)) for one in containers}
        odd = {key: pair for key, pair in odd.items() if pair[1] is not None}
        for key in odd.keys() - self._odd_labels:
            container, value = odd[key]
            log.warning(
                "container=%s name=%s label=%s value=%r is neither yes nor no: taken for true",
                container.short_id,
                container.name[:MAX_SHOWN],
                governance.PROTECT_LABEL,
                (value or "")[:MAX_SHOWN],
            )
        self._odd_labels = frozenset(odd)


def look(
    collector: Collector,
    own: OwnContainer,
    previous: Carried,
    govern: Govern,
    *,
    for_tick: bool = True,
) -> Tick:
    """One sample and what follows from it, held against `previous`.

    The engine is asked once more for cgroups that it did not explain, and all sources are read
    again where the witnesses disagree. Raises SourceError where no process source works.
    """
    tick = _look_once(collector, own, previous, govern, fresh=False, for_tick=for_tick)
    looked_again = False
    # A process may move between two readings: one conflict is looked at again, a second stands.
    while not looked_again and (tick.attribution.counts.conflict or _is_unexplained(tick)):
        looked_again = tick.attribution.counts.conflict > 0
        previous = replace(previous, unknown_cgroups=tick.carried.unknown_cgroups)
        tick = _look_once(collector, own, previous, govern, fresh=True, for_tick=for_tick)
        looked_again = looked_again or not tick.attribution.counts.conflict
    if tick.attribution.counts.conflict:
        log.warning(
            "attribution=conflict rows=%d containers=%s",
            tick.attribution.counts.conflict,
            ",".join(sorted(one.short_id for one in tick.attribution.disputed)),
        )
    return tick


def _docker(by_id: Mapping[str, T]) -> dict[ContainerKey, T]:
    return {ContainerKey(DOCKER, key): value for key, value in by_id.items()}


def _is_unexplained(tick: Tick) -> bool:
    """Whether a cgroup is somebody's whom the engine did not list, and it may know by now."""
    return tick.engine_answers and bool(tick.new_unknown_cgroups)


def _look_once(
    collector: Collector,
    own: OwnContainer,
    previous: Carried,
    govern: Govern,
    *,
    fresh: bool,
    for_tick: bool,
) -> Tick:
    sample = collector.collect(previous.unknown_cgroups, fresh=fresh, for_tick=for_tick)
    tick = derive(previous, sample, govern)
    known = own.ids
    own.learn(tick.attribution.rows)
    if sample.cgroups.value is not None:
        own.look_into(collector.root, sample.cgroups.value.containers.values())
    if own.ids != known:
        # Whose container the agent itself is in decides who is protected: once, at the first look.
        tick = derive(previous, sample, govern)
    return tick
