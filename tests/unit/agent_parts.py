"""What surrounds an agent in a test, as values: time, Docker, a disk, Grafana, the generator, BPF.

Each does as a test says, and writes down what was done to it; `agent_scene` puts them together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.daemon.sdnotify import Notifier
from agent.daemon.signals import Stopper
from agent.errors import EngineUnavailableError, ModulesError, SourceError, StoreError
from agent.model.container import Container, ContainerState
from agent.model.host import MemoryReading
from agent.model.removal import Action, Decision, Outcome, Removal, RemovalPass
from agent.sources.engine.inventory import Listing

if TYPE_CHECKING:
    from tests.unit.agent_scene import Host

SECOND_NS = 10**9
WALL_NS = 1_700_000_000 * SECOND_NS
INSTALLATION = "0123456789abcdef0123456789abcdef"


_DONE = {
    Action.REMOVE: Outcome.REMOVED,
    Action.STOP: Outcome.STOPPED,
    Action.RESTART: Outcome.RESTARTED,
    Action.PAUSE: Outcome.PAUSED,
}
_STATE_AFTER = {Outcome.STOPPED: ContainerState.EXITED, Outcome.PAUSED: ContainerState.PAUSED}


class VirtualTime:
    """A clock that only waiting moves, and what is to happen at moments of it."""

    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND_NS
        self._began_ns = self.now_ns
        self._events: list[tuple[int, Callable[[], object]]] = []

    def wall_ns(self) -> int:
        return WALL_NS + self.now_ns - self._began_ns

    def boot_ns(self) -> int:
        return self.now_ns

    @property
    def passed_s(self) -> float:
        return (self.now_ns - self._began_ns) / SECOND_NS

    def at(self, seconds: float, happens: Callable[[], object]) -> None:
        """`happens` is called while somebody waits, so long after the begin."""
        self._events.append((self._began_ns + int(seconds * SECOND_NS), happens))
        self._events.sort(key=lambda one: one[0])

    def sleep(self, seconds: float, woken: Callable[[], bool] = lambda: False) -> None:
        """Time passes, with what happens in it, until it is over or somebody is woken."""
        ends_ns = self.now_ns + int(seconds * SECOND_NS)
        while self._events and self._events[0][0] <= ends_ns and not woken():
            moment_ns, happens = self._events.pop(0)
            self.now_ns = max(self.now_ns, moment_ns)
            happens()
        if not woken():
            self.now_ns = ends_ns


class ShortMemory:
    """The host's memory between two ticks, and the triggers on it."""

    TRIGGER = 1 << 20
    """Its descriptor, which is nobody's."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self.available_mb: Callable[[], float] = lambda: 6.0
        self.pressure: Callable[[], float | None] = lambda: None
        self.stalled_s: Callable[[], float] = lambda: 0.0
        self.triggers: list[float] = []
        """The percent at which each was set."""
        self.refusal: SourceError | None = None
        self.read_s: list[float] = []
        """When it was read."""
        self.closed = 0

    @property
    def available_kb(self) -> int:
        return round(self.available_mb() * 1024)

    def read(self, *, pressure: bool) -> MemoryReading:
        self.read_s.append(self._time.passed_s)
        if not pressure:
            return MemoryReading(self._time.now_ns, self.available_kb)
        stalled_us = round(self.stalled_s() * 10**6)
        return MemoryReading(self._time.now_ns, self.available_kb, self.pressure(), stalled_us)

    def set_trigger(self, percent: float) -> ShortMemory:
        if self.refusal is not None:
            raise self.refusal
        self.triggers.append(percent)
        return self

    def fileno(self) -> int:
        return self.TRIGGER

    def close(self) -> None:
        self.closed += 1


class ScriptedStopper(Stopper):
    """Real signals and a real pipe; the sleeping is virtual."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._time = time
        self._woken = False
        self.fired: frozenset[int] = frozenset()
        """Descriptors that have something exceptional, until somebody waits for them."""

    def wake(self) -> None:
        self._woken = True
        super().wake()

    def wait(self, timeout_s: float, *also: int, urgent: Sequence[int] = ()) -> frozenset[int]:
        assert timeout_s != float("inf"), "nobody would notice anything else"
        assert not self.stopping, "the agent sleeps though it is to stop"
        self._time.sleep(timeout_s, lambda: self._woken or not self.fired.isdisjoint(urgent))
        self._woken = False
        fired, self.fired = self.fired & set(urgent), self.fired - set(urgent)
        return super().wait(0) | fired


@dataclass
class Build:
    """A loading of the modules; see `agent.sources.process_source.Loading`."""

    host: Host
    done_ns: int
    cancelled: bool = False

    def fileno(self) -> int:
        return -1

    def poll(self) -> bool:
        if self.host.time.now_ns < self.done_ns:
            return False
        if not self.host.loadable:
            raise ModulesError("The headers are missing.", "Install them.")
        self.host.modules = True
        return True

    def cancel(self) -> None:
        self.cancelled = True


class Events:
    """Docker's events."""

    def __init__(self, callback: Callable[[str, str], None]) -> None:
        self.send = callback
        self.quiet_since_ns: int | None = None
        self.names: dict[str, tuple[str, str]] = {}
        self.problem = ""
        self.refusal = ""
        self.running = False

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False


