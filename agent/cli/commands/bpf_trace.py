"""`agent bpf trace`: what starts, ends and moves on this host, live, with its container's name.

Has programs of its own, so it works alone and beside a running agent and changes nothing for it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

from agent.cli.views import trace
from agent.cli.views.trace import Filter, Kind, Names, Reorder, TraceEvent
from agent.clock import Clock
from agent.config import EngineSettings
from agent.daemon.engines import engine_of, events_of
from agent.errors import AgentError, EngineUnavailableError
from agent.sources.bpf import records
from agent.sources.bpf.offsets import EVENT_BYTES
from agent.sources.bpf.programs import TRACE_PROBES, Order
from agent.sources.bpf.records import EventKind, EventRecord
from agent.sources.bpf.ring import Ring
from agent.sources.bpf.startup import Probes, Startup
from agent.sources.bpf.support import probe_support
from agent.sources.bpf.syscall import Map, possible_cpus
from agent.sources.cgroup import reader
from agent.sources.cgroup.tree import walk
from agent.sources.engine.kept_list import KeptList
from agent.sources.engine.lists import EngineLists
from agent.util import streams
from agent.util.terminal import Say, is_terminal

_ROUND_MS = 50
_START_S = 300
_NAME_PAUSE_S = 0.2
_NAME_WAIT_NS = 10 * 10**9
_MANY = 1000
CLOSED_PIPE = 141


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    events: frozenset[Kind] = frozenset()
    filter: Filter = field(default_factory=Filter)
    pid: int = 0
    duration_s: float | None = None
    as_json: bool = False


def trace_events(
    wanted: Wanted, engines: Sequence[EngineSettings], clock: Clock, kept: Path
) -> int:
    """Prints until Ctrl-C, the duration's end or a closed pipe. Raises AgentError.

    `kept` is the directory of what was compiled for this kernel.
    """
    problem = probe_support().problem
    if problem:
        raise AgentError(problem[0][0].upper() + problem[0][1:], problem[1])
    layout = reader.detect()
    say = Say(sys.stderr)
    with ExitStack() as stack:
        waiting = stack.enter_context(_Waiting())
        names = Names()
        probes = _start(wanted, str(layout.hierarchy), kept, waiting)
        if probes is None:
            return 0
        stack.callback(probes.close)
        ring = Ring(probes.maps["events"].fd, EVENT_BYTES, records.EVENT, EventRecord._make)
        stack.callback(ring.close)
        for directory, parent in _directories(str(layout.root)):
            names.learn_cgroup(directory[0], parent, directory[1])
        keeper = _NameKeeper(engines, clock, names, say)
        keeper.start()
        stack.callback(keeper.close)
        ready_s = (probes.handover.compile_ms + probes.handover.attach_ms) / 1000
        say(f"Tracing (ready in {ready_s:.1f} s). Ctrl-C ends it.")
        return _Trace(wanted, ring, probes, names, keeper, clock, say, waiting).run()


def _start(wanted: Wanted, hierarchy: str, kept: Path, waiting: _Waiting) -> Probes | None:
    # Directories tell which container a cgroup is of: they are followed whatever is shown.
    kinds = {EventKind[one.name] for one in wanted.events} or set(TRACE_PROBES)
    kinds |= {EventKind.MKDIR, EventKind.RMDIR}
    macros = (f"-DFILTER_PID={wanted.pid}",) if wanted.pid else ()
    functions = tuple(TRACE_PROBES[kind].function for kind in sorted(kinds))
    startup = Startup(Order("trace", hierarchy, functions, macros), kept)
    try:
        for _ in range(_START_S):
            if (probes := startup.poll()) is not None:
                return probes
            if waiting.wait(1000, startup.fileno()):
                return None
        raise AgentError(
            "Starting the BPF probes took longer than 300 s.", "Look at the host's load."
        )
    finally:
        startup.close()


def _directories(root: str) -> list[tuple[tuple[int, str], int]]:
    """((id, name), parent's id) of every cgroup, parents first."""
    found = walk(root)
    return [
        ((one.inode, one.name), found[one.parent].inode if one.parent >= 0 else 0) for one in found
    ]


class _Waiting:
    """Sleeps until time passes, a signal asks for the end, or nobody reads the output any more."""

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.asked = 0
        """How often the end was asked for."""
        self._before = {
            number: signal.signal(number, self._end)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked += 1
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"\0")

    def wait(self, timeout_ms: int, *also: int) -> bool:
        """Whether it is time to end."""
        if not self.asked:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            poll.register(sys.stdout.fileno(), 0)
            for fd in also:
                poll.register(fd, select.POLLIN)
            for fd, events in poll.poll(timeout_ms):
                if fd == sys.stdout.fileno() and events & (select.POLLERR | select.POLLHUP):
                    raise BrokenPipeError
        return self.asked > 0


class _NameKeeper:
    """Asks the engines for names beside the trace: at start, at their events, for unknown
    containers."""

    def __init__(
        self, engines: Sequence[EngineSettings], clock: Clock, names: Names, say: Say
    ) -> None:
        self._lists = EngineLists(
            {one.name: KeptList(engine_of(one, clock), clock, lambda: None) for one in engines}
        )
        self._names = names
        self._say = say
        self._due = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="names", daemon=True)
        self._events = [events_of(one, clock, lambda *_: self._due.set()) for one in engines]
        self._asked: frozenset[str] = frozenset()

    def start(self) -> None:
        self._due.set()
        self._thread.start()
        for events in self._events:
            events.start()

    def ask_for(self, containers: Iterable[str]) -> None:
        """Each container is asked for once; the engines' events tell of the rest."""
        now = frozenset(containers)
        if not now <= self._asked:
            self._asked = now
            self._due.set()

    def _keep(self) -> None:
        away: set[str] = set()
        while not self._ending.is_set():
            self._due.wait()
            self._due.clear()
            if self._ending.is_set():
                return
            asked = frozenset(self._asked)
            found: dict[str, str] = {}
            for name, answer in self._lists.ask().items():
                if isinstance(answer, EngineUnavailableError):
                    if name not in away:
                        self._say(f"Containers go by their ids: {answer}")
                    away.add(name)
                else:
                    away.discard(name)
                    for one in answer.containers:
                        found.setdefault(one.id, one.name)
            # Where no name comes nothing has to wait for one.
            self._names.learn_names(found, asked)
            self._ending.wait(_NAME_PAUSE_S)

    def close(self) -> None:
        """Does not wait for any engine: the threads end with the process."""
        self._ending.set()
        self._due.set()
        self._lists.close()


