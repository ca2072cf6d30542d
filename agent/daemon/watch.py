"""Looks at the host as a tick does, without an agent: `agent who`, `agent bpf check`, the canary.

Starts probes of its own, so it works alone and beside a running agent, and loads no module: where
the modules are not loaded `/proc` is the source, which `Watch.problem` says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.analysis.derive import derive
from agent.clock import Clock
from agent.config import Config
from agent.daemon.bpf_polling import BpfPolling
from agent.daemon.collector import Collector, Stopwatch, look
from agent.daemon.outside import Outside
from agent.errors import EngineUnavailableError, SourceError
from agent.model.bpf import BpfView
from agent.model.container import CgroupView, Container, Governance
from agent.model.process import Snapshot
from agent.model.tick import Carried, Tick
from agent.policy import governance
from agent.sources.engine.kept_list import KeptList
from agent.sources.engine.lists import EngineLists
from agent.util.terminal import Say

if TYPE_CHECKING:
    from agent.sources.bpf.witness import Witness
    from agent.sources.cgroup.layout import CgroupLayout


class Watch:
    """One look after another, each held against the one before."""

    def __init__(self, outside: Outside, layout: CgroupLayout, witness: Witness) -> None:
        self._outside = outside
        self._layout = layout
        self._witness = witness
        self._own = outside.own_container()
        self._bpf = BpfPolling(witness, outside.clock, outside.say)
        self._engines = {one.name: outside.engine(one) for one in outside.config.engines}
        # Nobody follows the engines' events here, so each list is asked for.
        self._lists = EngineLists(
            {
                name: KeptList(engine, outside.clock, lambda: None)
                for name, engine in self._engines.items()
            }
        )
        self._collector = Collector(
            read_processes=self._read_processes,
            engines=self._lists,
            layout=layout,
            read_cgroups=outside.read_cgroups,
            read_bpf=self._bpf.read,
            read_host=outside.read_host,
            stopwatch=Stopwatch(outside.clock),
        )
        self._carried = Carried()
        self.problem = ""
        """Why the modules are not the source, "" while they are."""

    @property
    def witness(self) -> Witness:
        return self._witness

    def look(self) -> Tick:
        """What follows from this moment, and what the next look is held against.

        Raises AgentError where a witness or the engine cannot be read.
        """
        tick = look(self._collector, self._own, self._carried, self._govern)
        cgroups_of(tick)
        bpf_of(tick)
        self._bpf.mark(tick.sample.snapshot.snapshot_ns)
        self._carried = tick.carried
        return tick

    def glance(self) -> Tick:
        """What follows from this moment, whatever of it is missing; its parts say why.

        Raises SourceError where no process source works.
        """
        return look(self._collector, self._own, self._carried, self._govern, for_tick=False)

    def against(self, earlier: Carried, tick: Tick) -> Tick:
        """What follows from a look where it is held against an earlier one than the last."""
        return derive(earlier, tick.sample, self._govern)

    def close(self) -> None:
        self._lists.close()
        if len(self._engines) > 1:
            return  # each is its thread's own, and may be in use
        for engine in self._engines.values():
            engine.close()

    def _govern(self, container: Container) -> Governance:
        scope = self._outside.config.policy.scope
        return governance.classify(container, "", scope, self._own.ids)

    def _read_processes(self) -> Snapshot:
        try:
            return self._outside.read_modules()
        except SourceError as error:
            self.problem = str(error)
            return self._outside.read_psutil(self._layout)


@contextmanager
def watching(config: Config, clock: Clock, say: Say) -> Iterator[Watch]:
    """A watch whose probes are ready. Raises SourceError where there can be none."""
    with _started(config, clock, say) as watch:
        state = watch.witness.state
        if state.status != "ready":
            raise SourceError(state.reason[:1].upper() + state.reason[1:], state.hint)
        yield watch


def glance(config: Config, clock: Clock, say: Say) -> Tick:
    """One look, with BPF if it can be had, and with the engine if it answers.

    Raises SourceError where no process source works.
    """
    with _started(config, clock, say) as watch:
        return watch.glance()


@contextmanager
def _started(config: Config, clock: Clock, say: Say) -> Iterator[Watch]:
    """A watch of which it is known whether it has probes."""
    outside = Outside(config, clock, say)
    layout = outside.layout()
    witness = outside.witness(layout)
    watch = Watch(outside, layout, witness)
    try:
        while witness.poll().status == "starting":
            time.sleep(0.05)
        yield watch
    finally:
        watch.close()
        witness.close()


def bpf_of(tick: Tick) -> BpfView:
    """BPF's view of a look. Raises SourceError where it has none."""
    if tick.sample.bpf.value is None:
        raise SourceError(tick.sample.bpf.missing)
    return tick.sample.bpf.value


def cgroups_of(tick: Tick) -> CgroupView:
    """The cgroups of a look. Raises EngineUnavailableError where the engine did not answer."""
    if tick.sample.cgroups.value is None:
        raise EngineUnavailableError(tick.sample.cgroups.missing)
    return tick.sample.cgroups.value
