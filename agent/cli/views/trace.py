"""What `agent bpf trace` shows: raw events in, lines for people or JSON out.

Pure: no kernel, no Docker. Names arrive when they are known; until then a container goes by the id
that its cgroup's directory carries.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import msgspec

from agent.model.cgroup_names import container_like
from agent.util.terminal import fit, printable


class Kind(StrEnum):
    """What happened."""

    FORK = "fork"
    EXEC = "exec"
    EXIT = "exit"
    ATTACH = "attach"
    """Moved into a cgroup."""
    MKDIR = "mkdir"
    RMDIR = "rmdir"
    OOM = "oom"
    LOST = "lost"
    """Events that found no room since the line before."""
    END = "end"


class TraceEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line. In JSON fields that say nothing are left out."""

    time_ns: int
    """Wall clock."""
    event: Kind
    pid: int = 0
    ppid: int = 0
    start_ns: int = 0
    """Boot clock: with `pid` the process for as long as the host is up."""
    comm: str = ""
    container: str = ""
    """Its name, or the short id until Docker has told it; "" for none."""
    container_id: str = ""
    cgroup_id: int = 0
    detail: str = ""
    """exec: the file; exit: how and after how long; attach, mkdir, rmdir: the directory's name."""
    cut: bool = False
    """`detail` is only the beginning: there was no room for the rest."""
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    events: int | None = None
    """`end`: shown in all."""
    lost: int | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are shown; an empty set lets everything pass."""

    containers: frozenset[str] = frozenset()
    """Names, or beginnings of ids."""
    comms: frozenset[str] = frozenset()

    def passes(self, event: TraceEvent) -> bool:
        if self.comms and event.comm not in self.comms:
            return False
        if not self.containers:
            return True
        return bool(event.container_id) and any(
            one == event.container or (len(one) >= 6 and event.container_id.startswith(one))
            for one in self.containers
        )


_MOST_NAMES = 10_000


class Names:
    """Which container a cgroup is of, and what it is called."""

    def __init__(self) -> None:
        self._container: dict[int, str] = {}
        self._name: dict[str, str] = {}
        self._nameless: set[str] = set()
        self.asked: set[str] = set()
        """Containers that came up without a name: a reason to ask Docker."""

    def learn_cgroup(self, cgroup_id: int, parent_id: int, directory: str) -> None:
        """A directory: its own name tells its container, else its parent's container is its."""
        own = container_like(directory)
        container = own[1] if own else self._container.get(parent_id, "")
        if container:
            self._container[cgroup_id] = container
        else:
            self._container.pop(cgroup_id, None)

    def learn_names(self, name_by_id: Mapping[str, str], asked: Iterable[str] = ()) -> None:
        """What Docker calls its containers now; of those in `asked` the others are not Docker's.

        Names of removed containers stay for events that are still to be shown.
        """
        name = {**self._name, **name_by_id}
        surplus = len(name) - _MOST_NAMES
        for old in [one for one in name if one not in name_by_id][: max(0, surplus)]:
            del name[old]
        self._nameless = set(asked) - name.keys()
        self._name = name

    def of(self, cgroup_id: int) -> tuple[str, str]:
        """(full id, name or short id), both "" outside containers."""
        container = self._container.get(cgroup_id, "")
        if not container:
            return "", ""
        name = self._name.get(container)
        if name is None:
            self.asked.add(container)
            return container, container[:12]
        return container, name

    def is_named(self, cgroup_id: int) -> bool:
        """Whether nothing more is to be learnt of it: no container's, or one with a name."""
        container = self._container.get(cgroup_id, "")
        return not container or container in self._name or container in self._nameless


def exit_detail(code: int, *, oom: bool, lived_ns: int) -> tuple[str, int | None, int | None]:
    """(text, exit status or None, signal or None) for a status as wait(2) has it."""
    number = code & 0x7F
    after = f"after {_duration(lived_ns)}" if lived_ns >= 0 else ""
    if number:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        core = ", core dumped" if code & 0x80 else ""
        return f"{name}{core}{', OOM kill' if oom else ''} {after}".strip(), None, number
    return f"status {code >> 8 & 0xFF} {after}".strip(), code >> 8 & 0xFF, None


def _duration(ns: int) -> str:
    if ns < 10**6:
        return f"{ns / 1e3:.0f}us"
    if ns < 10**9:
        return f"{ns / 1e6:.1f}ms"
    return f"{ns / 1e9:.1f}s"


_COMM, _CONTAINER = 15, 25
"""Wide enough for a generated container's whole name."""
HEADER = (
    f"{'TIME':<12} {'EVENT':<6} {'PID':>7} {'PPID':>7} "
    f"{'COMM':<{_COMM}} {'CONTAINER':<{_CONTAINER}} DETAIL"
)

_COLOURS = {
    Kind.FORK: "36",
    Kind.EXEC: "32",
    Kind.EXIT: "90",
    Kind.ATTACH: "33",
    Kind.MKDIR: "34",
    Kind.RMDIR: "34",
    Kind.OOM: "1;31",
}


def line(event: TraceEvent, *, colour: bool = False) -> str:
    """One line of fixed columns, the free text last; what a workload chose steers no terminal."""
    moment = datetime.fromtimestamp(event.time_ns // 10**9, tz=UTC).astimezone()
    time = f"{moment:%H:%M:%S}.{event.time_ns // 10**6 % 1000:03d}"
    kind = f"{event.event:<6}"
    if colour:
        loud = "1;31" if event.oom else _COLOURS.get(event.event, "0")
        kind = f"\x1b[{loud}m{kind}\x1b[0m"
    pid = str(event.pid or "-")
    ppid = str(event.ppid or "-")
    comm = fit(printable(event.comm) or "-", _COMM)
    container = fit(printable(event.container) or "-", _CONTAINER)
    detail = printable(event.detail) + ("…" if event.cut else "")
    text = f"{time} {kind} {pid:>7} {ppid:>7} {comm:<{_COMM}} {container:<{_CONTAINER}} {detail}"
    return text.rstrip()


class Timed(Protocol):
    """Anything with a time."""

    @property
    def time_ns(self) -> int: ...


TimedT = TypeVar("TimedT", bound=Timed)


class Reorder(Generic[TimedT]):
    """Puts events into the order of their times.

    Places in the buffer are taken before the clock is read, so two CPUs' events may stand a moment
    out of order; what is younger than `slack_ns` waits for the next round.
    """

    def __init__(self, slack_ns: int = 1_000_000) -> None:
        self._slack_ns = slack_ns
        self._waiting: list[TimedT] = []

    def put(self, events: Iterable[TimedT], read_ns: int) -> list[TimedT]:
        """Those that are ripe at `read_ns`, the clock just before they were read, in order."""
        self._waiting += events
        self._waiting.sort(key=lambda event: event.time_ns)
        ripe = read_ns - self._slack_ns
        count = len(self._waiting)
        while count and self._waiting[count - 1].time_ns >= ripe:
            count -= 1
        done, self._waiting = self._waiting[:count], self._waiting[count:]
        return done

    def rest(self) -> list[TimedT]:
        """Everything that still waits."""
        done, self._waiting = self._waiting, []
        return done
