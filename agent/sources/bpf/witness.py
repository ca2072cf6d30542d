"""The second witness: what the kernel's own events say of which process is in which cgroup.

The agent starts it beside its loop, asks it at every tick, and runs without it where the host
cannot have it. Neither the modules nor `/proc` are asked here, or it would be no second witness.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.clock import Clock
from agent.errors import SourceError
from agent.model.bpf import BpfView, CgroupEvents, Seam
from agent.model.container import Hierarchy
from agent.model.process import ProcessKey, process_keys
from agent.sources.bpf import records
from agent.sources.bpf.kept import DIRECTORY
from agent.sources.bpf.loader import HandoverError, Probes, Startup
from agent.sources.bpf.programs import Order
from agent.sources.bpf.support import BpfSupport, probe_support
from agent.sources.bpf.syscall import Map, possible_cpus, program_runs

__all__ = ["BpfState", "BpfSupport", "BpfView", "CgroupEvents", "Seam", "Witness", "probe_support"]

log = logging.getLogger(__name__)

_DEADLINE_NS = 300 * 10**9
"""A compile takes a second natively and half a minute under emulation."""
_KEEP_GONE_NS = 60 * 10**9
"""A removed cgroup's record stays this long after it was first seen so: its processes are freed
later than its directory, and every reader of the totals shall have met it."""

_SETTLE_NS = 20 * 10**9
"""The kernel tells of an ended process's last within a grace period of RCU. One that has been gone
for this long and was not told of never will be."""

DISAGREE_VARIABLE = "SO1_TEST_BPF_DISAGREE"
"""Test hook: names a file of lines `PID CGROUP_ID` that this witness then swears to."""


@dataclass(frozen=True, slots=True)
class BpfState:
    """Whether the probes are there; `reason` and `hint` are sentences for a person."""

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
        self._seam = Seam()
        self._cpus = 1
        self._gone_since: dict[int, int] = {}
        self._exiting_since: dict[ProcessKey, int] = {}
        self._settled = 0
        self._settled_cpu_ns: dict[int, int] = {}

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
        handover = self._probes.handover
        self._seam = Seam(*handover.seam)
        self._cpus = possible_cpus()
        log.info(
            "bpf=ready kept=%s bcc=%s headers=%s compile_ms=%d attach_ms=%d seam=%d/%d/%d",
            "yes" if handover.kept else "no",
            handover.bcc,
            handover.headers,
            handover.compile_ms,
            handover.attach_ms,
            *handover.seam,
        )
        self._end_startup(BpfState("ready"))
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
        short-lived. Raises SourceError as `read` does."""
        if self._probes is None:
            raise SourceError("The BPF probes are not there.", self._state.hint)
        controls = self._probes.maps["controls"]
        controls.update(bytes(4), records.CONTROL.pack(snapshot_ns))

    def read(self) -> BpfView:
        """What the maps hold now.

        Raises SourceError while the state is not ready, or where the kernel refuses a reading.
        """
        if self._probes is None:
            raise SourceError("The BPF probes are not there.", self._state.hint)
        maps = self._probes.maps
        read_ns = self._clock.boot_ns()
        cgroup_ids, exiting, moved = _read_processes(maps["processes"])
        totals, parents, born, gone = _read_cgroups(maps["cgroups"])
        self._settle(maps["processes"], cgroup_ids, exiting, moved, read_ns)
        for cgroup_id, cpu_ns in self._settled_cpu_ns.items():
            if cgroup_id in totals:
                totals[cgroup_id] = totals[cgroup_id].plus(CgroupEvents(cpu_ended_ns=cpu_ns))
        lost = self._settled + self._lost(maps["counters"])
        self._sweep(maps["cgroups"], gone, read_ns)
        cgroup_ids.update(_sworn(cgroup_ids))
        return BpfView(
            read_ns, cgroup_ids, exiting, moved, totals, parents, born, gone, lost, self._seam
        )

    def _lost(self, counters: Map) -> int:
        """Everything that could not be kept, programs that did not run included."""
        per_cpu = Map(counters.fd, counters.key_size, counters.value_size * self._cpus)
        lost = 0
        for fields in records.CPU_COUNTERS.iter_unpack(per_cpu.lookup(bytes(4)) or b""):
            one = records.CpuCounters(*fields)
            lost += one.lost_processes + one.lost_cgroups + one.mended
        programs = self._probes.programs.values() if self._probes else ()
        return lost + sum(program_runs(fd).missed for fd in programs)

    def _settle(
        self,
        processes: Map,
        cgroup_ids: dict[ProcessKey, int],
        exiting: dict[ProcessKey, int],
        moved_cpu_ns: dict[ProcessKey, int],
        now_ns: int,
    ) -> None:
        """Closes the accounts of processes whose end was told and whose freeing was not, with what
        they had cost at their end. Each is a lost event."""
        since = {key: self._exiting_since.get(key, now_ns) for key in exiting}
        for key in [key for key, first in since.items() if now_ns - first > _SETTLE_NS]:
            if _is_there(key.pid):  # a zombie that nobody reaps is no loss
                continue
            processes.delete(records.PROCESS_KEY.pack(key.pid, 0, key.start_ns))
            cgroup_id = cgroup_ids.pop(key)
            cost = exiting.pop(key) - moved_cpu_ns.pop(key, 0)
            before = self._settled_cpu_ns.get(cgroup_id, 0)
            self._settled_cpu_ns[cgroup_id] = before + max(0, cost)
            self._settled += 1
            del since[key]
        self._exiting_since = since

    def _sweep(self, cgroups: Map, gone: frozenset[int], now_ns: int) -> None:
        for cgroup_id in gone:
            since = self._gone_since.setdefault(cgroup_id, now_ns)
            if now_ns - since > _KEEP_GONE_NS:
                cgroups.delete(records.CGROUP_KEY.pack(cgroup_id))
                self._settled_cpu_ns.pop(cgroup_id, None)
                del self._gone_since[cgroup_id]
        for cgroup_id in self._gone_since.keys() - gone:
            del self._gone_since[cgroup_id]

    def close(self) -> None:
        """Detaches everything. A second call does nothing."""
        self._end_startup(BpfState("off", "closed"))
        if self._probes is not None:
            self._probes.close()
            self._probes = None


