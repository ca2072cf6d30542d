"""What processes and containers cost: two readings in, CPU percent and memory sums out.

100 percent is one CPU over the interval between the two readings. A process seen for the first time
has no earlier reading and falls back to its life average, as the original's modules give it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple, TypeGuard

from agent.model.accounts import ContainerShare, Counters, Reading
from agent.model.attribution import AttributedProcess, Basis, Verified
from agent.model.container import (
    CgroupView,
    Container,
    ContainerCgroup,
    ContainerKey,
    ContainerTotals,
    Governance,
    HeldBasis,
    ShortLivedCommand,
    Unknown,
)
from agent.model.process import Candidate, Process, Snapshot
from agent.model.record import ContainerProcessUsage, ProcessUsage

_cpu_ns = attrgetter("cpu_ns")


def reading(
    snapshot: Snapshot, view: CgroupView | None, listed: Iterable[Container] = ()
) -> Reading:
    """The counters of one tick, to be held against the next one's.

    Of `listed` are those containers remembered too that had no cgroup.
    """
    containers = view.containers if view else {}
    none = Counters(0, snapshot.snapshot_ns, None, None)
    return Reading(
        snapshot_ns=snapshot.snapshot_ns,
        process_cpu_ns=dict(zip(snapshot.keys, map(_cpu_ns, snapshot.processes), strict=True)),
        counters={one.key: none for one in listed}
        | {
            key: Counters(cgroup.life_id, cgroup.read_ns, cgroup.cpu_ns, cgroup.oom_kills)
            for key, cgroup in containers.items()
        },
    )


def cpu_percent(process: Process | Candidate, now_ns: int, before: Reading) -> float:
    """Percent of one CPU since `before`, or over its life where `before` has no reading."""
    earlier = before.process_cpu_ns.get(process.key)
    if earlier is None:
        return _percent(process.cpu_ns, now_ns - process.start_ns)
    return _percent(process.cpu_ns - earlier, now_ns - before.snapshot_ns)


def process_usages(snapshot: Snapshot, before: Reading) -> tuple[ProcessUsage, ...]:
    """One row a process of the snapshot."""
    now_ns = snapshot.snapshot_ns
    earlier = before.process_cpu_ns.get
    # A list is made faster than a generator is drained, and nearly all processes rest.
    return tuple(
        [
            ProcessUsage(
                process.pid,
                process.name,
                process.rss_kb,
                0.0 if earlier(key) == process.cpu_ns else cpu_percent(process, now_ns, before),
            )
            for process, key in zip(snapshot.processes, snapshot.keys, strict=True)
        ]
    )


def container_process_usages(
    rows: Iterable[AttributedProcess], snapshot: Snapshot, before: Reading
) -> tuple[ContainerProcessUsage, ...]:
    """One row a process that is a container's; conflicting ones are told, not left out."""
    now_ns = snapshot.snapshot_ns
    return tuple(
        ContainerProcessUsage(
            container=row.container,
            container_name=row.container_name,
            pid=row.process.pid,
            name=row.process.name,
            rss_kb=row.process.rss_kb,
            cpu_percent=cpu_percent(row.process, now_ns, before),
            verified=row.verified,
            basis=row.basis,
        )
        for row in rows
    )