class Docker:
    """The engine's list, and what removes from it."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self.containers: dict[str, Container] = {}
        self.away = False
        self.slow = False
        """Removals end only once `finish` is called."""
        self.refuses = False
        self.left_out = 0
        """Odd entries of its list."""
        self.all_labels = False
        self.removed: list[str] = []
        self.acted: list[tuple[str, str]] = []
        """What else was done to whom."""
        self.last_word: Callable[[Decision], Any] = lambda _: None
        self._ended: deque[Removal] = deque()
        self._pending: list[Decision] = []

    def run(self, *containers: Container) -> None:
        self.containers |= {one.id: one for one in containers}

    def ask_all_labels(self, wanted: bool) -> None:
        self.all_labels = wanted

    def list(self) -> Listing:
        if self.away:
            raise EngineUnavailableError("Docker does not answer.", "Start it.")
        return Listing(tuple(self.containers.values()), self._time.boot_ns(), 0, self.left_out)

    def finish(self) -> None:
        """The removals that are under way end."""
        for decision in self._pending:
            if instead := self.last_word(decision):
                self._ended.append(Removal(decision, instead.outcome, 0, instead.error))
                continue
            outcome = Outcome.FAILED if self.refuses else _DONE[decision.action]
            if outcome is Outcome.REMOVED:
                self.containers.pop(decision.container_id, None)
                self.removed.append(decision.container_name)
            elif outcome is not Outcome.FAILED:
                self.acted.append((str(outcome), decision.container_name))
                changed = _STATE_AFTER.get(outcome, ContainerState.RUNNING)
                before = self.containers[decision.container_id]
                self.containers[decision.container_id] = replace(before, state=changed)
            self._ended.append(Removal(decision, outcome, 7, "no" if self.refuses else ""))
        self._pending.clear()

    def remove(
        self,
        decisions: Sequence[Decision],
        deadline_ns: int,
        announce: Callable[[Decision], object] = lambda _: None,
    ) -> Sequence[Removal]:
        del deadline_ns
        under_way = {one.container_id for one in self._pending}
        for one in decisions:
            if one.container_id not in under_way:
                announce(one)
                self._pending.append(one)
        if not self.slow:
            self.finish()
        return self.collect()

    def collect(self) -> Sequence[Removal]:
        ended = tuple(self._ended)
        self._ended.clear()
        return ended

    def close(self, wait_s: float) -> Sequence[Removal]:
        del wait_s
        self.finish()
        return self.collect()


class FullDisk:
    """A store that cannot write while `full`; it keeps removals as the real one does."""

    def __init__(self) -> None:
        self.full = False
        self.unstored_ticks = 0
        self.rows: list[Any] = []
        self.deletions: list[Removal] = []
        self.uncounted = 0
        self._pending: list[RemovalPass] = []
        self.closed = False
        self.kept: list[Any] = []

    def ask(self, question: Any) -> Any:
        raise StoreError("The disk is full.", "Make room.")

    def save(self, wall_ns: int) -> None:
        del wall_ns

    @property
    def state(self) -> Any:
        problem = "The disk is full." if self.full else ""
        return type("State", (), {"problem": problem, "retention": ""})

    def write_tick(self, record: Any) -> int:
        self._pending += record.passes
        if self.full:
            self.unstored_ticks += 1
            raise StoreError("The disk is full.", "Make room.")
        self.rows.append(record)
        self._settle()
        return 0

    def write_removals(self, removal_pass: RemovalPass, wall_ns: int, uncounted: int = 0) -> None:
        del wall_ns
        self._pending.append(removal_pass)
        if self.full:
            raise StoreError("The disk is full.", "Make room.")
        self.uncounted += uncounted
        self._settle()

    def write_host_pass(self, one: Any, wall_ns: int) -> None:
        del one, wall_ns
        if self.full:
            raise StoreError("The disk is full.", "Make room.")

    def _settle(self) -> None:
        self.deletions += [removal for one in self._pending for removal in one.removals]
        self._pending.clear()

    def close(self) -> None:
        self.closed = True


class Grafana:
    """Ours; `up` runs in a thread of the agent."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.error: BaseException | None = None

    def up(self, progress: Callable[[str], None]) -> str:
        progress("Grafana: starting …")
        if self.error is not None:
            raise self.error
        self._host.did.append("grafana up")
        return "http://localhost:3000"

    def cancel(self) -> None:
        self._host.did.append("grafana cancelled")

    def down(self) -> None:
        self._host.did.append("grafana down")


class Generation:
    """The first generation's process."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.pid = 1 << 30
        self.returncode: int | None = None
        self.ended: int | None = None
        self.stdout = self.stderr = None
        self.args = ["generator"]

    def poll(self) -> int | None:
        if self.ended is not None and self.returncode is None:
            self.returncode = self.ended
            self._host.did.append("generator reaped")
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, None]:
        del timeout
        self.ended = 0 if self.ended is None else self.ended
        self.poll()
        return None, None


class Witness:
    """BPF."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def poll(self) -> Any:
        if self._host.bpf != "off":
            status = "starting" if self._host.bpf == "starting" else "ready"
            return type("State", (), {"status": status, "reason": "", "hint": ""})
        return type("State", (), {"status": "off", "reason": "No BTF.", "hint": "Install it."})

    def read(self) -> Any:
        if self._host.bpf == "unreadable":
            raise SourceError("A map cannot be read.")
        return self._host.view

    def ooms(self) -> Any:
        if self._host.bpf == "unreadable":
            raise SourceError("A map cannot be read.")
        return ()

    def ended(self) -> Any:
        return ()

    def mark(self, snapshot_ns: int) -> None:
        if self._host.bpf == "unmarkable":
            raise SourceError("A map is full.")
        self._host.marks_ns.append(snapshot_ns)

    def close(self) -> None:
        self._host.did.append("bpf closed")


class Watchdog(Notifier):
    """What systemd would see: at which moments the agent gave a sign of life, and its states."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__("/nowhere", watchdog_s=180.0)
        self._time = time
        self.alive_s: list[float] = []
        self.words: list[str] = []

    def _send(self, *words: str) -> bool:
        self.words += words
        if "WATCHDOG=1" in words:
            self.alive_s.append(self._time.passed_s)
        return True
