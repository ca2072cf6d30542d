"""A host made of values, for tests of what the agent does as a whole: its modules, Docker, disk,
cron, Grafana and time do as a test says, and a run of minutes takes milliseconds.

What is real: the agent's own code from `start` to the undoing, its locks and status file, SQLite
unless a test wants a full disk, and the signals.
"""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.config import Config, EngineSettings, with_overrides
from agent.daemon.composition import Options, start
from agent.daemon.last_word import LastWord
from agent.daemon.outside import Outside
from agent.daemon.sdnotify import Notifier
from agent.daemon.signals import Stopper
from agent.engine_api.own_container import OwnContainer
from agent.errors import AgentError, ModulesError, SourceError
from agent.model.activity import Activity
from agent.model.container import DOCKER, CgroupView, Container, Hierarchy
from agent.model.host import HostCounters, Memory
from agent.model.process import Snapshot, Source
from tests.unit import builders
from tests.unit.agent_parts import (
    INSTALLATION,
    SECOND_NS,
    Build,
    Docker,
    Events,
    FullDisk,
    Generation,
    Grafana,
    ScriptedStopper,
    ShortMemory,
    VirtualTime,
    Watchdog,
    Witness,
)


@dataclass
class Host:
    """One host. What a test changes in it the agent meets."""

    directory: Path
    time: VirtualTime = field(default_factory=VirtualTime)
    modules: bool = False
    """Whether they are loaded."""
    loadable: bool = True
    build_s: float = 0.0
    bpf: str = "ready"
    view: Any = None
    """What BPF recorded."""
    unloadable: bool = True
    cron_error: AgentError | None = None
    disk: FullDisk | None = None
    """In place of SQLite, where a test sets one."""
    did: list[str] = field(default_factory=list)
    """What was done to the host, in order."""
    said: list[str] = field(default_factory=list)
    builds: list[Build] = field(default_factory=list)
    odd: int = 0
    """Odd entries of the modules."""
    activity: Activity = Activity(0, 1)  # noqa: RUF009 - frozen
    """What each container did until now."""
    activity_reads: int = 0
    first_hold_most: bool = False
    """Whether containers hold the more the sooner their names come; else the later."""
    others: dict[str, Docker] = field(default_factory=dict)
    """Engines beside `docker`, by name."""
    marks_ns: list[int] = field(default_factory=list)
    """The moments at which BPF was told that a tick's snapshot was taken."""
    pids: Callable[[], tuple[int, ...]] = lambda: (7,)
    unprotected: tuple[str, ...] = ()
    """What of the agent's own survival cannot be done."""

    def __post_init__(self) -> None:
        self.docker = Docker(self.time)
        self.grafana = Grafana(self)
        self.generation = Generation(self)
        self.watchdog = Watchdog(self.time)
        self.events: Events | None = None
        self.stopper = ScriptedStopper(self.time)
        self.memory = ShortMemory(self.time)

    def config(self, **more: object) -> Config:
        paths = {
            "paths__run": str(self.directory / "run"),
            "paths__database": str(self.directory / "data/metrics.db"),
            "interval_s": 20.0,
        }
        return with_overrides(Config(), **(paths | more))

    def outside(self, **more: object) -> FakeOutside:
        return FakeOutside(self, self.config(**more))

    def snapshot(self, source: Source) -> Snapshot:
        processes = tuple(builders.process(pid) for pid in self.pids())
        odd = self.odd if source is Source.MODULES else 0
        memory = Memory(8192, 4096, 4096, self.memory.available_kb)
        return Snapshot(source, self.time.now_ns, memory, processes, (), odd=odd)

    def read_modules(self) -> Snapshot:
        if not self.modules:
            raise SourceError("/proc/sysinfo_so1 is not there.", "Load it.")
        return self.snapshot(Source.MODULES)

    def begin_loading(self) -> Build:
        self.builds.append(Build(self, self.time.now_ns + int(self.build_s * SECOND_NS)))
        return self.builds[-1]

    def send(self, kind: str) -> None:
        assert self.events is not None
        assert self.events.running
        self.events.send(kind, "f" * 64)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """By SQLite itself, not by the code under test."""
        path = self.directory / "data/metrics.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    @property
    def ticks(self) -> int:
        return sum(1 for line in self.said if "tick " in line.lower())


