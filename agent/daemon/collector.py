"""Gathers one `Sample`: every source read once, in an order that keeps close what is compared.

It decides and changes nothing on the host. `look` is how everybody comes to a `Tick`: the tick, the
pass that holds the limit between two of them, `agent bpf check` and the canary.
"""

from __future__ import annotations

import logging
import threading
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
from agent.model.container import CgroupView, Container, ContainerKey
from agent.model.host import HostCounters
from agent.model.process import Snapshot
from agent.model.tick import Carried, Part, Sample, Tick
from agent.policy import governance
from agent.sources.cgroup.layout import CgroupLayout
from agent.sources.engine.inventory import Listing
from agent.sources.engine.lists import Answer, EngineLists
from agent.sources.engine.lives import EngineLives
from agent.util.terminal import fit

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
        engines: EngineLists,
        layout: CgroupLayout,
        read_cgroups: ReadCgroups,
        read_bpf: Callable[[], Part[BpfView]],
        read_host: Callable[[], HostCounters],
        stopwatch: Stopwatch,
        lives: Mapping[str, EngineLives] | None = None,
        read_activity: ReadActivity | None = None,
    ) -> None:
        """`lives` is what is known of lives between two looks, by engine, where its events are
        followed."""
        self._read_activity = read_activity
        self.measures_idle = False
        """Whether a tick's sample tells who is idle."""
        self._read_processes = read_processes
        self._engines = engines
        self._layout = layout
        self._read_cgroups = read_cgroups
        self._read_bpf = read_bpf
        self._read_host = read_host
        self._stopwatch = stopwatch
        self._clock = stopwatch.clock
        self._lives = lives or {}
        self._odd_labels: frozenset[ContainerKey] = frozenset()
        self._last: dict[str, tuple[Container, ...]] = {}
        """Each engine's last list: what it had when it went away is nobody else's meanwhile."""
        self._claiming: set[str] = set()
        """Engines that list another one's containers."""
        self._interrupting = threading.Lock()
        self.left_out: dict[str, int] = {}
        """Entries of each engine's last list that were odd."""
        self.engine_problems: dict[str, str] = {}
        """Why each engine that does not answer is missing."""
        self.interruptions: Mapping[str, int] = dict.fromkeys(engines.names, 0)
        """By engine, how often it was seen to be away, or to have been."""

    @property
    def root(self) -> Path:
        """Where the hierarchy is mounted that tells containers apart."""
        return self._layout.root

    @property
    def engines(self) -> tuple[str, ...]:
        """Their names, in the order of the settings."""
        return self._engines.names

    def interrupt(self, engine: str) -> None:
        """It was away. Any thread."""
        with self._interrupting:
            counts = dict(self.interruptions)
            counts[engine] = counts.get(engine, 0) + 1
            self.interruptions = counts

    def list_containers(self) -> tuple[Container, ...]:
        """The engines' lists, kept where nothing happened since; nothing of those away."""
        answers = self._engines.ask()
        return tuple(one for each in self._own(answers).values() for one in each)

    def collect(
        self, unknown_cgroups: frozenset[int], *, fresh: bool = False, for_tick: bool = True
    ) -> Sample:
        """One sample. `fresh` asks the engines whatever is known of their lists.

        `unknown_cgroups` are those that they were asked about before, in vain. The host's own
        figures are read where the sample is a tick's. Raises SourceError where no process source
        works.
        """
        interruptions = self.interruptions
        # Before the kernel's own counters, which have what an engine has reported by now: the next
        # sample does not count it again.
        engine_ooms = {
            ContainerKey(name, key): count
            for name, lives in self._lives.items()
            for key, count in lives.ooms().items()
        }
        # The engines' lists come first: what is read after it lies close together, or the parts of
        # a container's CPU would not add up to the whole. A container born behind it is asked for.
        containers = self._stopwatch.time("docker", lambda: self._list(fresh=fresh))
        snapshot = self._stopwatch.time("read", self._read_processes)
        bpf = self._stopwatch.time("bpf", self._read_bpf)
        now_ns = self._clock.boot_ns()
        listed = containers.value
        view: Part[CgroupView] = Part(None, now_ns, containers.missing)
        if listed is not None:
            view = Part(
                self._stopwatch.time("cgroups", lambda: self._cgroups_of(listed, unknown_cgroups)),
                now_ns,
            )
        activity: Mapping[ContainerKey, Activity] = {}
        wanted = self.measures_idle and for_tick
        if wanted and self._read_activity is not None and listed and view.value is not None:
            activity = self._read_activity(self._layout, listed, view.value)
        if view.value is not None:
            for name, lives in self._lives.items():
                found = view.value.containers.items()
                lives.learn({key.id: one.path for key, one in found if key.engine == name})
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
            activity=activity,
            engine_ooms=engine_ooms,
            cgroup_owners={
                one: ContainerKey(name, key)
                for name, lives in self._lives.items()
                for one, key in lives.cgroup_ids().items()
            },
            silent=dict(self.engine_problems),
            interruptions=interruptions,
            interruptions_after=self.interruptions,
        )

    def _list(self, *, fresh: bool) -> Part[tuple[Container, ...]]:
        """All that answer; who does not is reported once, and loses nothing for a while."""
        now_ns = self._clock.boot_ns()
        answers = self._engines.ask(fresh=fresh)
        listings = {name: one for name, one in answers.items() if isinstance(one, Listing)}
        for name, answer in answers.items():
            if isinstance(answer, Listing):
                self._note_answer(name, answer)
            else:
                self._note_absence(name, answer)
        if not listings:
            return Part(None, now_ns, "; ".join(self.engine_problems.values()))
        own = self._own(answers)
        for name, each in own.items():
            self._note_claims(name, len(listings[name].containers) - len(each))
        containers = tuple(one for each in own.values() for one in each)
        self._warn_of_odd_labels(containers)
        return Part(containers, min(each.read_ns for each in listings.values()))

    def _own(self, answers: Mapping[str, Answer]) -> dict[str, tuple[Container, ...]]:
        """What each engine that answers lists and no earlier one does, or did before it went away.

        An id is one container's. A user's engine that lists root's (his socket may be a link to
        root's, or lie) must not have the policy act on them as on his own.
        """
        taken: set[str] = set()
        own: dict[str, tuple[Container, ...]] = {}
        for name, answer in answers.items():
            if isinstance(answer, Listing):
                own[name] = tuple(one for one in answer.containers if one.id not in taken)
                taken.update(one.id for one in answer.containers)
            else:
                taken.update(one.id for one in self._last.get(name, ()))
        return own

    def _note_claims(self, name: str, count: int) -> None:
        self.left_out[name] += count
        if count and name not in self._claiming:
            log.warning("engine=%s claimed=%d another engine has these ids: left out", name, count)
        (self._claiming.add if count else self._claiming.discard)(name)

    def _note_answer(self, name: str, listing: Listing) -> None:
        if self.engine_problems.pop(name, ""):
            log.info("%s=back", name)
        self.left_out[name] = listing.left_out
        self._last[name] = listing.containers

    def _note_absence(self, name: str, error: EngineUnavailableError) -> None:
        self.interrupt(name)
        if name not in self.engine_problems:
            log.warning("%s=away no rows of its containers are stored: %s", name, error)
        self.engine_problems[name] = str(error)

    def _cgroups_of(
        self, listed: Sequence[Container], unknown_cgroups: frozenset[int]
    ) -> CgroupView:
        """The cgroups of the listed containers, and of those that a silent engine had at last.

        Those are neither another engine's, whatever that one says, nor nobody's, and their CPU
        accounts go on.
        """
        silent = [one for name in self.engine_problems for one in self._last.get(name, ())]
        order = {name: number for number, name in enumerate(self.engines)}
        known = sorted((*listed, *silent), key=lambda one: order.get(one.engine, 0))
        return self._read_cgroups(self._layout, known if silent else listed, unknown_cgroups)

    def _warn_of_odd_labels(self, containers: Sequence[Container]) -> None:
        odd = {one.key: (one, governance.odd_protection(one)) for one in containers}
        odd = {key: pair for key, pair in odd.items() if pair[1] is not None}
        for key in odd.keys() - self._odd_labels:
            container, value = odd[key]
            log.warning(
                "container=%s name=%s label=%s value=%r is neither yes nor no: taken for true",
                container.short_id,
                fit(container.name, MAX_SHOWN),
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

    The engines are asked once more for cgroups that they did not explain, and all sources are read
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
