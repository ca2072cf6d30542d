"""A container's CPU account: by hand, and against a made-up kernel that charges as ours does."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.cpu_accounting import owners, process_cpu_ns, settle_accounts
from agent.model.accounts import Balance, ContainerShare, CpuAccounts
from agent.model.bpf import BpfView, CgroupEvents, Seam
from agent.model.container import CgroupView, ContainerCgroup, ContainerKey, Hierarchy
from agent.model.process import ProcessKey, Source
from tests.unit import builders

A, B = builders.container_key("a"), builders.container_key("b")
NOBODY = ContainerKey("", "host")
HOST, IN_A, BELOW_A, IN_B = 1, 10, 11, 20
CGROUPS = CgroupView(
    hierarchy=Hierarchy.DEFAULT,
    containers={
        A: ContainerCgroup(A, "/a", frozenset({IN_A, BELOW_A})),
        B: ContainerCgroup(B, "/b", frozenset({IN_B})),
    },
)
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


@given(SEEDS)
def test_the_books_close_whatever_processes_do(seed: int) -> None:
    chance = random.Random(seed)
    kernel = Kernel()
    _, accounts = tick(kernel, CpuAccounts())
    before = Counter(kernel.usage)
    for _ in range(200):
        step = chance.choice(["fork", "fork", "run", "run", "run", "move", "end", "exit", "tick"])
        key = chance.choice(list(kernel.records)) if kernel.records else None
        if step == "tick":
            shares, accounts = tick(kernel, accounts)
            for container in (A, B):
                share = shares[container]
                assert share.usage_ns == kernel.usage[container] - before[container]
                assert share.unexplained_ns == 0
            before = Counter(kernel.usage)
        elif step == "fork" or key is None:
            kernel.fork(chance.choice([HOST, IN_A, BELOW_A, IN_B]))
        elif step == "run":
            kernel.run(key, chance.randint(1, 1000))
        elif step == "move":
            kernel.move(key, chance.choice([HOST, IN_A, BELOW_A, IN_B]))
        elif step == "exit":
            kernel.exit(key)
            if chance.random() < 0.5:
                kernel.reap(key)
        else:
            kernel.end(key)


@given(SEEDS)
def test_what_no_snapshot_has_seen_is_short_lived(seed: int) -> None:
    """Without moves, and with everything freed as it ends, to the nanosecond."""
    chance = random.Random(seed)
    kernel = Kernel()
    _, accounts = tick(kernel, CpuAccounts())
    before = Counter(kernel.unseen)
    for _ in range(200):
        step = chance.choice(["fork", "fork", "run", "run", "run", "end", "tick"])
        key = chance.choice(list(kernel.records)) if kernel.records else None
        if step == "tick":
            shares, accounts = tick(kernel, accounts)
            for container in (A, B):
                told = kernel.unseen[container] - before[container]
                assert shares[container].short_lived_ns == told
            before = Counter(kernel.unseen)
        elif step == "fork" or key is None:
            kernel.fork(chance.choice([HOST, IN_A, BELOW_A, IN_B]))
        elif step == "run":
            kernel.run(key, chance.randint(1, 1000))
        else:
            kernel.end(key)


def test_a_process_that_lives_costs_what_it_ran_since_the_last_tick() -> None:
    kernel = Kernel()
    key = kernel.fork(IN_A)
    kernel.run(key, 5)
    _, accounts = tick(kernel, CpuAccounts())
    kernel.run(key, 7)
    shares, _ = tick(kernel, accounts)
    share = shares[A]
    assert (share.usage_ns, share.living_ns, share.ended_ns) == (7, 7, 0)
    assert (share.short_lived_ns, share.unexplained_ns) == (0, 0)


def test_one_that_was_seen_and_ended_costs_only_what_was_not_yet_counted() -> None:
    kernel = Kernel()
    key = kernel.fork(IN_A)
    kernel.run(key, 5)
    _, accounts = tick(kernel, CpuAccounts())
    kernel.run(key, 7)
    kernel.end(key)
    shares, _ = tick(kernel, accounts)
    assert (shares[A].ended_ns, shares[A].living_ns, shares[A].short_lived_ns) == (7, 0, 0)
    assert shares[A].events.exits == 1


def test_a_zombie_is_carried_until_the_kernel_frees_it() -> None:
    kernel = Kernel()
    key = kernel.fork(IN_A)
    _, accounts = tick(kernel, CpuAccounts())
    kernel.run(key, 9)
    kernel.exit(key)
    first, accounts = tick(kernel, accounts)
    kernel.reap(key)
    second, accounts = tick(kernel, accounts)
    kernel.free(key)
    third, _ = tick(kernel, accounts)
    assert [first[A].living_ns, second[A].living_ns, third[A].ended_ns] == [9, 0, 0]
    assert [one[A].unexplained_ns for one in (first, second, third)] == [0, 0, 0]


def test_what_is_reaped_and_not_yet_freed_is_unexplained_for_that_moment_only() -> None:
    kernel = Kernel()
    _, accounts = tick(kernel, CpuAccounts())
    key = kernel.fork(IN_A)
    kernel.run(key, 9)
    kernel.records[key].uncharged = 4  # since the scheduler last looked
    kernel.exit(key)
    kernel.reap(key)
    first, accounts = tick(kernel, accounts)
    kernel.free(key)
    second, _ = tick(kernel, accounts)
    assert (first[A].living_ns, second[A].short_lived_ns) == (5, 4)
    assert (first[A].unexplained_ns, second[A].unexplained_ns) == (4, -4)


def test_what_a_runtime_spent_before_it_moved_in_is_not_the_containers() -> None:
    kernel = Kernel()
    _, accounts = tick(kernel, CpuAccounts())
    key = kernel.fork(HOST)
    kernel.run(key, 30)
    kernel.move(key, IN_A)
    kernel.run(key, 4)
    shares, _ = tick(kernel, accounts)
    assert (shares[A].living_ns, shares[A].unexplained_ns) == (4, 0)
    assert shares[A].events.moved_in == 1


@pytest.mark.parametrize(("source", "start"), [(Source.MODULES, 123), (Source.PSUTIL, 0)])
def test_the_snapshots_cpu_is_found_by_the_keys_of_either_source(
    source: Source, start: int
) -> None:
    key = ProcessKey(7, 70_000_000 + 123)
    one = builders.process(7, cpu_ns=5, start_ns=70_000_000 + start)
    shown = replace(builders.snapshot(one), source=source)
    assert process_cpu_ns(shown, view({key: IN_A})) == {key: 5}


def test_cpu_that_nobody_accounts_for_is_told_as_unexplained() -> None:
    kernel = Kernel()
    kernel.fork(IN_A)
    _, accounts = tick(kernel, CpuAccounts())
    shares, _ = tick(kernel, accounts, {A: kernel.usage[A] + 100, B: 0})
    assert shares[A].unexplained_ns == 100


def test_a_container_known_for_the_first_time_has_no_account_yet() -> None:
    kernel = Kernel()
    shares, _ = tick(kernel, CpuAccounts())
    assert shares == {}


def test_one_whose_birth_was_seen_has_its_account_from_the_beginning() -> None:
    accounts = CpuAccounts(totals={HOST: CgroupEvents()})
    totals = {HOST: CgroupEvents(), IN_A: CgroupEvents(forks=3, exits=3, cpu_short_ns=40)}
    now = view({}, totals=totals, born=frozenset({IN_A}))
    shares, _ = settle_accounts(accounts, now, OWNER, {}, {A: 50})
    assert shares[A].events.starts == 3
    assert (shares[A].short_lived_ns, shares[A].unexplained_ns) == (40, 10)


def test_what_happened_before_docker_told_whose_it_is_belongs_to_the_first_account() -> None:
    host = {HOST: CgroupEvents()}
    born = frozenset({IN_A})
    accounts = CpuAccounts(totals=host)
    for kills, usage_ns in ((3, {}), (5, {A: 0}), (6, {})):
        totals = {**host, IN_A: CgroupEvents(oom_kills=kills)}
        shares, accounts = settle_accounts(
            accounts, view({}, totals=totals, born=born), OWNER, {}, usage_ns
        )
        assert {name: share.events.oom_kills for name, share in shares.items()} == (
            {A: 5} if usage_ns else {}
        )
    # Its counter could not be read for a tick: nothing is told twice.
    shares, _ = settle_accounts(accounts, view({}, totals=totals, born=born), OWNER, {}, {A: 0})
    assert shares == {}


def test_a_nested_cgroup_that_came_and_went_is_its_containers_through_its_parents() -> None:
    now = view({}, totals={IN_A: CgroupEvents()}, parents={77: 76, 76: IN_A, 88: HOST})
    owner = owners(now, CGROUPS)
    assert (owner[77], owner[76]) == (A, A)
    assert 88 not in owner


def test_parents_in_a_circle_end_the_search() -> None:
    assert 5 not in owners(view({}, parents={5: 6, 6: 5}), CGROUPS)


def test_a_record_that_was_swept_takes_nothing_back() -> None:
    accounts = CpuAccounts(
        {A: Balance(0, {})}, {IN_A: CgroupEvents(), BELOW_A: CgroupEvents(forks=9)}
    )
    shares, _ = settle_accounts(
        accounts, view({}, totals={IN_A: CgroupEvents()}), OWNER, {}, {A: 0}
    )
    assert shares[A].events == CgroupEvents()


def test_what_a_container_used_before_it_was_started_again_is_in_its_account() -> None:
    """Its own counter began again: the right usage was 12, the counter's difference is -1."""
    kernel = Kernel()
    key = kernel.fork(IN_A)
    kernel.run(key, 5)
    shown = kernel.snapshot()
    _, accounts = settle_accounts(CpuAccounts(), kernel.view(), OWNER, shown, {A: 5}, {A: IN_A})
    kernel.run(key, 8)
    kernel.end(key)
    again = kernel.fork(NEXT_A)
    kernel.run(again, 4)
    shown, now = kernel.snapshot(), kernel.view()
    owner = owners(now, lives_view(NEXT_A), accounts)
    shares, accounts = settle_accounts(accounts, now, owner, shown, {A: 4}, {A: NEXT_A})
    share = shares[A]
    assert (share.usage_ns, share.past_ns, share.unexplained_ns) == (12, 8, 0)
    assert (share.living_ns, share.ended_ns) == (4, 8)
    assert (share.events.starts, share.events.exits) == (1, 1)
    kernel.run(again, 3)
    shown, now = kernel.snapshot(), kernel.view()
    owner = owners(now, lives_view(NEXT_A), accounts)
    shares, _ = settle_accounts(accounts, now, owner, shown, {A: 7}, {A: NEXT_A})
    assert (shares[A].usage_ns, shares[A].past_ns, shares[A].unexplained_ns) == (3, 0, 0)


