"""`agent bpf check --canary`: proves on this very host that what is told of a container is true.

A throw-away container leads a known life; each thing asked of it is held against what the agent's
own sources, attribution and accounts say of it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.analysis.cpu_accounting import owners
from agent.clock import Clock
from agent.config import Config
from agent.daemon.watch import Watch, bpf_of, cgroups_of, watching
from agent.model.attribution import Basis, Verified
from agent.model.bpf import BpfView, CgroupEvents
from agent.model.container import ContainerCgroup
from agent.model.process import Source
from agent.model.tick import Tick
from agent.selftest import lines as canary
from agent.selftest.container import Canary, CanaryError
from agent.selftest.lines import Line
from agent.sources.bpf.programs import Handover
from agent.sources.bpf.syscall import enable_statistics, program_runs
from agent.sources.cgroup import reader
from agent.util import streams
from agent.util.terminal import Say

_CHILDREN = 1000
_BURN_NS = 10**9
_ANONYMOUS, _TMPFS, _CACHED = 32 << 20, 16 << 20, 16 << 20
_SETTLE_S = 30.0

T = TypeVar("T")


def run(config: Config, clock: Clock, *, as_json: bool) -> int:
    """Prints asked against measured. 0 where all of it holds, 1 where a line is off."""
    say = Say(sys.stderr)
    say("Starting probes and a throw-away container …")
    with watching(config, clock, say) as watch:
        statistics = enable_statistics()
        try:
            with Canary(config.docker_host) as bird:
                lines = _Examination(watch, bird).lines()
        finally:
            os.close(statistics)
    if watch.problem:
        say(f"First witness: /proc instead of the modules. {watch.problem}")
    if as_json:
        document = {
            "kernel": os.uname().release,
            "right": canary.is_alive(lines),
            "lines": [
                {**msgspec.to_builtins(line), "error": line.error, "is_right": line.is_right}
                for line in lines
            ],
        }
        streams.out(streams.json_text(document))
    else:
        streams.out("\n".join(canary.text(lines)))
    return 0 if canary.is_alive(lines) else 1


@dataclass(frozen=True, slots=True)
class _Sighting:
    seen: Tick
    cgroup: ContainerCgroup
    events: CgroupEvents


class _Examination:
    """One canary's life, from birth to the table."""

    def __init__(self, watch: Watch, bird: Canary) -> None:
        self._watch = watch
        self._bird = bird
        self._root = reader.detect().root

    def lines(self) -> list[Line]:
        bird = self._bird
        sleeper = bird.ask("sleeper")["pid"]
        bird.execute(600)
        first = self._until(
            self._moment, lambda moment: len(self._processes(moment)) == 3, "3 processes"
        )
        nested = self._nest(first, sleeper)
        try:
            return [
                *self._attribution(),
                *self._children(),
                *self._cpu(),
                *self._memory(),
                *self._probes(),
            ]
        finally:
            self._witness_nested_end(nested)

    def _moment(self) -> _Sighting | None:
        """None while Docker or the kernel does not show the container yet."""
        seen = self._watch.look()
        cgroup = cgroups_of(seen).containers.get(self._bird.key)
        if cgroup is None or not cgroup.path:
            return None
        return _Sighting(seen, cgroup, self._events(bpf_of(seen), seen))

    def _events(self, view: BpfView, seen: Tick) -> CgroupEvents:
        owner = owners(view, cgroups_of(seen))
        total = CgroupEvents()
        for cgroup_id, events in view.totals.items():
            if owner.get(cgroup_id) == self._bird.key:
                total = total.plus(events)
        return total

    def _now(self) -> _Sighting:
        moment = self._moment()
        if moment is None:
            raise CanaryError("The canary's cgroup is gone.", "Was its container removed?")
        return moment

    def _until(self, read: Callable[[], T | None], enough: Callable[[T], bool], what: str) -> T:
        deadline = time.monotonic() + _SETTLE_S
        while (value := read()) is None or not enough(value):
            if time.monotonic() > deadline:
                raise CanaryError(
                    f"Not within {_SETTLE_S:g} s: {what}.", "Look at the host's load."
                )
            time.sleep(0.1)
        return value

    def _processes(self, moment: _Sighting) -> frozenset[int]:
        """The oracle: the kernel's own list of the container's cgroup and those below."""
        pids: set[int] = set()
        for directory, _, _ in os.walk(f"{self._root}{moment.cgroup.path}"):
            with suppress(OSError):
                text = (Path(directory) / "cgroup.procs").read_text(encoding="ascii")
                pids.update(int(word) for word in text.split())
        return frozenset(pids)

    def _nest(self, moment: _Sighting, inner_pid: int) -> Path:
        """A cgroup inside the container's, with the sleeper in it."""
        nested = Path(f"{self._root}{moment.cgroup.path}") / "canary"
        pid = self._outer_pid(moment, inner_pid)
        try:
            nested.mkdir()
            (nested / "cgroup.procs").write_text(str(pid), encoding="ascii")
        except OSError as error:
            raise CanaryError(
                f"A cgroup in the container's is refused: {error.strerror}."
            ) from error
        return nested

    def _outer_pid(self, moment: _Sighting, inner_pid: int) -> int:
        for pid in self._processes(moment):
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                    if line.startswith("NSpid:") and int(line.split()[-1]) == inner_pid:
                        return pid
        raise CanaryError("The canary's child is not to be found.")

    def _witness_nested_end(self, nested: Path) -> None:
        """The directory goes when its process has been killed."""
        with suppress(OSError):
            for word in (nested / "cgroup.procs").read_text(encoding="ascii").split():
                _kill_member(nested, int(word))
            deadline = time.monotonic() + 5
            while (nested / "cgroup.procs").read_text(encoding="ascii").split():
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)
            nested.rmdir()

    def _attribution(self) -> list[Line]:
        moment = self._now()
        pids = self._processes(moment)
        rows = [row for row in moment.seen.attribution.rows if row.container == self._bird.key]
        right = [
            row
            for row in rows
            if row.process.pid in pids
            and row.verified is Verified.AGREE
            and row.basis is Basis.CGROUP
        ]
        return [
            Line("processes attributed", len(pids), len(rows), "", 0, "nested and exec included"),
            Line("of these agreed on by BPF", len(pids), len(right), ""),
        ]

    def _children(self) -> list[Line]:
        before = self._now()
        answer = self._bird.ask("children", count=_CHILDREN)
        wanted = before.events.exits + _CHILDREN
        after = self._until(
            self._moment, lambda moment: moment.events.exits >= wanted, f"{_CHILDREN} exits"
        )
        events = after.events.since(before.events)
        lost = bpf_of(after.seen).lost - bpf_of(before.seen).lost
        each = answer["elapsed_ns"] / _CHILDREN / 1e6
        return [
            Line("children born", _CHILDREN, events.forks, "", 0, f"{each:.2f} ms each"),
            Line("children ended", _CHILDREN, events.exits, ""),
            Line("events lost", 0, lost, ""),
        ]

    def _cpu(self) -> list[Line]:
        before = self._now()
        spent = self._bird.ask("burn", cpu_ns=_BURN_NS)["cpu_ns"]
        wanted = before.events.cpu_exited_ns + spent * 9 // 10
        after = self._until(
            self._moment,
            lambda moment: moment.events.cpu_exited_ns >= wanted,
            "the burnt CPU is in the accounts",
        )
        burnt = after.events.since(before.events).cpu_exited_ns
        lines = [Line("CPU burnt by a child", spent / 1e6, burnt / 1e6, "ms", 0.02)]
        share = self._watch.against(before.seen.carried, after.seen).cpu_shares.get(self._bird.key)
        if share and after.seen.sample.snapshot.source is Source.MODULES:
            explained = share.usage_ns - share.unexplained_ns
            lines.append(
                Line("cgroup's CPU explained", share.usage_ns / 1e6, explained / 1e6, "ms", 0.02)
            )
        return lines

    def _memory(self) -> list[Line]:
        before = self._now().cgroup
        self._bird.ask("hold", anonymous=_ANONYMOUS, tmpfs=_TMPFS, cached=_CACHED)
        after = self._now().cgroup
        if before.held_kb is None or after.held_kb is None:
            return []
        held = after.held_kb - before.held_kb
        cached = (after.cache_kb or 0) - (before.cache_kb or 0)
        return [
            Line("memory held", (_ANONYMOUS + _TMPFS) / 2**20, held / 1024, "MB", 0.05),
            Line("page cache", _CACHED / 2**20, cached / 1024, "MB", 0.05),
        ]

    def _probes(self) -> list[Line]:
        probes = self._watch.witness.probes
        if probes is None:
            return []
        runs = [program_runs(fd) for fd in probes.programs.values()]
        lines = [
            Line(
                f"probe {name}",
                None,
                one.run_ns / one.run_count / 1000 if one.run_count else 0.0,
                "us",
                note=f"a run, {one.run_count} runs",
            )
            for name, one in zip(probes.programs, runs, strict=True)
        ]
        total = sum(_map_bytes(one.fd) for one in probes.maps.values())
        lines.append(Line("memory of the maps", None, total / 1024, "KB"))
        lines.append(Line("compile and attach", None, _ready_ms(probes.handover), "ms"))
        return lines


def _ready_ms(handover: Handover) -> float:
    return float(handover.compile_ms + handover.attach_ms)


def _map_bytes(fd: int) -> int:
    """`memlock` of the descriptor: what the kernel has taken for the map."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "memlock":
            return int(value)
    return 0


def _kill_member(cgroup: Path, pid: int) -> None:
    """Kills a process if it is in the cgroup: its pid may be another's by now. Raises OSError."""
    descriptor = os.pidfd_open(pid)
    try:
        if str(pid) in (cgroup / "cgroup.procs").read_text(encoding="ascii").split():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
