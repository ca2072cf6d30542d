"""What follows from one sample, held against what the last tick left. Pure.

The tick, the limit pass between two ticks, `agent bpf check` and the canary all go through here, so
what one of them proves holds for the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.analysis import attribution, cpu_accounting, usage
from agent.model.accounts import Books, ContainerShare
from agent.model.attribution import AttributedProcess, Attribution, AttributionCounts
from agent.model.container import CgroupView, Container, ContainerTotals, Governance
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
            bpf.lost - previous.accounts.lost if bpf else 0,
        )
    reading = usage.reading(snapshot, view)
    shares, accounts = _settle(previous, sample, reading.process_cpu_ns)
    answers = containers is not None
    return Tick(
        sample=sample,
        attribution=answer,
        totals=_totals(previous, sample, answer, shares, govern),
        cpu_shares=shares,
        processes=usage.process_usages(snapshot, previous.reading),
        container_processes=usage.container_process_usages(answer.rows, snapshot, previous.reading),
        host=_host(previous.host, sample.host.value),
        may_act=answers and previous.engine_seen == sample.interruptions_after,
        new_unknown_cgroups=answer.unknown_cgroups - previous.unknown_cgroups,
        carried=Carried(
            reading=reading,
            accounts=accounts,
            host=sample.host.value or previous.host,
            unknown_cgroups=answer.unknown_cgroups,
            engine_seen=sample.interruptions if answers else previous.engine_seen,
        ),
    )


def _settle(
    previous: Carried, sample: Sample, process_cpu_ns: Mapping[ProcessKey, int]
) -> tuple[dict[str, ContainerShare], Books]:
    """Each container's CPU account where BPF saw its processes, else none and the old ones."""
    bpf, view = sample.bpf.value, sample.cgroups.value
    if bpf is None or view is None:
        return {}, previous.accounts
    return cpu_accounting.close_books(
        previous.accounts,
        bpf,
        cpu_accounting.owners(bpf, view),
        cpu_accounting.process_cpu_ns(sample.snapshot, bpf, process_cpu_ns),
        container_cpu_ns(view),
    )


def container_cpu_ns(view: CgroupView) -> dict[str, int]:
    """By container: CPU time by its cgroup's own counter, where there is one."""
    return {
        key: cgroup.cpu_ns for key, cgroup in view.containers.items() if cgroup.cpu_ns is not None
    }


def _totals(
    previous: Carried,
    sample: Sample,
    answer: Attribution,
    shares: dict[str, ContainerShare],
    govern: Govern,
) -> tuple[ContainerTotals, ...]:
    view = sample.cgroups.value
    if view is None:
        return ()
    rows: dict[str, list[AttributedProcess]] = defaultdict(list)
    for row in answer.rows:
        rows[row.container_id].append(row)
    totals = []
    for container in sample.containers.value or ():
        governance = govern(container)
        one = usage.container_totals(
            container,
            governance.tier,
            governance.governed,
            rows.get(container.id, ()),
            view.containers.get(container.id),
            sample.snapshot,
            previous.reading,
        )
        one = usage.with_share(one, shares.get(container.id), view, previous.reading)
        totals.append(replace(one, rule=governance.rule))
    return tuple(totals)


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