def test_what_a_container_used_before_it_ended_is_in_its_last_account() -> None:
    kernel = Kernel()
    key = kernel.fork(IN_A)
    kernel.run(key, 5)
    shown = kernel.snapshot()
    _, accounts = settle_accounts(CpuAccounts(), kernel.view(), OWNER, shown, {A: 5}, {A: IN_A})
    kernel.run(key, 8)
    kernel.count(IN_A, "oom_kills")
    kernel.end(key)
    shown, now = kernel.snapshot(), kernel.view()
    nobody = CgroupView(hierarchy=Hierarchy.DEFAULT, containers={})
    shares, accounts = settle_accounts(accounts, now, owners(now, nobody, accounts), shown, {}, {})
    assert (shares[A].usage_ns, shares[A].ended_ns, shares[A].events.oom_kills) == (8, 8, 1)
    shares, _ = settle_accounts(accounts, now, owners(now, nobody, accounts), shown, {}, {})
    assert shares == {}


def test_lives_between_two_ticks_are_in_the_account_once() -> None:
    """Docker starts a container again and again, and no tick meets it with a cgroup."""
    kernel = Kernel()
    seen: dict[int, ContainerKey] = {}
    accounts = CpuAccounts(totals={HOST: CgroupEvents()})
    nobody = CgroupView(hierarchy=Hierarchy.DEFAULT, containers={})
    told = []
    for number, lives in enumerate((2, 0, 3)):
        for cgroup in range(200 + 10 * number, 200 + 10 * number + lives):
            seen[cgroup] = kernel.owner[cgroup] = A
            key = kernel.fork(cgroup)
            kernel.run(key, 100)
            kernel.count(cgroup, "oom_kills")
            kernel.end(key)
        shown = kernel.snapshot()
        now = replace(kernel.view(), born=frozenset(seen))
        owner = owners(now, nobody, accounts, seen)
        shares, accounts = settle_accounts(accounts, now, owner, shown, {}, {})
        told.append(shares.get(A))
    first, second, third = told
    assert first is not None
    assert (first.usage_ns, first.past_ns, first.short_lived_ns) == (200, 200, 200)
    assert (first.events.starts, first.events.oom_kills, first.unexplained_ns) == (2, 2, 0)
    assert second is None
    assert third is not None
    assert (third.usage_ns, third.events.exits, third.events.oom_kills) == (300, 3, 3)


