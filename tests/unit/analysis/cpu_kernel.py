"""A made-up kernel that charges CPU as ours does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import strategies as st

from agent.analysis.cpu_accounting import settle_accounts
from agent.model.accounts import ContainerShare, CpuAccounts
from agent.model.bpf import BpfView, CgroupEvents, Seam
from agent.model.container import ContainerKey
from agent.model.process import ProcessKey
from tests.unit import builders

A, B = builders.container_key("a"), builders.container_key("b")


NOBODY = ContainerKey("", "host")


HOST, IN_A, BELOW_A, IN_B = 1, 10, 11, 20


OWNER = {IN_A: A, BELOW_A: A, IN_B: B}


@dataclass
class Record:
    cgroup: int
    start: int
    cpu: int = 0
    base: int = 0
    uncharged: int = 0
    exited: bool = False
    short: bool = False


@dataclass
class Kernel:
    """What the kernel charges and what the probes would have recorded of it."""

    now: int = 0
    mark: int = 0
    records: dict[ProcessKey, Record] = field(default_factory=dict)
    unreaped: set[ProcessKey] = field(default_factory=set)
    events: dict[int, Counter[str]] = field(default_factory=dict)
    usage: Counter[ContainerKey] = field(default_factory=Counter)
    unseen: Counter[ContainerKey] = field(default_factory=Counter)
    """The oracle of short-lived CPU: of processes that no snapshot has had."""
    seen: set[ProcessKey] = field(default_factory=set)
    owner: dict[int, ContainerKey] = field(default_factory=lambda: dict(OWNER))

    def count(self, cgroup: int, name: str, amount: int = 1) -> None:
        self.events.setdefault(cgroup, Counter())[name] += amount

    def fork(self, cgroup: int) -> ProcessKey:
        self.now += 1
        key = ProcessKey(self.now % 5 + 2, self.now)  # pids are used again
        self.records[key] = Record(cgroup, self.now)
        self.unreaped.add(key)
        self.count(cgroup, "forks")
        return key

    def run(self, key: ProcessKey, cpu: int) -> None:
        record = self.records[key]
        if not record.exited:
            record.cpu += cpu
            self.usage[self.owner.get(record.cgroup, NOBODY)] += cpu

    def move(self, key: ProcessKey, cgroup: int) -> None:
        record = self.records[key]
        if record.exited or record.cgroup == cgroup:
            return
        self.count(record.cgroup, "moved_out")
        self.count(record.cgroup, "cpu_ended_ns", record.cpu - record.base)
        self.count(cgroup, "moved_in")
        record.cgroup, record.base = cgroup, record.cpu

    def exit(self, key: ProcessKey) -> None:
        record = self.records[key]
        if not record.exited:
            record.exited = True
            record.short = record.start > self.mark
            self.count(record.cgroup, "exits")

    def reap(self, key: ProcessKey) -> None:
        if self.records[key].exited:
            self.unreaped.discard(key)

    def free(self, key: ProcessKey) -> None:
        record = self.records[key]
        if record.exited and key not in self.unreaped:
            spent = record.cpu - record.base
            self.count(record.cgroup, "cpu_short_ns" if record.short else "cpu_ended_ns", spent)
            if key not in self.seen:
                self.unseen[self.owner.get(record.cgroup, NOBODY)] += spent
            del self.records[key]

    def end(self, key: ProcessKey) -> None:
        self.exit(key)
        self.reap(key)
        self.free(key)

    def snapshot(self) -> dict[ProcessKey, int]:
        """What the modules show: everybody until it is reaped."""
        self.now += 1
        self.mark = self.now
        shown = {key: self.records[key].cpu for key in self.records if key in self.unreaped}
        self.seen |= shown.keys()
        return shown

    def view(self) -> BpfView:
        return view(
            {key: one.cgroup for key, one in self.records.items()},
            {key: one.base for key, one in self.records.items() if one.base},
            {key: one.cpu - one.uncharged for key, one in self.records.items() if one.exited},
            {cgroup: CgroupEvents(**counts) for cgroup, counts in self.events.items()},
        )


def view(
    cgroup_ids: dict[ProcessKey, int],
    moved: dict[ProcessKey, int] | None = None,
    exiting: dict[ProcessKey, int] | None = None,
    totals: dict[int, CgroupEvents] | None = None,
    *,
    parents: dict[int, int] | None = None,
    born: frozenset[int] = frozenset(),
) -> BpfView:
    return BpfView(
        read_ns=1,
        cgroup_ids=cgroup_ids,
        exiting=exiting or {},
        moved_cpu_ns=moved or {},
        totals=totals or {HOST: CgroupEvents()},
        parents=parents or {},
        born=born,
        gone=frozenset(),
        lost=0,
        seam=Seam(),
    )


def tick(
    kernel: Kernel, accounts: CpuAccounts, usage: dict[ContainerKey, int] | None = None
) -> tuple[dict[ContainerKey, ContainerShare], CpuAccounts]:
    shown = kernel.snapshot()
    return settle_accounts(
        accounts, kernel.view(), OWNER, shown, usage or {A: kernel.usage[A], B: kernel.usage[B]}
    )


SEEDS = st.integers(0, 2**32)