def container_totals(
    container: Container,
    governance: Governance,
    rows: Iterable[AttributedProcess],
    cgroup: ContainerCgroup | None,
    snapshot: Snapshot,
    before: Reading,
    share: ContainerShare | Unknown = Unknown.CANNOT,
    engine_ooms: int = 0,
) -> ContainerTotals:
    """What one container costs. Rows on which the witnesses disagree are kept out.

    Held memory is what the container's end gives back: its cgroup's, and beside it the anonymous
    and shared pages of escaped processes, which die with it though another cgroup is charged for
    them. (What one touched before it was moved stays charged to the old cgroup, and so counts
    twice.)

    `share` is what BPF explains of its CPU, or why it explains nothing. `engine_ooms` are the
    engine's events of running out of memory since the agent began to follow them: a life that began
    and ended between two ticks took the kernel's counter with it. The engine reports a moment later
    than the kernel counts: what was counted at the last tick already is not added again.
    """
    sure = [row for row in rows if row.verified is not Verified.CONFLICT]
    escaped = [row for row in sure if row.basis is Basis.STRAYED]
    inside = [row for row in sure if row.basis is not Basis.STRAYED]
    if cgroup is not None and cgroup.held_kb is not None:
        held_kb = cgroup.held_kb + _unshared_kb(escaped)
        held_basis = cgroup.held_basis
    else:
        held_kb = _unshared_kb(sure)
        held_basis = HeldBasis.RSS
    now_ns = snapshot.snapshot_ns
    percent = _container_cpu_percent(container.key, inside, cgroup, now_ns, before)
    percent += sum(cpu_percent(row.process, now_ns, before) for row in escaped)
    explained = _explained(container.key, share, cgroup, now_ns, before)
    kills: int | Unknown = _oom_kills(sure, cgroup, before)
    if explained.oom_kills is not None:
        kills = explained.oom_kills
    late = _late_ooms(container.key, engine_ooms, before)
    return ContainerTotals(
        container=container,
        tier=governance.tier,
        governed=governance.governed,
        rule=governance.rule,
        processes=len(sure),
        held_kb=held_kb,
        held_basis=held_basis,
        rss_kb=sum(process.rss_kb for process in _distinct(sure)),
        cache_kb=cgroup.cache_kb if cgroup else None,
        cpu_percent=percent + explained.past_percent,
        cpu_short_lived_percent=explained.short_lived_percent,
        cpu_unexplained_percent=explained.unexplained_percent,
        starts=explained.starts,
        exits=explained.exits,
        oom_kills=late if late > _number(kills) else kills,
        swap_kb=cgroup.swap_kb if cgroup else None,
        held_estimated_kb=cgroup.held_estimated_kb if cgroup else 0,
        short_lived=explained.commands,
    )


def ooms_ahead(
    totals: Iterable[ContainerTotals], reported: Mapping[ContainerKey, int], before: Reading
) -> Mapping[ContainerKey, int]:
    """`Reading.ooms_ahead`: kills that are in `totals` and that the engine has not reported yet.

    `reported` are the engine's events by container, as `container_totals` was given them.
    """
    ahead = {}
    for one in totals:
        key = one.container.key
        late = _late_ooms(key, reported.get(key, 0), before)
        if (kills := _number(one.oom_kills)) > late:
            ahead[key] = kills - late
    return ahead


class _Explained(NamedTuple):
    """What BPF's account says of one container in one interval."""

    short_lived_percent: float | Unknown
    unexplained_percent: float | Unknown
    starts: int | Unknown
    exits: int | Unknown
    oom_kills: int | None = None
    """None: the cgroup's own counter says it."""
    past_percent: float = 0.0
    """CPU of a life that has ended since."""
    commands: tuple[ShortLivedCommand, ...] = ()


def _explained(
    container: ContainerKey,
    share: ContainerShare | Unknown,
    cgroup: ContainerCgroup | None,
    now_ns: int,
    before: Reading,
) -> _Explained:
    """`now_ns` is the boot clock for a container whose cgroup is gone."""
    if isinstance(share, Unknown):
        return _Explained(share, share, share, share)
    not_yet, events = Unknown.NOT_YET, share.events
    earlier = before.counters.get(container)
    read_ns = cgroup.read_ns if cgroup is not None else now_ns
    since_ns = earlier.read_ns if earlier is not None else None
    if earlier is None and (cgroup is None or share.past_ns):
        # Its first tick, and a life of it has ended: all that was since the last tick, of whomever.
        since_ns = before.snapshot_ns or None
    if since_ns is None or read_ns <= since_ns:
        if cgroup is None:
            return _Explained(not_yet, not_yet, not_yet, not_yet)
        # Its first tick: there is no interval that its CPU could be held against.
        return _Explained(not_yet, not_yet, events.starts, events.exits)
    elapsed_ns = read_ns - since_ns
    return _Explained(
        short_lived_percent=_percent(share.short_lived_ns, elapsed_ns),
        unexplained_percent=100.0 * share.unexplained_ns / elapsed_ns,
        starts=events.starts,
        exits=events.exits,
        oom_kills=events.oom_kills,
        past_percent=_percent(share.past_ns, elapsed_ns),
        commands=share.commands,
    )