def test_lives_between_two_ticks_are_added_to_the_one_that_is() -> None:
    kernel = Kernel()
    key = kernel.fork(IN_A)
    kernel.run(key, 5)
    _, accounts = settle_accounts(
        CpuAccounts(), kernel.view(), OWNER, kernel.snapshot(), {A: 5}, {A: IN_A}
    )
    kernel.run(key, 8)
    kernel.end(key)
    for cgroup in (200, NEXT_A):
        kernel.owner[cgroup] = A
        key = kernel.fork(cgroup)
        kernel.run(key, 100)
        if cgroup == 200:
            kernel.end(key)
    shown = kernel.snapshot()
    now = replace(kernel.view(), born=frozenset({200, NEXT_A}))
    owner = owners(now, lives_view(NEXT_A), accounts, {200: A})
    shares, _ = settle_accounts(accounts, now, owner, shown, {A: 100}, {A: NEXT_A})
    assert (shares[A].usage_ns, shares[A].past_ns, shares[A].unexplained_ns) == (208, 108, 0)
    assert shares[A].events.starts == 2


def test_a_counter_that_cannot_be_read_for_a_tick_is_no_new_life() -> None:
    kernel = Kernel()
    key = kernel.fork(IN_A)
    kernel.run(key, 5)
    shown = kernel.snapshot()
    _, accounts = settle_accounts(CpuAccounts(), kernel.view(), OWNER, shown, {A: 5}, {A: IN_A})
    kernel.run(key, 8)
    shares, _ = settle_accounts(accounts, kernel.view(), OWNER, kernel.snapshot(), {}, {A: IN_A})
    assert shares == {}