class _Trace:
    """One trace, from the first event to the totals."""

    def __init__(
        self,
        wanted: Wanted,
        ring: Ring[EventRecord],
        probes: Probes,
        names: Names,
        keeper: _NameKeeper,
        clock: Clock,
        say: Say,
        waiting: _Waiting,
    ) -> None:
        self._wanted = wanted
        self._ring = ring
        self._keeper = keeper
        self._names = names
        self._clock = clock
        self._say = say
        self._waiting = waiting
        counters = probes.maps["counters"]
        self._counters = Map(counters.fd, counters.key_size, counters.value_size * possible_cpus())
        self._reorder: Reorder[EventRecord] = Reorder()
        self._ripe: list[EventRecord] = []
        # Once for all events: an offset taken again each round would put them out of order.
        self._wall_ns = clock.wall_ns() - clock.boot_ns()
        self._colour = is_terminal()
        self._shown = 0
        self._lost = 0

    def run(self) -> int:
        deadline = None
        if self._wanted.duration_s is not None:
            deadline = self._clock.boot_ns() + int(self._wanted.duration_s * 10**9)
        try:
            if not self._wanted.as_json:
                self._write([trace.HEADER])
            while True:
                over = deadline is not None and self._clock.boot_ns() >= deadline
                pause_ms = 0 if self._round() > _MANY else _ROUND_MS
                if over or self._waiting.wait(pause_ms):
                    break
            self._drain()
            self._ripe += self._reorder.rest()
            self._show_ripe(wait_for_names=False)
            self._end()
        except BrokenPipeError:
            # Nobody reads: nothing may be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        return 0

    def _round(self) -> int:
        """Shows what has come and gives how many events that were."""
        read_ns = self._clock.boot_ns()
        raw = self._ring.read()
        self._ripe += self._reorder.put(raw, read_ns)
        self._show_ripe(wait_for_names=bool(self._wanted.filter.containers))
        self._keeper.ask_for(self._names.asked)
        self._tell_losses()
        return len(raw)

    def _drain(self) -> None:
        """Shows what is in the buffer now; a second Ctrl-C leaves it there, counted as lost."""
        left = self._ring.waiting
        while left > 0 and self._waiting.asked < 2 and (shown := self._round()):
            left -= shown
        self._lost += self._ring.waiting if self._waiting.asked > 1 else 0

    def _show_ripe(self, *, wait_for_names: bool) -> None:
        """With a container asked for by name, what is still without one holds up the rest a moment:
        a container's first events come before Docker tells what it is called."""
        shown: list[TraceEvent] = []
        old_ns = self._clock.boot_ns() - _NAME_WAIT_NS
        done = 0
        for raw in self._ripe:
            if raw.kind == EventKind.MKDIR:
                self._names.learn_cgroup(raw.cgroup_id, raw.other_id, records.c_text(raw.text))
            if wait_for_names and raw.time_ns > old_ns and not self._names.is_named(raw.cgroup_id):
                self._names.of(raw.cgroup_id)
                break
            done += 1
            event = self._event(raw)
            if (
                not self._wanted.events or event.event in self._wanted.events
            ) and self._wanted.filter.passes(event):
                shown.append(event)
        del self._ripe[:done]
        self._shown += len(shown)
        if shown:
            self._write([self._line(one) for one in shown])

    def _event(self, raw: EventRecord) -> TraceEvent:
        kind = Kind[EventKind(raw.kind).name]
        text = records.c_text(raw.text)
        container_id, name = self._names.of(raw.cgroup_id)
        status = number = None
        if kind is Kind.EXIT:
            text, status, number = trace.exit_detail(
                raw.exit_code, oom=bool(raw.oom), lived_ns=raw.time_ns - raw.start_ns
            )
        return TraceEvent(
            time_ns=raw.time_ns + self._wall_ns,
            event=kind,
            pid=raw.pid,
            ppid=raw.ppid,
            start_ns=raw.start_ns,
            comm=records.c_text(raw.comm),
            container=name,
            container_id=container_id,
            cgroup_id=raw.cgroup_id,
            detail=text,
            cut=bool(raw.cut),
            exit_code=status,
            signal=number,
            oom=bool(raw.oom) or kind is Kind.OOM,
        )

    def _line(self, event: TraceEvent) -> str:
        if self._wanted.as_json:
            return streams.json_text(event)
        return trace.line(event, colour=self._colour)

    def _write(self, lines: Sequence[str]) -> None:
        """Past sys.stdout: CPython 3.11's loses bytes when a signal comes amid a blocked write."""
        left = memoryview(streams.encoded("\n".join(lines) + "\n"))
        try:
            while left:
                left = left[os.write(sys.stdout.fileno(), left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise streams.unwritable(error) from error

    def _tell_losses(self) -> None:
        raw = self._counters.lookup(bytes(4)) or b""
        lost = sum(
            records.CpuCounters(*fields).lost_events
            for fields in records.CPU_COUNTERS.iter_unpack(raw)
        )
        new, self._lost = lost - self._lost, lost
        if new and self._wanted.as_json:
            self._write(
                [self._line(TraceEvent(time_ns=self._clock.wall_ns(), event=Kind.LOST, lost=new))]
            )
        elif new:
            self._say(f"{new} events lost: they came faster than they could be shown.")

    def _end(self) -> None:
        if self._wanted.as_json:
            self._write(
                [
                    self._line(
                        TraceEvent(
                            time_ns=self._clock.wall_ns(),
                            event=Kind.END,
                            events=self._shown,
                            lost=self._lost,
                        )
                    )
                ]
            )
        self._say(f"{self._shown} events shown, {self._lost} lost.")