def _late_ooms(container: ContainerKey, reported: int, before: Reading) -> int:
    """Kills that the engine has reported since the last tick and that no tick has counted."""
    since = max(0, reported - before.engine_ooms.get(container, 0))
    return max(0, since - before.ooms_ahead.get(container, 0))


def _number(kills: int | Unknown) -> int:
    return 0 if isinstance(kills, Unknown) else kills


def _oom_kills(
    rows: list[AttributedProcess], cgroup: ContainerCgroup | None, before: Reading
) -> int | Unknown:
    """OOM kills since the last tick, by the cgroup's own counter.

    A container seen for the first time may have had them long ago: they count where all of its
    processes began since the last tick, and are unknown elsewhere.
    """
    if cgroup is None or cgroup.oom_kills is None:
        return Unknown.CANNOT
    earlier = before.counters.get(cgroup.container)
    if _is_same_life(earlier, cgroup) and earlier.oom_kills is not None:
        return max(0, cgroup.oom_kills - earlier.oom_kills)
    first_ns = min((row.process.start_ns for row in rows), default=0)
    is_new = before.snapshot_ns and first_ns >= before.snapshot_ns
    if is_new or not cgroup.oom_kills or _is_next_life(earlier, cgroup):
        return cgroup.oom_kills
    return Unknown.NOT_YET


def _container_cpu_percent(
    container: ContainerKey,
    rows: list[AttributedProcess],
    cgroup: ContainerCgroup | None,
    now_ns: int,
    before: Reading,
) -> float:
    """Of the life that it has: what one that ended since has used went with its counter."""
    if cgroup is None or cgroup.cpu_ns is None:
        return sum(cpu_percent(row.process, now_ns, before) for row in rows)
    earlier = before.counters.get(container)
    first_ns = min((row.process.start_ns for row in rows), default=cgroup.read_ns)
    if earlier is not None:
        if _is_same_life(earlier, cgroup) and earlier.cpu_ns is not None:
            return _percent(cgroup.cpu_ns - earlier.cpu_ns, cgroup.read_ns - earlier.read_ns)
        if _is_next_life(earlier, cgroup) or first_ns >= earlier.read_ns:
            return _percent(cgroup.cpu_ns, cgroup.read_ns - earlier.read_ns)
    return _percent(cgroup.cpu_ns, cgroup.read_ns - first_ns)


def _is_same_life(earlier: Counters | None, cgroup: ContainerCgroup) -> TypeGuard[Counters]:
    return earlier is not None and earlier.life_id == cgroup.life_id


def _is_next_life(earlier: Counters | None, cgroup: ContainerCgroup) -> bool:
    """Whether the cgroup surely was made since: all that it has counted is of the interval."""
    return earlier is not None and 0 != earlier.life_id != cgroup.life_id


def _distinct(rows: Iterable[AttributedProcess]) -> list[Process | Candidate]:
    """One process an address space; `mm_id` 0 says nothing of sharing."""
    seen: set[int] = set()
    distinct: list[Process | Candidate] = []
    for row in rows:
        mm_id = row.process.mm_id
        if mm_id == 0 or mm_id not in seen:
            distinct.append(row.process)
            seen.add(mm_id)
    return distinct


def _unshared_kb(rows: Iterable[AttributedProcess]) -> int:
    return sum(process.rss_anon_kb + process.rss_shmem_kb for process in _distinct(rows))


def _percent(cpu_ns: int, elapsed_ns: int) -> float:
    """A counter read a moment before its clock may seem to fall: never below 0."""
    return 100.0 * max(0, cpu_ns) / elapsed_ns if elapsed_ns > 0 else 0.0
