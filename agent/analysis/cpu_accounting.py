"""What BPF recorded at one moment, and the CPU account of each container that it closes.

A container's CPU between two ticks is held against what its processes cost: those that live, those
that ended since, those that began and ended in between and were never seen, and what none of them
explains. Pure: the figures of two moments in, the account out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from agent.analysis import cgroup_claims, short_lived
from agent.model.accounts import Balance, ContainerShare, CpuAccounts, Residency
from agent.model.bpf import BpfView, CgroupEvents
from agent.model.container import CgroupView, ContainerKey, ShortLivedCommand
from agent.model.process import ProcessKey, Snapshot, Source, in_clock_ticks


def owners(
    view: BpfView,
    cgroups: CgroupView,
    before: CpuAccounts | None = None,
    seen: Mapping[int, ContainerKey] | None = None,
    listed: Iterable[ContainerKey] = (),
) -> dict[int, ContainerKey]:
    """Container by cgroup id, of all cgroups that a container has or had.

    Directories that came and went between two ticks are found through their parents, those of a
    container that has ended or was started again through what `before` knew, and those of lives
    between two ticks through the names that they were made with, of containers that have a cgroup
    or are `listed`, and through `seen`: ids that somebody saw when they began.
    """
    owner = {**(seen or {}), **(before.owner if before is not None else {})}
    for container, cgroup in cgroups.containers.items():
        owner.update(dict.fromkeys(cgroup.ids, container))
    foreign = frozenset[int]().union(*(one.ids for one in cgroups.foreign.values()))
    owner |= cgroup_claims.claimed(view, owner, foreign, [*cgroups.containers, *listed])
    for start in view.parents:
        line: list[int] = []
        cgroup_id = start
        while cgroup_id and cgroup_id not in owner and len(line) < 64:
            line.append(cgroup_id)
            cgroup_id = view.parents.get(cgroup_id, 0)
        if found := owner.get(cgroup_id):
            owner.update(dict.fromkeys(line, found))
    return owner


def process_cpu_ns(
    snapshot: Snapshot, view: BpfView, cpu_ns: Mapping[ProcessKey, int] | None = None
) -> Mapping[ProcessKey, int]:
    """The snapshot's CPU by BPF's keys: the fallback source knows starts in clock ticks only.

    `cpu_ns` is that of `snapshot` by its own keys, where the caller has it already.
    """
    if cpu_ns is None:
        cpu_ns = {process.key: process.cpu_ns for process in snapshot.processes}
    if snapshot.source is not Source.PSUTIL:
        return cpu_ns
    return {key: cpu_ns[cut] for key in view.cgroup_ids if (cut := in_clock_ticks(key)) in cpu_ns}


def settle_accounts(
    before: CpuAccounts,
    view: BpfView,
    owner: Mapping[int, ContainerKey],
    cpu_ns: Mapping[ProcessKey, int],
    usage_ns: Mapping[ContainerKey, int],
    lives: Mapping[ContainerKey, int] | None = None,
) -> tuple[dict[ContainerKey, ContainerShare], CpuAccounts]:
    """The account of every container known since the last tick, and the accounts to go on with.

    A container has an account from its second tick on, or at once if the probes saw it begin.

    `cpu_ns` is the snapshot's CPU of every process of the host, read before `view`; `usage_ns` is
    each container's own counter, `lives` the `life_id` of the cgroup that it belongs to, without
    those that have no cgroup now (None: nobody looked). A stay
    that is over is in the cgroup's totals with all its CPU, so what the last ticks have counted of
    it is taken off again; one that is over but not yet settled (a zombie, or the moment until the
    kernel frees it) is carried on.
    """
    looked, lives = lives is not None, lives or {}
    residencies = _residencies(before, view, owner, cpu_ns)
    told = before.totals or {}
    changed = _changes(before, view, owner, lives)
    fresh = {
        owner[cgroup_id]
        for cgroup_id in view.born
        if cgroup_id in owner and cgroup_id in view.totals and cgroup_id not in told
    }
    old = {owner.get(cgroup_id) for cgroup_id in told}
    new = {owner.get(cgroup_id) for cgroup_id in view.born} - old
    named = _commands(before, view, owner)
    shares: dict[ContainerKey, ContainerShare] = {}
    balances: dict[ContainerKey, Balance] = {}
    nothing = CgroupEvents()
    for container in {**usage_ns, **before.balances, **dict.fromkeys(sorted(fresh))}:
        usage = usage_ns.get(container)
        life_id = lives.get(container, 0)
        now = residencies.get(container, {})
        balance = before.balances.get(container)
        if usage is not None:
            balances[container] = Balance(usage, now, life_id)
        elif now and looked and not life_id:
            # Its life is over, and some of its processes are not settled yet.
            balances[container] = Balance(0, now)
        if balance is None:
            if usage is None:
                # It had no cgroup at the last tick and has none now, but lives in between.
                is_known = looked and not life_id and container in fresh
            else:
                # Its birth was seen: of a container that was not known, or of this life.
                is_known = container in new or (life_id in view.born and life_id not in told)
            if before.totals is None or not is_known:
                continue
            balance = Balance(0, {})
        elif life_id == balance.life_id and usage is None and (life_id or not looked):
            continue
        past_events = changed.get((container, False), nothing)
        events = changed.get((container, True), nothing)
        if life_id == balance.life_id and usage is not None:
            spent_ns = usage - balance.usage_ns
            shares[container] = _share(balance, now, events.plus(past_events), spent_ns)
            continue
        mine = {key for key in now if _is_in(view.cgroup_ids[key], life_id, view.parents)}
        past = {key: stay for key, stay in now.items() if key not in mine}
        living = {key: stay for key, stay in now.items() if key in mine}
        shares[container] = _share(Balance(0, {}), living, events, usage).plus(
            _share(balance, past, past_events, None)
        )
    shares = {
        container: _named(share, named.get(container, ())) for container, share in shares.items()
    }
    accounted = usage_ns.keys() | shares.keys()
    totals = {
        cgroup_id: total
        for cgroup_id, total in view.totals.items()
        if cgroup_id in told or owner.get(cgroup_id) in accounted
    }
    known = {cgroup_id: owner[cgroup_id] for cgroup_id in totals if cgroup_id in owner}
    return shares, CpuAccounts(balances, totals, view.losses, known, view.short_lived, view.read_ns)


def _residencies(
    before: CpuAccounts,
    view: BpfView,
    owner: Mapping[int, ContainerKey],
    cpu_ns: Mapping[ProcessKey, int],
) -> dict[ContainerKey, dict[ProcessKey, Residency]]:
    """The residencies that are not over, by container."""
    residencies: dict[ContainerKey, dict[ProcessKey, Residency]] = {}
    for key, cgroup_id in view.cgroup_ids.items():
        container = owner.get(cgroup_id)
        if container is None or key in view.settled:
            continue
        base = view.moved_cpu_ns.get(key, 0)
        balance = before.balances.get(container)
        earlier = balance.residencies.get(key) if balance else None
        counted = earlier.counted_ns if earlier and earlier.base_ns == base else base
        # Not in the snapshot: born after it, or ended and not yet freed.
        spent = cpu_ns.get(key, view.exiting.get(key, counted))
        stay = Residency(base, max(counted, spent))
        residencies.setdefault(container, {})[key] = stay
    return residencies


def _changes(
    before: CpuAccounts,
    view: BpfView,
    owner: Mapping[int, ContainerKey],
    lives: Mapping[ContainerKey, int],
) -> dict[tuple[ContainerKey, bool], CgroupEvents]:
    """What happened since the last tick, by container and whether it was in the life that it has
    now; since its birth in a cgroup that was not known then.

    A container that is starting has a cgroup ticks before Docker tells whose it is. What is settled
    late in a cgroup of one that had no account was counted before.
    """
    told = before.totals or {}
    changes: dict[tuple[ContainerKey, bool], CgroupEvents] = {}
    nothing = CgroupEvents()
    for cgroup_id, total in view.totals.items():
        container = owner.get(cgroup_id)
        if container is None or (cgroup_id in told and container not in before.balances):
            continue
        is_now = _is_in(cgroup_id, lives.get(container, 0), view.parents)
        change = total.since(told.get(cgroup_id, nothing))
        key = (container, is_now)
        changes[key] = changes.get(key, nothing).plus(change)
    return changes


def _is_in(cgroup_id: int, life_id: int, parents: Mapping[int, int]) -> bool:
    """Whether a cgroup is the one of `life_id` or lies below it."""
    for _ in range(64):
        if cgroup_id == 0 or cgroup_id == life_id:
            break
        cgroup_id = parents.get(cgroup_id, 0)
    return cgroup_id != 0 and cgroup_id == life_id


def _named(share: ContainerShare, named: Sequence[ShortLivedCommand]) -> ContainerShare:
    """With whose its short-lived CPU was."""
    short_ns = max(0, share.short_lived_ns)
    return replace(share, commands=short_lived.largest(named, share.events.short_exits, short_ns))


def _commands(
    before: CpuAccounts, view: BpfView, owner: Mapping[int, ContainerKey]
) -> dict[ContainerKey, list[ShortLivedCommand]]:
    """What ended unseen since the last tick, by container; one entry for each parent and name."""
    sums: dict[tuple[ContainerKey, str, str], ShortLivedCommand] = {}
    for key, figures in view.short_lived.items():
        container = owner.get(key.cgroup_id)
        earlier = before.short_lived.get(key)
        if container is None or figures == earlier:
            continue
        change = figures.since(earlier)
        peak_kb = max((kb for at_ns, kb in change.peaks if at_ns > before.read_ns), default=0)
        name = (container, key.parent, key.name)
        old = sums.get(name, ShortLivedCommand(key.parent, key.name, 0, 0, 0))
        sums[name] = old._replace(
            processes=old.processes + change.processes,
            cpu_ns=old.cpu_ns + change.cpu_ns,
            peak_rss_kb=max(old.peak_rss_kb or 0, peak_kb),
        )
    found: dict[ContainerKey, list[ShortLivedCommand]] = {}
    for (container, _, _), command in sums.items():
        found.setdefault(container, []).append(command)
    return found


def _share(
    balance: Balance,
    now: Mapping[ProcessKey, Residency],
    events: CgroupEvents,
    usage_ns: int | None,
) -> ContainerShare:
    """`usage_ns` None: the counter is gone, and the processes' sum stands for it."""
    living = 0
    for key, stay in now.items():
        earlier = balance.residencies.get(key)
        same = earlier is not None and earlier.base_ns == stay.base_ns
        living += stay.counted_ns - (earlier.counted_ns if earlier and same else stay.base_ns)
    settled = sum(
        stay.counted_ns - stay.base_ns
        for key, stay in balance.residencies.items()
        if key not in now or now[key].base_ns != stay.base_ns
    )
    short, ended = events.cpu_short_ns, events.cpu_ended_ns - settled
    if ended < 0:
        # One that the snapshot caught after its mark counts as short-lived though it was seen.
        short, ended = max(0, short + ended), min(0, short + ended)
    if usage_ns is None:
        usage_ns = living + ended + short
    return ContainerShare(
        usage_ns=usage_ns,
        living_ns=living,
        ended_ns=ended,
        short_lived_ns=short,
        unexplained_ns=usage_ns - living - ended - short,
        events=events,
    )
