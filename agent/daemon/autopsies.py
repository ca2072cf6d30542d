"""Gathers what is known around each OOM kill and lets the analysis make findings of it.

Called once for each tick that is stored. It remembers the larger processes of the ticks before,
and the names of containers that are gone: a kill is told after the container is.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from agent.analysis import autopsy, endings
from agent.analysis.autopsy import Living, NameAndImage, Remembered, Scene
from agent.clock import Clock
from agent.model.bpf import ProcessExit
from agent.model.container import ContainerKey
from agent.model.ended import EndedProcess
from agent.model.oom import LoggedKill, OomKill, OomMark
from agent.model.process import ProcessKey, in_clock_ticks
from agent.model.tick import Carried, Tick

log = logging.getLogger(__name__)

TICKS = 3
"""So many ticks back growth is measured."""
_MOST_NAMES = 4096
_MOST_KILLS = 1024
"""Findings of one tick; more are counted in the log."""


_NAMELESS = NameAndImage("", "")


class Findings(NamedTuple):
    """What a tick stores of it."""

    kills: tuple[OomKill, ...]
    """Those that are not stored yet."""
    causes: tuple[str, ...]
    """Of those that came since the last call."""
    ended: tuple[EndedProcess, ...]


class Log(Protocol):
    def read(self) -> tuple[LoggedKill, ...]: ...


class Autopsies:
    """What one tick hands to the next of all that."""

    def __init__(
        self,
        *,
        marks: Callable[[], Sequence[OomMark] | None],
        ended: Callable[[], Sequence[ProcessExit]],
        kernel_log: Log | None,
        started: Callable[[], Mapping[ContainerKey, tuple[str, str]]],
        clock: Clock,
    ) -> None:
        """`marks` and `ended` give BPF's, `marks` None where there are no probes; `started` gives
        name and image of the containers whose starts their engines reported."""
        self._marks = marks
        self._ended = ended
        self._log = kernel_log
        self._started = started
        self._clock = clock
        self._earlier: deque[Remembered] = deque(maxlen=TICKS)
        self._containers: dict[ContainerKey, NameAndImage] = {}
        self._unmatched: tuple[LoggedKill, ...] = ()
        self._told_lately: frozenset[int] = frozenset()
        self._ooms: dict[int, int] = {}
        self._counters: dict[ContainerKey, tuple[int, int]] = {}
        self._unstored: tuple[OomKill, ...] = ()

    def of(self, tick: Tick, before: Carried) -> Findings:
        """What came since the last call, and the kills before that no tick could store.

        `before` is what the last stored tick left.
        """
        for container in tick.containers:
            self._containers.pop(container.key, None)
            self._containers[container.key] = NameAndImage(container.name, container.image)
        while len(self._containers) > _MOST_NAMES:
            del self._containers[next(iter(self._containers))]
        counted = self._count(tick)
        exits, marks = self._ended(), self._marks()
        # Behind the marks: a kill is marked before it is logged.
        logged = (*self._unmatched, *(self._log.read() if self._log is not None else ()))
        told, alone = autopsy.pair(marks or (), logged, self._told_lately)
        waiting = [one for one in alone if one not in self._unmatched]
        if marks is None:
            told += [autopsy.Told(None, one) for one in alone]
            waiting = []
        else:
            # What was logged after the marks were read has its mark at the next tick.
            told += [autopsy.Told(None, one) for one in alone if one in self._unmatched]
        self._unmatched = tuple(waiting)
        self._told_lately = frozenset(
            one.mark.key.pid if one.mark else one.logged.pid if one.logged else 0 for one in told
        )
        owner = self._owners(tick, before)
        found: tuple[OomKill, ...] = ()
        if told:
            if len(told) > _MOST_KILLS:
                log.warning("oom=many kept=%d of=%d", _MOST_KILLS, len(told))
            scene = self._scene(tick, owner, counted, exits)
            found = autopsy.autopsies(told[:_MOST_KILLS], scene)
            self._unstored = (*self._unstored, *found)[-_MOST_KILLS:]
            for one in told:
                if one.mark is not None:
                    self._ooms.update((level.cgroup_id, level.ooms) for level in one.mark.levels)
        self._remember(tick)
        causes = tuple(str(one.cause) for one in found)
        if not exits:
            return Findings(self._unstored, causes, ())
        known = self._known()
        return Findings(
            self._unstored,
            causes,
            endings.remembered(
                exits,
                owner,
                lambda key: known.get(key, _NAMELESS).name,
                self._clock.wall_ns() - self._clock.boot_ns(),
            ),
        )

    def stored(self) -> None:
        """The last findings are in the history."""
        self._unstored = ()

    def _count(self, tick: Tick) -> dict[ContainerKey, int]:
        """Kills since the last tick by each container's own counter."""
        view = tick.sample.cgroups.value
        if view is None:
            return {}
        now = {
            key: (one.life_id, one.oom_kills)
            for key, one in view.containers.items()
            if one.oom_kills is not None
        }
        counted = {}
        for key, (life_id, kills) in now.items():
            earlier = self._counters.get(key)
            counted[key] = kills - (earlier[1] if earlier and earlier[0] == life_id else 0)
        self._counters = now
        return counted

    def _remember(self, tick: Tick) -> None:
        snapshot = tick.sample.snapshot
        self._earlier.append(
            Remembered(
                snapshot.snapshot_ns,
                {
                    in_clock_ticks(one.key): one.rss_kb
                    for one in snapshot.processes
                    if one.rss_kb >= autopsy.SMALL_KB
                },
            )
        )

    @staticmethod
    def _owners(tick: Tick, before: Carried) -> dict[int, ContainerKey]:
        """The container of each cgroup that is, or was lately, one's."""
        view = tick.sample.cgroups.value
        owner = {
            **tick.sample.cgroup_owners,
            **before.accounts.owner,
            **tick.carried.accounts.owner,
        }
        for container, cgroup in view.containers.items() if view is not None else ():
            owner.update(dict.fromkeys(cgroup.ids, container))
        return owner

    def _known(self) -> dict[ContainerKey, NameAndImage]:
        started = {key: NameAndImage(*one) for key, one in self._started().items()}
        return started | self._containers

    def _scene(
        self,
        tick: Tick,
        owner: Mapping[int, ContainerKey],
        counted: Mapping[ContainerKey, int],
        exits: Sequence[ProcessExit],
    ) -> Scene:
        sample = tick.sample
        bpf, view, snapshot = sample.bpf.value, sample.cgroups.value, sample.snapshot
        histories: dict[ProcessKey, int] = {}
        if view is None and bpf is not None:
            histories = {in_clock_ticks(key): one for key, one in bpf.cgroup_ids.items()}
        living = {}
        for process in snapshot.processes:
            key = in_clock_ticks(process.key)
            cgroup_id = view.hierarchy.of(process) if view is not None else histories.get(key, 0)
            living[key] = Living(process.name, process.rss_kb, cgroup_id)
        return Scene(
            now_ns=self._clock.boot_ns(),
            wall_ns=self._clock.wall_ns(),
            living=living,
            earlier=tuple(self._earlier),
            exits=exits,
            owner=owner,
            parents=bpf.parents if bpf is not None else {},
            containers=self._known(),
            counted=counted,
            host_total_kb=snapshot.memory.total_kb,
            ooms_before=self._ooms,
        )
