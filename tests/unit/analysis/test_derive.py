"""A tick derived from a sample: what is known, what is missing, and what the next tick gets."""

from __future__ import annotations

from dataclasses import replace

from agent.analysis.derive import derive
from agent.model.bpf import BpfView, CgroupEvents, Seam
from agent.model.container import (
    DOCKER,
    CgroupView,
    Container,
    ContainerState,
    Governance,
    Hierarchy,
    Tier,
)
from agent.model.host import HostCounters
from agent.model.process import Process, ProcessKey
from agent.model.tick import Carried, Part, Sample
from tests.unit.builders import SECOND_NS, cgroup, container, container_key, process, snapshot

A = container_key("a")
AWAY = {DOCKER: 1}
"""Docker was away once."""
MS = 10**6


def govern(one: Container) -> Governance:
    return Governance(Tier.LOW, one.state is ContainerState.RUNNING, None)


def counters(busy_s: float, total_s: float) -> HostCounters:
    return HostCounters(busy_s, total_s, 2, 0.5, None, None)


def bpf_view(at_s: int, **changed: object) -> BpfView:
    values: dict[str, object] = {
        "read_ns": at_s * SECOND_NS,
        "cgroup_ids": {},
        "exiting": {},
        "moved_cpu_ns": {},
        "totals": {5: CgroupEvents()},
        "parents": {},
        "born": frozenset(),
        "gone": frozenset(),
        "lost": 0,
        "seam": Seam(),
    }
    return BpfView(**(values | changed))  # type: ignore[arg-type]


def sample(at_s: int, *processes: Process, cpu_ms: int = 0, **changed: object) -> Sample:
    view = CgroupView(
        Hierarchy.DEFAULT,
        {A: cgroup("a", ids=frozenset({5}), cpu_ns=cpu_ms * MS, read_ns=at_s * SECOND_NS)},
    )
    now_ns = at_s * SECOND_NS
    values: dict[str, object] = {
        "containers": Part((container("a"),), now_ns),
        "snapshot": snapshot(*processes, at_ns=now_ns),
        "bpf": Part(bpf_view(at_s), now_ns),
        "cgroups": Part(view, now_ns),
        "host": Part(counters(at_s, 2 * at_s), now_ns),
    }
    return Sample(**(values | changed))  # type: ignore[arg-type]


def away(reason: str) -> Part[object]:
    return Part(None, 0, reason)


def test_without_the_engine_the_processes_are_rows_and_no_container_is_known() -> None:
    tick = derive(
        Carried(),
        sample(10, process(7), containers=away("no socket"), cgroups=away("no list")),
        govern,
    )

    assert [one.pid for one in tick.processes] == [7]
    assert (tick.totals, tick.container_processes, tick.engine_answers) == ((), (), False)
    assert not tick.may_act


def test_an_outage_of_the_engine_keeps_the_accounts_of_the_tick_before() -> None:
    first = derive(Carried(), sample(10), govern)
    gone = derive(first.carried, sample(20, containers=away("x"), cgroups=away("x")), govern)

    assert gone.carried.accounts == first.carried.accounts


def test_nothing_is_done_before_one_whole_tick_has_seen_the_engine_again() -> None:
    before = derive(Carried(), sample(10), govern)
    back = derive(
        before.carried, replace(sample(20), interruptions=AWAY, interruptions_after=AWAY), govern
    )
    after = derive(
        back.carried, replace(sample(30), interruptions=AWAY, interruptions_after=AWAY), govern
    )

    assert [one.may_act for one in (before, back, after)] == [{DOCKER}, set(), {DOCKER}]


def test_an_outage_during_the_reading_counts_for_the_tick_after_it_too() -> None:
    cut = derive(Carried(), replace(sample(10), interruptions={}, interruptions_after=AWAY), govern)
    after = derive(
        cut.carried, replace(sample(20), interruptions=AWAY, interruptions_after=AWAY), govern
    )

    assert (cut.may_act, after.may_act) == (frozenset(), frozenset())


def test_the_hosts_cpu_is_held_against_the_last_tick_and_zero_at_the_first() -> None:
    first = derive(Carried(), sample(10), govern)
    second = derive(first.carried, sample(20), govern)

    assert first.host is not None
    assert first.host.cpu_usage_percent == 0.0
    assert second.host is not None
    assert second.host.cpu_usage_percent == 50.0


