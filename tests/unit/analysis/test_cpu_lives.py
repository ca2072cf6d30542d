"""The CPU account across the lives of a container: what each used is counted once."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given

from agent.analysis.cpu_accounting import owners, settle_accounts
from agent.model.accounts import CpuAccounts
from agent.model.bpf import CgroupEvents, CgroupName
from agent.model.container import CgroupView, ContainerCgroup, ContainerKey, Hierarchy
from tests.unit.analysis.cpu_kernel import (
    HOST,
    IN_A,
    OWNER,
    SEEDS,
    A,
    Kernel,
)


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


def test_an_end_that_is_settled_after_the_tick_that_found_the_container_ended_is_counted_once() -> (
    None
):
    """Its last process is on its way out while the tick reads, and its directory is gone."""
    kernel = Kernel(owner={})
    nobody = CgroupView(hierarchy=Hierarchy.DEFAULT, containers={})
    accounts = CpuAccounts(totals={HOST: CgroupEvents()})
    kernel.owner[200] = A
    key = kernel.fork(200)
    kernel.run(key, 70)
    told, spent = [], []
    for step in ("is seen", "runs on", "ends", "is over"):
        if step == "runs on":
            kernel.run(key, 30)
        elif step == "ends":
            kernel.end(key)
        shown = kernel.snapshot()
        now = replace(kernel.view(), born=frozenset({200}), names={200: CgroupName(A.id, HOST, 0)})
        owner = owners(now, nobody, accounts, listed=[A])
        shares, accounts = settle_accounts(accounts, now, owner, shown, {}, {})
        share = shares.get(A)
        told.append(share and (share.events.starts, share.events.exits))
        spent.append(share and (share.usage_ns, share.unexplained_ns))
    assert told == [(1, 0), (0, 0), (0, 1), None]
    assert spent == [(70, 0), (30, 0), (0, 0), None]


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
