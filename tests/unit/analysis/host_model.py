"""A small model of a host: containers, forks, moves, exits and pids that are used again.

It keeps the truth that the kernel keeps: a tree of PID namespaces, who made each, where each
process was born.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis.strategies as st

from agent.model.process import ProcessKey
from tests.unit.analysis.attribution_scene import (
    HOST_CGROUP,
    HOST_PID_NS,
    HOST_UTS_NS,
    ZOMBIE,
    Proc,
)

MAX_PID = 40
"""Few pids, so that they are used again all the time."""


@dataclass(slots=True)
class Box:
    """One container of the model."""

    key: str
    first: Proc
    pid_ns: int
    uts_ns: int
    cgroups: list[int]
    created_ns: int


@dataclass(slots=True)
class Life:
    """What the model knows of a process and no source tells."""

    origin: str
    """Key of the container in which it was born, "" for the host."""
    meddled: bool = False
    """Moved by hand, or in namespaces that it made itself."""


@dataclass(slots=True)
class World:
    now: int = 1000
    numbers: int = 5000
    procs: dict[int, Proc] = field(default_factory=dict)
    lives: dict[ProcessKey, Life] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    around: dict[int, int] = field(default_factory=dict)
    """PID namespace → the one around it."""
    makers: dict[int, str] = field(default_factory=dict)
    """PID namespace → the container for which Docker made it."""
    inits: dict[int, ProcessKey] = field(default_factory=dict)

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def born(
        self,
        *,
        cgroup: int,
        pid_ns: int,
        uts_ns: int,
        ppid: int,
        origin: str,
        is_init: bool = False,
    ) -> Proc | None:
        free = [pid for pid in range(3, MAX_PID) if pid not in self.procs]
        if not free:
            return None
        self.now += 1
        pid = free[self.now % len(free)]
        proc = Proc(pid, self.now, cgroup, pid_ns, uts_ns, ppid, 1 if is_init else pid + 1)
        self.procs[pid] = proc
        self.lives[proc.key] = Life(origin)
        if is_init:
            self.inits[pid_ns] = proc.key
        return proc

    # What may happen. `a` and `b` choose among what there is.

    def start(self, a: int, b: int) -> None:
        if len(self.boxes) >= 5:
            return
        key = f"{self.number():064x}"
        shared = self.pick_box(b)
        pid_ns = [self.number(), self.number(), HOST_PID_NS, shared.pid_ns if shared else 0][a % 4]
        pid_ns = pid_ns or self.number()
        uts_ns = HOST_UTS_NS if b % 3 == 0 else self.number()
        fresh = pid_ns not in self.around and pid_ns != HOST_PID_NS
        cgroup = self.number()
        first = self.born(
            cgroup=cgroup, pid_ns=pid_ns, uts_ns=uts_ns, ppid=1, origin=key, is_init=fresh
        )
        if first is None:
            return
        if fresh:
            self.around[pid_ns] = HOST_PID_NS
            self.makers[pid_ns] = key
        self.boxes[key] = Box(key, first, pid_ns, uts_ns, [cgroup], self.now)

    def stop(self, a: int, b: int) -> None:
        if box := self.pick_box(a):
            self.end_box(box)

    def exec_in(self, a: int, b: int) -> None:
        if box := self.pick_box(a):
            self.born(
                cgroup=box.cgroups[0],
                pid_ns=box.pid_ns,
                uts_ns=box.uts_ns,
                ppid=1,
                origin=box.key,
            )

    def fork(self, a: int, b: int) -> None:
        if (parent := self.pick(a)) is None:
            return
        child = self.born(
            cgroup=parent.cgroup,
            pid_ns=parent.pid_ns,
            uts_ns=parent.uts_ns,
            ppid=parent.pid,
            origin=self.lives[parent.key].origin,
        )
        if child:
            self.lives[child.key].meddled = self.lives[parent.key].meddled

    def unshare_pid(self, a: int, b: int) -> None:
        if (parent := self.pick(a)) is None:
            return
        inner = self.number()
        child = self.born(
            cgroup=parent.cgroup,
            pid_ns=inner,
            uts_ns=parent.uts_ns,
            ppid=parent.pid,
            origin=self.lives[parent.key].origin,
            is_init=True,
        )
        if child:
            self.around[inner] = parent.pid_ns
            self.lives[child.key].meddled = self.lives[parent.key].meddled

    def unshare_uts(self, a: int, b: int) -> None:
        if proc := self.pick(a):
            proc.uts_ns = self.number()

    def mkdir(self, a: int, b: int) -> None:
        if (box := self.pick_box(a)) and len(box.cgroups) < 4:
            box.cgroups.append(self.number())

    def settle(self, a: int, b: int) -> None:
        """A container's process goes into a cgroup that its container made."""
        if (proc := self.pick(a)) and (box := self.box_of(proc.cgroup)):
            proc.cgroup = box.cgroups[b % len(box.cgroups)]

    def move(self, a: int, b: int) -> None:
        targets = [HOST_CGROUP, *(box.cgroups[-1] for box in self.boxes.values())]
        if proc := self.pick(a):
            proc.cgroup = targets[b % len(targets)]
            self.lives[proc.key].meddled = True

    def exit(self, a: int, b: int) -> None:
        if proc := self.pick(a):
            self.end(proc, leaves_zombie=b % 3 == 0)

    def reap(self, a: int, b: int) -> None:
        zombies = [proc for proc in self.procs.values() if proc.state == ZOMBIE]
        if zombies:
            del self.procs[zombies[a % len(zombies)].pid]

    def unit(self, a: int, b: int) -> None:
        """A host service with private namespaces."""
        own = a % 2 == 0
        pid_ns = self.number() if own else HOST_PID_NS
        proc = self.born(
            cgroup=HOST_CGROUP,
            pid_ns=pid_ns,
            uts_ns=self.number() if b % 2 else HOST_UTS_NS,
            ppid=1,
            origin="",
            is_init=own,
        )
        if proc and own:
            self.around[pid_ns] = HOST_PID_NS

    # How the kernel goes about it.

    def end(self, proc: Proc, *, leaves_zombie: bool) -> None:
        for box in tuple(self.boxes.values()):
            if box.first is proc:
                return self.end_box(box)
        if self.inits.get(proc.pid_ns) == proc.key:
            return self.end_namespace(proc.pid_ns)
        self.orphan(proc)
        if leaves_zombie:
            proc.state, proc.vsz_kb = ZOMBIE, 0
        else:
            self.procs.pop(proc.pid, None)
        return None

    def orphan(self, proc: Proc) -> None:
        """Children go to the init of their father's PID namespace (find_new_reaper)."""
        init = self.inits.get(proc.pid_ns)
        for child in self.procs.values():
            if child.ppid == proc.pid:
                child.ppid = init.pid if init and init != proc.key else 1

    def end_namespace(self, pid_ns: int) -> None:
        inside = [proc for proc in self.procs.values() if self.is_within(proc.pid_ns, pid_ns)]
        for proc in inside:
            self.procs.pop(proc.pid, None)
        for proc in inside:
            self.orphan(proc)
        self.inits.pop(pid_ns, None)
        for box in tuple(self.boxes.values()):
            if box.first in inside:
                self.end_box(box)

    def end_box(self, box: Box) -> None:
        if self.boxes.pop(box.key, None) is None:
            return
        for proc in tuple(self.procs.values()):
            if proc is box.first or proc.cgroup in box.cgroups:
                if self.inits.get(proc.pid_ns) == proc.key:
                    self.end_namespace(proc.pid_ns)
                elif proc.pid in self.procs:
                    self.orphan(proc)
                    self.procs.pop(proc.pid, None)
                    for other in tuple(self.boxes.values()):
                        if other.first is proc:
                            self.end_box(other)

    # Questions.

    def pick(self, a: int) -> Proc | None:
        living = [proc for proc in self.procs.values() if proc.state != ZOMBIE]
        return living[a % len(living)] if living else None

    def pick_box(self, a: int) -> Box | None:
        boxes = list(self.boxes.values())
        return boxes[a % len(boxes)] if boxes else None

    def box_of(self, cgroup: int) -> Box | None:
        return next((box for box in self.boxes.values() if cgroup in box.cgroups), None)

    def is_within(self, pid_ns: int, outer: int) -> bool:
        while pid_ns != outer and pid_ns in self.around:
            pid_ns = self.around[pid_ns]
        return pid_ns == outer

    def home(self, pid_ns: int) -> tuple[int, frozenset[str]]:
        """The nearest PID namespace around that containers run in, and those containers."""
        while pid_ns != HOST_PID_NS:
            keys = frozenset(box.key for box in self.boxes.values() if box.pid_ns == pid_ns)
            if keys:
                return pid_ns, keys
            pid_ns = self.around.get(pid_ns, HOST_PID_NS)
        return HOST_PID_NS, frozenset()


ACTIONS: tuple[Callable[[World, int, int], None], ...] = (
    World.start,
    World.start,
    World.exec_in,
    World.fork,
    World.fork,
    World.unshare_pid,
    World.unshare_uts,
    World.mkdir,
    World.settle,
    World.move,
    World.move,
    World.exit,
    World.reap,
    World.unit,
    World.stop,
)
Steps = list[tuple[int, int, int]]


def steps(least: int, most: int) -> st.SearchStrategy[Steps]:
    step = st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 999), st.integers(0, 999))
    return st.lists(step, min_size=least, max_size=most)


def play(world: World, what: Steps) -> None:
    for action, a, b in what:
        ACTIONS[action](world, a, b)
