"""Everything of one run that reaches outside the process, made in one place.

`agent start` takes its sources, its store and its actions from here and from nowhere else, so that
a test can put a host of its own in their place: one whose clock, modules, Docker and disk do as the
test says, in no time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.actions import cron, kernel_modules
from agent.actions.grafana import Grafana
from agent.actions.remover import Remover
from agent.clock import Clock
from agent.config import Config, EngineSettings
from agent.daemon import keeping, teardown
from agent.daemon.applied import Applied
from agent.daemon.engines import engine_of, events_of, governed_hosts
from agent.daemon.last_word import LastWord
from agent.daemon.lock import AgentLock, GeneratorLock
from agent.daemon.sdnotify import Notifier
from agent.daemon.signals import Stopper
from agent.engine_api.client import other_docker_host
from agent.engine_api.own_container import OwnContainer
from agent.errors import AgentError, StoreError
from agent.model.activity import Activity
from agent.model.container import CgroupView, Container, ContainerKey
from agent.model.host import HostCounters
from agent.model.policy_state import PolicyState
from agent.model.process import Snapshot
from agent.policy import governance
from agent.policy.rules import needs_labels
from agent.sources import activity, host_metrics, psutil_source
from agent.sources import modules as proc_modules
from agent.sources.cgroup import reader
from agent.sources.engine.events import EngineEvents, NoEvents
from agent.sources.engine.kept_list import ContainerSource
from agent.sources.kernel_log import KernelLog
from agent.sources.memory_pressure import MemorySampler, PressureTrigger
from agent.sources.process_source import Loading
from agent.store.installation import installation_id
from agent.store.queries import History
from agent.store.store import Store
from agent.util import survival
from agent.util.subprocess import DISCARDED, Program, begin
from agent.util.terminal import Say
from agent.util.undo import UndoStack

if TYPE_CHECKING:
    from agent.sources.bpf.witness import Witness


log = logging.getLogger(__name__)


class Outside:
    """This host, by one configuration. Each method makes or does one thing; none keeps anything."""

    def __init__(self, config: Config, clock: Clock, say: Say) -> None:
        self.config = config
        self.clock = clock
        self.say = say
        self.run_dir = Path(config.paths.run)

    def stopper(self) -> Stopper:
        """For the signals of this process."""
        return Stopper()

    def notifier(self) -> Notifier:
        return Notifier.from_environment(os.environ)

    def agent_lock(self) -> AgentLock:
        return AgentLock(self.run_dir)

    def generator_lock(self) -> GeneratorLock:
        return GeneratorLock(self.run_dir)

    def store(self) -> Store:
        """Raises StoreError as `Store.open`."""
        return Store.open(
            Path(self.config.paths.database), clock=self.clock, retention=self.config.retention
        )

    def installation(self) -> str:
        return installation_id(Path(self.config.paths.database).parent)

    def layout(self) -> reader.CgroupLayout:
        return reader.detect()

    def read_cgroups(
        self,
        layout: reader.CgroupLayout,
        containers: Sequence[Container],
        unknown_ids: frozenset[int],
    ) -> CgroupView:
        return reader.read(layout, containers, unknown_ids)

    def read_activity(
        self, layout: reader.CgroupLayout, containers: Sequence[Container], view: CgroupView
    ) -> Mapping[ContainerKey, Activity]:
        return activity.read(layout, containers, view, self.clock)

    def read_modules(self) -> Snapshot:
        """Raises SourceError."""
        modules = self.config.modules
        return proc_modules.read(
            Path(modules.sysinfo_path), Path(modules.continfo_path), self.clock
        )

    def read_psutil(self, layout: reader.CgroupLayout) -> Snapshot:
        return psutil_source.read(self.clock, layout)

    def begin_loading(self) -> Loading:
        """Raises ModulesError."""
        return kernel_modules.begin_loading(Path(self.config.paths.build), self.config.modules)

    def unload_modules(self) -> tuple[str, ...]:
        """The names of those that were there. Raises ModulesError."""
        return kernel_modules.unload()

    def engine(self, settings: EngineSettings) -> ContainerSource:
        all_labels = needs_labels(self.config.policy.rule)
        return engine_of(settings, self.clock, all_labels=all_labels)

    def events(
        self, settings: EngineSettings, callback: Callable[[str, str], None]
    ) -> EngineEvents | NoEvents:
        return events_of(settings, self.clock, callback)

    def own_container(self) -> OwnContainer:
        """The container that this very process runs in, if it runs in one."""
        return OwnContainer()

    def other_engine(self) -> str | None:
        """What DOCKER_HOST says, where it names another engine than the configuration."""
        return other_docker_host(self.config.docker_host) if self.config.docker_host else None

    def remover(self, own: OwnContainer, last_word: LastWord) -> Remover:
        return Remover(
            governed_hosts(self.config),
            self.clock,
            self.config.policy.stop_grace_s,
            lambda decision, now: governance.still_stands(decision, now, own.ids),
            last_word,
        )

    def remove_installation(self, installation: str) -> None:
        """Removes this installation's containers. Raises AgentError naming those that stay."""
        if self.config.docker_host:
            teardown.remove_containers(self.config.docker_host, installation, self.say)

    def applied(self) -> Applied:
        """What `agent policy apply` does and did beside this run."""
        return Applied(Path(self.config.paths.database).parent)

    def remembered(self) -> Sequence[PolicyState]:
        """What the rules of an earlier run in this boot remembered; it counts from now without."""
        try:
            with History.open(Path(self.config.paths.database)) as history:
                return history.policy_state()
        except StoreError as error:
            log.warning("rules=begin-without-memory %s", error)
            return ()

    def keeps_containers(self) -> bool:
        """Whether this stop was asked to leave them (`agent stop --keep`)."""
        return keeping.is_asked(self.run_dir)

    def witness(self, layout: reader.CgroupLayout) -> Witness:
        from agent.sources.bpf import witness as bpf  # noqa: PLC0415 - ctypes and libbpf only where asked for

        return bpf.Witness.start(
            layout.hierarchy, self.clock, directory=Path(self.config.paths.bpf)
        )

    def kernel_log(self, undo: UndoStack) -> KernelLog | None:
        """None where it cannot be read."""
        log = KernelLog.open()
        if log is not None:
            undo.push("kernel log", log.close)
        return log

    def memory_sampler(self) -> MemorySampler:
        return MemorySampler(self.clock)

    def pressure_trigger(self, percent: float) -> PressureTrigger:
        """Raises SourceError."""
        return PressureTrigger.set(percent)

    def survive(self) -> tuple[str, ...]:
        """Makes this process last while memory is short; what of it could not be done."""
        return tuple(filter(None, (survival.lock_memory(), survival.spare_from_oom_killer())))

    def read_host(self) -> HostCounters:
        return host_metrics.read()

    def grafana(self) -> Grafana:
        return Grafana.configured(self.config)

    def install_cron(self) -> Path:
        """Raises CronError."""
        return cron.install(self.config, _generator())

    def remove_cron(self) -> None:
        """Raises CronError."""
        cron.remove(self.config.cron)

    def cron_problem(self) -> AgentError | None:
        """What keeps our file from being read."""
        return cron.daemon_problem()

    def start_generator(self) -> Program:
        """One generation of load, now. Raises AgentError where it cannot be started."""
        script = _generator()
        cron.check_trusted(script)
        return begin(
            ["bash", str(script)],
            stdout=DISCARDED,
            stderr=DISCARDED,
            env=cron.generator_environment(self.config),
        )


def _generator() -> Path:
    return kernel_modules.script().with_name("generar_contenedores.sh")