NEXT_A = 30


def lives_view(life_id: int) -> CgroupView:
    return CgroupView(
        hierarchy=Hierarchy.DEFAULT,
        containers={A: ContainerCgroup(A, "/a", frozenset({life_id}), life_id=life_id)},
    )


@given(SEEDS)
def test_the_books_close_over_one_life_after_the_other(seed: int) -> None:
    """Each tick finds the container in the same life as before, in the next one, or in none."""
    chance = random.Random(seed)
    kernel = Kernel()
    life, cgroup, usage_of_life, accounts, spent = 0, 0, 0, CpuAccounts(totals={}), 0
    born: set[int] = set()
    told_life = 0
    for _ in range(200):
        step = chance.choice(["fork", "fork", "run", "run", "run", "end", "turn", "tick"])
        mine = [key for key, one in kernel.records.items() if one.cgroup == cgroup and cgroup]
        if step == "fork" and cgroup:
            kernel.fork(cgroup)
        elif step == "run" and mine:
            cpu = chance.randint(1, 1000)
            kernel.run(chance.choice(mine), cpu)
            usage_of_life, spent = usage_of_life + cpu, spent + cpu
        elif step == "end" and mine:
            kernel.end(chance.choice(mine))
        elif step == "turn" and told_life == cgroup:
            # One life between two ticks is known from the tick before or the tick after.
            for key in mine:
                kernel.end(key)
            life += 1
            cgroup = 0 if cgroup and chance.random() < 0.3 else 100 + life
            usage_of_life = 0
            if cgroup:
                kernel.owner[cgroup] = A
                kernel.count(cgroup, "execs")
                born.add(cgroup)
        elif step == "tick":
            shown = kernel.snapshot()
            now = replace(kernel.view(), born=frozenset(born))
            alive = lives_view(cgroup) if cgroup else CgroupView(Hierarchy.DEFAULT, {})
            usage, lives = ({A: usage_of_life}, {A: cgroup}) if cgroup else ({}, {})
            owner = owners(now, alive, accounts)
            shares, accounts = settle_accounts(accounts, now, owner, shown, usage, lives)
            if A in shares:
                assert shares[A].usage_ns == spent
                assert shares[A].unexplained_ns == 0
            else:
                assert spent == 0
            spent, told_life = 0, cgroup
