"""A container's CPU account: by hand, and against a made-up kernel that charges as ours does."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given

from agent.analysis.cpu_accounting import owners, process_cpu_ns, settle_accounts
from agent.model.accounts import Balance, CpuAccounts
from agent.model.bpf import CgroupEvents
from agent.model.container import CgroupView, ContainerCgroup, Hierarchy
from agent.model.process import ProcessKey, Source
from tests.unit import builders
from tests.unit.analysis.cpu_kernel import (
    BELOW_A,
    HOST,
    IN_A,
    IN_B,
    OWNER,
    SEEDS,
    A,
    B,
    Kernel,
    tick,
    view,
)

CGROUPS = CgroupView(
    hierarchy=Hierarchy.DEFAULT,
    containers={
        A: ContainerCgroup(A, "/a", frozenset({IN_A, BELOW_A})),
        B: ContainerCgroup(B, "/b", frozenset({IN_B})),
    },
)


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