def _read_processes(
    processes: Map,
) -> tuple[dict[ProcessKey, int], dict[ProcessKey, int], dict[ProcessKey, int]]:
    cgroup_ids: dict[ProcessKey, int] = {}
    exiting: dict[ProcessKey, int] = {}
    moved_cpu_ns: dict[ProcessKey, int] = {}
    for keys, values in processes.chunks():
        for key, (cgroup_id, base_cpu_ns, cpu_ns, exits) in zip(
            process_keys(records.PROCESS_KEY_ALONE.iter_unpack(keys)),
            records.PROCESS_PLACE.iter_unpack(values),
            strict=True,
        ):
            cgroup_ids[key] = cgroup_id
            if exits:
                exiting[key] = cpu_ns
            if base_cpu_ns:
                moved_cpu_ns[key] = base_cpu_ns
    return cgroup_ids, exiting, moved_cpu_ns


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
            totals[cgroup_id] = CgroupEvents(*record[1:9])
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


def _sworn(known: dict[ProcessKey, int]) -> dict[ProcessKey, int]:
    """What the test hook says, for processes that are there."""
    name = os.environ.get(DISAGREE_VARIABLE)
    if not name:
        return {}
    with suppress(OSError, ValueError):
        pairs = [line.split() for line in Path(name).read_text(encoding="ascii").splitlines()]
        said = {int(pid): int(cgroup_id) for pid, cgroup_id in pairs}
        return {key: said[key.pid] for key in known if key.pid in said}
    return {}
