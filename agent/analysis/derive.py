"""What follows from one sample, held against what the last tick left. Pure.

The tick, the limit pass between two ticks, `agent bpf check` and the canary all go through here, so
what one of them proves holds for the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.analysis import attribution, cpu_accounting, usage
from agent.model.accounts import ContainerShare, CpuAccounts
from agent.model.attribution import AttributedProcess, Attribution, AttributionCounts
from agent.model.bpf import NO_LOSSES
from agent.model.container import (
    DOCKER,
    CgroupView,
    Container,
    ContainerKey,
    ContainerTotals,
    Governance,
    Unknown,
)
from agent.model.host import HostCounters, HostFigures
from agent.model.process import ProcessKey
from agent.model.tick import Carried, Sample, Tick

Govern = Callable[[Container], Governance]
"""How the policy sees one container."""


def derive(previous: Carried, sample: Sample, govern: Govern) -> Tick:
    """Attribution, usage, CPU accounts, totals and counts of one sample.

    `previous` is what the last stored tick left, `Carried()` where there was none. A look between
    two ticks is derived from the same value and leaves none of its own: so the accounts of the next
    tick begin where the last one's ended.
    """
    snapshot, bpf, view = sample.snapshot, sample.bpf.value, sample.cgroups.value
    containers = sample.containers.value
    if containers is None or view is None:
        answer = Attribution(rows=(), counts=AttributionCounts())
    else:
        answer = attribution.attribute(
            snapshot,
            view,
            containers,
            bpf.cgroup_ids if bpf else None,
            bpf.losses.since(previous.accounts.lost) if bpf else NO_LOSSES,
            sample.silent,
        )
    reading = usage.reading(snapshot, view, containers or ())
    shares, accounts = _settle(previous, sample, reading.process_cpu_ns)
    totals = _totals(previous, sample, answer, shares, govern)
    ahead = usage.ooms_ahead(totals, sample.engine_ooms, previous.reading)
    return Tick(
        sample=sample,
        attribution=answer,
        totals=totals,
        cpu_shares=shares,
        processes=usage.process_usages(snapshot, previous.reading),
        container_processes=usage.container_process_usages(answer.rows, snapshot, previous.reading),
        host=_host(previous.host, sample.host.value),
        may_act=frozenset(
            name
            for name in _answering(sample)
            if previous.engines_seen.get(name, 0) == sample.interruptions_after.get(name, 0)
        ),
        new_unknown_cgroups=answer.unknown_cgroups - previous.unknown_cgroups,
        carried=Carried(
            reading=replace(reading, engine_ooms=sample.engine_ooms, ooms_ahead=ahead),
            accounts=accounts,
            host=sample.host.value or previous.host,
            unknown_cgroups=answer.unknown_cgroups,
            engines_seen={
                **previous.engines_seen,
                **{name: sample.interruptions.get(name, 0) for name in _answering(sample)},
            },
        ),
    )


def _answering(sample: Sample) -> frozenset[str]:
    """The engines that gave their list. One without a container is known by its interruptions."""
    listed = sample.containers.value
    if listed is None:
        return frozenset()
    known = {*sample.interruptions, *(one.engine for one in listed), DOCKER}
    return frozenset(known) - frozenset(sample.silent)


def _settle(
    previous: Carried, sample: Sample, process_cpu_ns: Mapping[ProcessKey, int]
) -> tuple[dict[ContainerKey, ContainerShare], CpuAccounts]:
    """Each container's CPU account where BPF saw its processes, else none and the old ones."""
    bpf, view = sample.bpf.value, sample.cgroups.value
    if bpf is None or view is None:
        return {}, previous.accounts
    return cpu_accounting.settle_accounts(
        previous.accounts,
        bpf,
        cpu_accounting.owners(
            bpf,
            view,
            previous.accounts,
            sample.cgroup_owners,
            [one.key for one in sample.containers.value or ()],
        ),
        cpu_accounting.process_cpu_ns(sample.snapshot, bpf, process_cpu_ns),
        container_cpu_ns(view),
        {key: cgroup.life_id for key, cgroup in view.containers.items()},
    )


def container_cpu_ns(view: CgroupView) -> dict[ContainerKey, int]:
    """By container: CPU time by its cgroup's own counter, where there is one."""
    return {
        key: cgroup.cpu_ns for key, cgroup in view.containers.items() if cgroup.cpu_ns is not None
    }


def _totals(
    previous: Carried,
    sample: Sample,
    answer: Attribution,
    shares: dict[ContainerKey, ContainerShare],
    govern: Govern,
) -> tuple[ContainerTotals, ...]:
    view = sample.cgroups.value
    if view is None:
        return ()
    rows: dict[ContainerKey, list[AttributedProcess]] = defaultdict(list)
    for row in answer.rows:
        rows[row.container].append(row)
    accounts: dict[ContainerKey, ContainerShare | Unknown] = dict(shares)
    unexplained = _why_unexplained(sample)
    return tuple(
        usage.container_totals(
            container,
            govern(container),
            rows.get(container.key, ()),
            view.containers.get(container.key),
            sample.snapshot,
            previous.reading,
            accounts.get(container.key, unexplained),
            sample.engine_ooms.get(container.key, 0),
        )
        for container in sample.containers.value or ()
    )


def _why_unexplained(sample: Sample) -> Unknown:
    """Why a container has no account: no BPF, or not yet its second tick."""
    is_there = sample.bpf.value is not None or sample.bpf.pending
    return Unknown.NOT_YET if is_there else Unknown.CANNOT


def _host(before: HostCounters | None, now: HostCounters | None) -> HostFigures | None:
    """CPU in percent of all CPUs since `before`; 0 where there is no earlier reading."""
    if now is None:
        return None
    elapsed = now.cpu_total_s - before.cpu_total_s if before else 0.0
    busy = now.cpu_busy_s - before.cpu_busy_s if before else 0.0
    percent = 100.0 * busy / elapsed if elapsed > 0 else 0.0
    return HostFigures(
        cpu_usage_percent=min(100.0, max(0.0, percent)),
        cpu_count=now.cpu_count,
        load1=now.load1,
        psi_memory_some_avg10=now.psi_memory_some_avg10,
        psi_cpu_some_avg10=now.psi_cpu_some_avg10,
    )