class FakeOutside(Outside):
    """The agent's door to the outside leads to a Host."""

    def __init__(self, host: Host, config: Config) -> None:
        super().__init__(config, host.time, host.said.append)  # type: ignore[arg-type]
        self._host = host

    def stopper(self) -> Stopper:
        return self._host.stopper

    def notifier(self) -> Notifier:
        return self._host.watchdog

    def store(self) -> Any:
        return self._host.disk or super().store()

    def installation(self) -> str:
        return INSTALLATION

    def layout(self) -> Any:
        return SimpleNamespace(root=self._host.directory, hierarchy=Hierarchy.DEFAULT)

    def read_activity(self, layout: Any, containers: Any, view: Any) -> dict[Any, Activity]:
        self._host.activity_reads += 1
        now_ns = self._host.time.now_ns
        return {one.key: replace(self._host.activity, read_ns=now_ns) for one in containers}

    def read_cgroups(self, layout: Any, containers: Any, unknown_ids: Any) -> CgroupView:
        reverse = self._host.first_hold_most
        by_name = sorted(containers, key=lambda one: str(one.name), reverse=reverse)
        found = {
            one.key: replace(
                builders.cgroup(), container=one.key, held_kb=1024 * (number + 1), ids=frozenset()
            )
            for number, one in enumerate(by_name)
        }
        return CgroupView(Hierarchy.DEFAULT, found)

    def read_modules(self) -> Snapshot:
        return self._host.read_modules()

    def read_psutil(self, layout: Any) -> Snapshot:
        return self._host.snapshot(Source.PSUTIL)

    def begin_loading(self) -> Build:
        return self._host.begin_loading()

    def unload_modules(self) -> tuple[str, ...]:
        if not self._host.unloadable:
            raise ModulesError("sysinfo stays loaded: a reader holds it.", "End it.")
        gone = ("sysinfo", "continfo") if self._host.modules else ()
        self._host.modules = False
        self._host.did.append("modules unloaded")
        return gone

    def engine(self, settings: EngineSettings) -> Any:
        return self._host.docker if settings.name == DOCKER else self._host.others[settings.name]

    def events(self, settings: EngineSettings, callback: Callable[[str, str], None]) -> Any:
        events = Events(callback)
        if settings.name == DOCKER:
            self._host.events = events
        return events

    def own_container(self) -> OwnContainer:
        return OwnContainer(self._host.directory)

    def other_engine(self) -> None:
        return None

    def kernel_log(self, undo: Any) -> None:
        return None

    def remover(self, own: OwnContainer, last_word: LastWord) -> Any:
        self._host.docker.last_word = last_word
        return self._host.docker

    def remove_installation(self, installation: str) -> None:
        assert installation == INSTALLATION
        self._host.did.append("containers removed")

    def witness(self, layout: Any) -> Any:
        return Witness(self._host)

    def memory_sampler(self) -> Any:
        return self._host.memory

    def pressure_trigger(self, percent: float) -> Any:
        return self._host.memory.set_trigger(percent)

    def survive(self) -> tuple[str, ...]:
        self._host.did.append("survives")
        return self._host.unprotected

    def read_host(self) -> HostCounters:
        now_s = self._host.time.now_ns / SECOND_NS
        return HostCounters(now_s / 50, 2 * now_s, 2, 0.5, self._host.memory.pressure(), None)

    def grafana(self) -> Any:
        return self._host.grafana

    def install_cron(self) -> Path:
        if self._host.cron_error is not None:
            raise self._host.cron_error
        self._host.did.append("cron installed")
        return Path("/etc/cron.d/so1-agent")

    def remove_cron(self) -> None:
        self._host.did.append("cron removed")

    def cron_problem(self) -> None:
        return None

    def start_generator(self) -> Any:
        self._host.did.append("generator started")
        return self._host.generation


def signal_self(number: int = signal.SIGTERM) -> None:
    """A real signal to this process, through the kernel."""
    signal.raise_signal(number)


def alpine(number: int, **changed: Any) -> Container:
    """A governed container of the tier `low`."""
    values: dict[str, Any] = {"name": f"so1_contenedor_{number}", "image": "alpine:latest"}
    return replace(builders.container(), id=f"{number:064x}", **(values | changed))


def run(host: Host, options: Options = Options(), **settings: object) -> int:  # noqa: B008 - frozen
    outside = host.outside(**settings)
    return start(outside.config, options, outside.clock, outside.say, outside)


def stop_after(host: Host, seconds: float) -> None:
    host.time.at(seconds, signal_self)


def status(host: Host) -> dict[str, Any]:
    """What `agent status` would read at this moment."""
    value: dict[str, Any] = json.loads((host.directory / "run/status.json").read_text())
    return value