def test_a_look_between_two_ticks_does_not_shorten_the_hosts_interval() -> None:
    first = derive(Carried(), sample(10), govern)
    derive(first.carried, sample(15, host=away("between two ticks")), govern)
    second = derive(first.carried, sample(20, host=Part(counters(18, 40), 20 * SECOND_NS)), govern)

    assert second.host is not None
    assert second.host.cpu_usage_percent == 40.0


def test_a_cgroup_is_new_to_the_engine_once_and_known_as_unexplained_after() -> None:
    view = CgroupView(Hierarchy.DEFAULT, {}, host_ids=frozenset({1}))
    odd = sample(10, process(7, cgroup_id=99, ppid=1), cgroups=Part(view, 0))
    first = derive(Carried(), odd, govern)
    second = derive(first.carried, odd, govern)

    assert first.new_unknown_cgroups == {99}
    assert second.new_unknown_cgroups == frozenset()
    assert second.carried.unknown_cgroups == {99}


def test_what_ended_before_and_after_a_limit_pass_is_short_lived_for_the_tick() -> None:
    """40 ms ended before the pass and 60 ms after it; a third process is seen by the pass alone."""
    key = ProcessKey(9, 12 * SECOND_NS)
    first = derive(Carried(), sample(10), govern)
    derive(
        first.carried,
        sample(
            15,
            process(9, start_ns=12 * SECOND_NS, cpu_ns=30 * MS, cgroup_id=5),
            cpu_ms=70,
            bpf=Part(
                bpf_view(
                    15,
                    cgroup_ids={key: 5},
                    totals={5: CgroupEvents(forks=2, exits=1, cpu_short_ns=40 * MS)},
                ),
                0,
            ),
        ),
        govern,
    )
    # BPF's mark stays at the first tick's snapshot, so all three are short-lived in its totals.
    tick = derive(
        first.carried,
        sample(
            20,
            cpu_ms=200,
            bpf=Part(
                bpf_view(20, totals={5: CgroupEvents(forks=4, exits=4, cpu_short_ns=200 * MS)}), 0
            ),
        ),
        govern,
    )

    (total,) = tick.totals
    assert total.cpu_short_lived_percent == 2.0
    assert total.cpu_unexplained_percent == 0.0
    assert (total.starts, total.exits) == (4, 4)


def test_events_that_bpf_lost_are_counted_since_the_last_stored_tick() -> None:
    first = derive(Carried(), sample(10, bpf=Part(bpf_view(10, lost=3), 0)), govern)
    second = derive(first.carried, sample(20, bpf=Part(bpf_view(20, lost=5), 0)), govern)

    assert first.attribution.counts.events_lost == 3
    assert second.attribution.counts.events_lost == 2


def test_two_engines_containers_with_one_id_have_figures_of_their_own() -> None:
    ours, theirs = container("a"), container("a", engine="other")
    first = process(7, cgroup_id=5, start_ns=0, rss_kb=100)
    second = process(8, cgroup_id=6, start_ns=0, rss_kb=900)

    def at(at_s: int, ours_ms: int, theirs_ms: int) -> Sample:
        now = at_s * SECOND_NS
        cgroups = {
            ours.key: cgroup("a", ids=frozenset({5}), cpu_ns=ours_ms * MS, read_ns=now),
            theirs.key: replace(
                cgroup("a", ids=frozenset({6}), cpu_ns=theirs_ms * MS, read_ns=now),
                container=theirs.key,
            ),
        }
        ids = {first.key: 5, second.key: 5}
        return sample(
            at_s,
            first,
            second,
            containers=Part((ours, theirs), now),
            cgroups=Part(CgroupView(Hierarchy.DEFAULT, cgroups), now),
            bpf=Part(bpf_view(at_s, cgroup_ids=ids), now),
        )

    tick = derive(derive(Carried(), at(10, 0, 0), govern).carried, at(20, 1000, 5000), govern)

    assert [round(one.cpu_percent) for one in tick.totals] == [10, 50]
    # BPF contradicts the second process alone; both containers are named by that.
    assert [one.processes for one in tick.totals] == [1, 0]
    assert tick.attribution.disputed == {ours.key, theirs.key}
