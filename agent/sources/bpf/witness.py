"""The second witness: what the kernel's own events say of which process is in which cgroup.

The agent starts it beside its loop, asks it at every tick, and runs without it where the host
cannot have it. Neither the modules nor `/proc` are asked here, or it would be no second witness.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.clock import Clock
from agent.errors import SourceError
from agent.model.bpf import BpfView, CgroupEvents, CgroupName, ProcessExit, Seam
from agent.model.container import Hierarchy
from agent.model.oom import OomMark
from agent.model.process import ProcessKey
from agent.sources.bpf import records
from agent.sources.bpf.exits import Exits, Gatherer
from agent.sources.bpf.kept import DIRECTORY
from agent.sources.bpf.loader import read_counters
from agent.sources.bpf.names import CgroupNames
from agent.sources.bpf.offsets import EXIT_BYTES
from agent.sources.bpf.ooms import Ooms, kernel_symbols
from agent.sources.bpf.programs import Order
from agent.sources.bpf.startup import HandoverError, Probes, Startup
from agent.sources.bpf.support import BpfSupport, probe_support
from agent.sources.bpf.syscall import Map, possible_cpus, program_runs
from agent.sources.bpf.table import ProcessTable

__all__ = [
    "BpfState",
    "BpfSupport",
    "BpfView",
    "CgroupEvents",
    "ProcessExit",
    "Seam",
    "Witness",
    "probe_support",
]

log = logging.getLogger(__name__)

_DEADLINE_NS = 300 * 10**9
"""A compile takes a second natively and half a minute under emulation."""
_KEEP_GONE_NS = 60 * 10**9
"""A removed cgroup's record and name stay this long after it was first seen so, and until a tick
has accounted for it: its processes are freed later than its directory, and every reader of the
totals shall have met it."""

_WITHOUT = {
    "on_name": "lives of containers between two ticks may be nobody's: this kernel refuses the "
    "probe of cgroups' names.",
    "on_oom": "OOM kills are known by the kernel's log alone: this kernel refuses their probe.",
}

_TRIES = 3

_LATE_NS = 20 * 10**9
"""The kernel tells of an ended process's freeing within a grace period of RCU. One that has been
gone for this long and was not told of never will be."""


@dataclass(frozen=True, slots=True)
class BpfState:
    """Whether the probes are there; `reason` and `hint` are sentences for a person: why they are
    not, or what is missing of them."""

    status: Literal["starting", "ready", "off"]
    reason: str = ""
    hint: str = ""


class Witness:
    """The probes of one agent, from their start to the last descriptor."""

    def __init__(self, startup: Startup | None, state: BpfState, clock: Clock) -> None:
        self._startup = startup
        self._state = state
        self._clock = clock
        self._started_ns = clock.boot_ns()
        self._probes: Probes | None = None
        self._table: ProcessTable | None = None
        self._exits: Gatherer | None = None
        self._ooms: Ooms | None = None
        self._names: CgroupNames | None = None
        self._seam = Seam()
        self._gone_since: dict[int, int] = {}
        self._ended_since: dict[ProcessKey, int] = {}
        self._late = 0
        self._read_ns = 0
        self._accounted_ns = 0
        """When the reading was that the last mark belongs to."""

    @classmethod
    def start(
        cls,
        hierarchy: Hierarchy,
        clock: Clock,
        support: BpfSupport | None = None,
        directory: Path = DIRECTORY,
    ) -> Witness:
        """Returns at once; where it cannot work the state says why.

        `directory` keeps what was compiled for this kernel.
        """
        problem = (support or probe_support()).problem
        if problem:
            return cls(None, BpfState("off", *problem), clock)
        startup = Startup(Order("witness", str(hierarchy)), directory)
        return cls(startup, BpfState("starting"), clock)

    @property
    def state(self) -> BpfState:
        return self._state

    @property
    def probes(self) -> Probes | None:
        """What was handed over, once the state is ready."""
        return self._probes

    def fileno(self) -> int | None:
        """Readable when poll() has something to pick up; None when nothing is awaited."""
        return self._startup.fileno() if self._startup else None

    def poll(self) -> BpfState:
        """Picks up the descriptors if they have come. Never blocks, never raises."""
        if self._startup is None:
            return self._state
        try:
            self._probes = self._startup.poll()
        except HandoverError as error:
            self._end_startup(BpfState("off", error.message, error.hint))
            return self._state
        if self._probes is None:
            if self._clock.boot_ns() - self._started_ns > _DEADLINE_NS:
                hint = "Try `agent bpf check`, which shows what the compiler says."
                self._end_startup(
                    BpfState("off", "Starting the BPF probes took longer than 300 s.", hint)
                )
            return self._state
        handover, maps = self._probes.handover, self._probes.maps
        self._table = ProcessTable(maps["slots"], maps["generations"], maps["spilled"])
        cpus = possible_cpus()

        def counters() -> list[records.CpuCounters]:
            return read_counters(maps["counters"], cpus)

        self._ooms = Ooms(maps["ooms"].fd, counters, kernel_symbols())
        self._names = CgroupNames(maps["names"].fd, counters)
        buffers = (self._ooms, self._names)
        self._exits = Gatherer(Exits(maps["exits"].fd, EXIT_BYTES), counters, buffers)
        self._exits.start()
        self._seam = Seam(*handover.seam)
        log.info(
            "bpf=ready kept=%s bcc=%s headers=%s compile_ms=%d attach_ms=%d seam=%d/%d/%d",
            "yes" if handover.kept else "no",
            handover.bcc,
            handover.headers,
            handover.compile_ms,
            handover.attach_ms,
            *handover.seam,
        )
        self._end_startup(BpfState("ready", *_missing(handover.without)))
        return self._state

    def _end_startup(self, state: BpfState) -> None:
        if self._startup is not None:
            self._startup.close()
            self._startup = None
        self._state = state

    def witness(self, snapshot_ns: int | None = None) -> BpfView:
        """`read`, and `mark` with `snapshot_ns` or this moment."""
        view = self.read()
        self.mark(snapshot_ns or view.read_ns)
        return view

    def mark(self, snapshot_ns: int) -> None:
        """Processes that begin after this moment (boot clock) and end before the next mark are
        short-lived, and the last reading is accounted for: what was gone by then may be forgotten.
        Raises SourceError as `read` does."""
        if self._probes is None:
            raise SourceError("The BPF probes are not there.", self._state.hint)
        controls = self._probes.maps["controls"]
        controls.update(bytes(4), records.CONTROL.pack(snapshot_ns))
        self._accounted_ns = self._read_ns

    def read(self) -> BpfView:
        """What the maps hold now.

        Raises SourceError while the state is not ready, or where the kernel refuses a reading.
        """
        if self._probes is None or self._table is None or self._exits is None:
            raise SourceError("The BPF probes are not there.", self._state.hint)
        maps, table = self._probes.maps, self._table
        read_ns = self._read_ns = self._clock.boot_ns()
        named = self._names.ids() if self._names is not None else frozenset()
        table.read()
        for _ in range(_TRIES):
            totals_ns = self._clock.boot_ns()
            totals, parents, born, gone = _read_cgroups(maps["cgroups"])
            # Who ended meanwhile would be in the totals and among the living.
            if not table.read():
                break
        gathered = self._exits.gather(totals_ns)
        counters = gathered.counters
        self._release(table, read_ns)
        missed = sum(program_runs(fd).missed for fd in self._probes.programs.values())
        lost = sum(one.lost_processes + one.lost_cgroups for one in counters)
        if self._ooms is not None:
            lost += self._ooms.lost
        names: Mapping[int, CgroupName] = {}
        if self._names is not None:
            # After the totals: whatever is in them has its name by now.
            names = self._names.read(gone=named - totals.keys())
            lost += self._names.lost
        self._sweep(maps["cgroups"], gone, read_ns)
        gone_keys = table.released
        return BpfView(
            read_ns=read_ns,
            cgroup_ids=_without(table.cgroup_ids, gone_keys),
            exiting=_without(table.ended, gone_keys),
            moved_cpu_ns=_without(table.moved_cpu_ns, gone_keys),
            totals=totals,
            parents=parents,
            born=born,
            gone=gone,
            lost=lost + gathered.lost + missed,
            seam=self._seam,
            settled=frozenset(table.ended),
            pointer_ids=_without(table.pointer_ids, gone_keys),
            corrected=sum(one.corrected for one in counters),
            late=self._late + sum(one.late for one in counters),
            missed=missed,
            exits=gathered.exits,
            short_lived=gathered.short_lived,
            names=names,
            long_names=sum(one.long_names for one in counters),
        )

    def ooms(self) -> tuple[OomMark, ...]:
        """Who was killed for lack of memory since the last call; none while the state is not ready.

        Raises SourceError where the kernel refuses a reading.
        """
        return self._ooms.take() if self._ooms is not None else ()

    def ended(self) -> tuple[ProcessExit, ...]:
        """The latest processes that ended since the last call, whoever read in between."""
        return self._exits.ended() if self._exits is not None else ()

    def _release(self, table: ProcessTable, now_ns: int) -> None:
        """Gives up records of ended processes whose freeing was not told; each is `late`."""
        waiting = table.ended.keys() - table.released
        since = {key: self._ended_since.get(key, now_ns) for key in waiting}
        for key in [key for key, first in since.items() if now_ns - first > _LATE_NS]:
            if _is_there(key.pid):  # a zombie that nobody reaps
                continue
            table.release(key)
            self._late += 1
            del since[key]
        self._ended_since = since

    def _sweep(self, cgroups: Map, gone: frozenset[int], now_ns: int) -> None:
        for cgroup_id in gone:
            since = self._gone_since.setdefault(cgroup_id, now_ns)
            if now_ns - since > _KEEP_GONE_NS and since <= self._accounted_ns:
                cgroups.delete(records.CGROUP_KEY.pack(cgroup_id))
                if self._exits is not None:
                    self._exits.forget(cgroup_id)
                del self._gone_since[cgroup_id]
        for cgroup_id in self._gone_since.keys() - gone:
            del self._gone_since[cgroup_id]

    def close(self) -> None:
        """Detaches everything. A second call does nothing."""
        self._end_startup(BpfState("off", "closed"))
        if self._table is not None:
            self._table.close()
            self._table = None
        if self._exits is not None:
            self._exits.close()
            self._exits = None
        if self._ooms is not None:
            self._ooms.close()
            self._ooms = None
        if self._names is not None:
            self._names.close()
            self._names = None
        if self._probes is not None:
            self._probes.close()
            self._probes = None


def _missing(without: Sequence[str]) -> tuple[str, str]:
    """What follows from programs that this kernel refuses, and what to do; "" without any."""
    if not without:
        return "", ""
    reason = " ".join(_WITHOUT[one] for one in sorted(without))
    return reason[:1].upper() + reason[1:], "Report what `agent start` logs as bpf=partial."


def _without(known: dict[ProcessKey, int], keys: set[ProcessKey]) -> dict[ProcessKey, int]:
    """A copy that later readings leave as it is."""
    copy = dict(known)
    for key in keys:
        copy.pop(key, None)
    return copy


def _read_cgroups(
    cgroups: Map,
) -> tuple[dict[int, CgroupEvents], dict[int, int], frozenset[int], frozenset[int]]:
    totals: dict[int, CgroupEvents] = {}
    parents: dict[int, int] = {}
    born: list[int] = []
    gone: list[int] = []
    for keys, values in cgroups.chunks():
        for (cgroup_id,), fields in zip(
            records.CGROUP_KEY.iter_unpack(keys),
            records.CGROUP_RECORD.iter_unpack(values),
            strict=True,
        ):
            record = records.CgroupRecord(*fields)
            totals[cgroup_id] = CgroupEvents(*record[1:10])
            parents[cgroup_id] = record.parent_id
            if record.born:
                born.append(cgroup_id)
            if record.gone:
                gone.append(cgroup_id)
    return totals, parents, frozenset(born), frozenset(gone)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
