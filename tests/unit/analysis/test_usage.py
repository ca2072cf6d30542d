"""What two readings say of cost: percent by the interval, memory without counting a page twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis import usage
from agent.model.accounts import ContainerShare, Counters, Reading
from agent.model.attribution import Basis, Verified
from agent.model.bpf import CgroupEvents
from agent.model.container import (
    DOCKER,
    CgroupView,
    ContainerCgroup,
    ContainerKey,
    ContainerTotals,
    Governance,
    HeldBasis,
    Hierarchy,
    Tier,
    Unknown,
)
from agent.model.process import Process
from tests.unit.builders import SECOND_NS, candidate, cgroup, container, process, row, snapshot

ID = ContainerKey(DOCKER, "a" * 64)
NOTHING = Reading()


def view(*cgroups: ContainerCgroup) -> CgroupView:
    return CgroupView(Hierarchy.DEFAULT, {one.container: one for one in cgroups})


def before(*processes: Process, at_s: int = 0, cgroups: tuple[ContainerCgroup, ...] = ()) -> object:
    return usage.reading(snapshot(*processes, at_ns=at_s * SECOND_NS), view(*cgroups))


def totals(
    *rows: object,
    cgroup: ContainerCgroup | None = None,
    earlier: object = NOTHING,
    at_s: int = 10,
    share: ContainerShare | Unknown = Unknown.CANNOT,
    engine_ooms: int = 0,
) -> ContainerTotals:
    return usage.container_totals(
        container("a"),
        Governance(Tier.LOW, governed=True, protected=None),
        rows,  # type: ignore[arg-type]
        cgroup,
        snapshot(at_ns=at_s * SECOND_NS),
        earlier,  # type: ignore[arg-type]
        share,
        engine_ooms,
    )


def test_a_process_that_burned_half_the_interval_shows_fifty_percent() -> None:
    earlier = before(process(cpu_ns=3 * SECOND_NS), at_s=10)
    now = snapshot(process(cpu_ns=13 * SECOND_NS), at_ns=30 * SECOND_NS)
    (one,) = usage.process_usages(now, earlier)  # type: ignore[arg-type]
    assert one.cpu_percent == 50.0


def test_a_process_with_two_threads_burning_shows_two_hundred_percent() -> None:
    earlier = before(process(cpu_ns=0), at_s=10)
    now = snapshot(process(cpu_ns=40 * SECOND_NS), at_ns=30 * SECOND_NS)
    assert usage.process_usages(now, earlier)[0].cpu_percent == 200.0  # type: ignore[arg-type]


def test_a_process_seen_for_the_first_time_shows_its_life_s_average() -> None:
    now = snapshot(process(start_ns=2 * SECOND_NS, cpu_ns=2 * SECOND_NS), at_ns=10 * SECOND_NS)
    assert usage.process_usages(now, NOTHING)[0].cpu_percent == 25.0


def test_a_pid_used_again_is_another_process() -> None:
    earlier = before(process(pid=7, start_ns=0, cpu_ns=9 * SECOND_NS), at_s=10)
    again = process(pid=7, start_ns=15 * SECOND_NS, cpu_ns=1 * SECOND_NS)
    now = snapshot(again, at_ns=20 * SECOND_NS)
    assert usage.process_usages(now, earlier)[0].cpu_percent == 20.0  # type: ignore[arg-type]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_no_clock_or_counter_makes_a_percentage_negative_or_endless(
    cpu_ns: int, earlier_ns: int, now_ns: int
) -> None:
    earlier = usage.reading(snapshot(process(cpu_ns=earlier_ns), at_ns=5), None)
    for known in (earlier, NOTHING):
        now = snapshot(process(cpu_ns=cpu_ns, start_ns=4), at_ns=now_ns)
        percent = usage.cpu_percent(process(cpu_ns=cpu_ns, start_ns=4), now_ns, known)
        assert 0 <= percent < float("inf")
        assert len(usage.process_usages(now, known)) == 1


def test_a_row_of_a_container_s_process_carries_what_is_known_of_it() -> None:
    one = row(process(pid=9, name="sh", rss_kb=77), verified=Verified.CONFLICT, basis=Basis.MOVED)
    (found,) = usage.container_process_usages([one], snapshot(), NOTHING)
    assert (found.pid, found.name, found.rss_kb) == (9, "sh", 77)
    assert (found.verified, found.basis) == (Verified.CONFLICT, Basis.MOVED)
    assert (found.container, found.container_name) == (ID, "so1_contenedor_a")


def test_held_memory_is_the_cgroup_s_where_there_is_a_controller() -> None:
    found = totals(row(), cgroup=cgroup("a", held_kb=5000, cache_kb=300))
    assert (found.held_kb, found.held_basis, found.cache_kb) == (5000, HeldBasis.CGROUP2, 300)


def test_swap_and_the_estimated_part_of_held_memory_are_told() -> None:
    found = totals(row(), cgroup=cgroup("a", held_kb=900, held_estimated_kb=100, swap_kb=70))
    assert (found.held_kb, found.held_estimated_kb, found.swap_kb) == (900, 100, 70)
    assert totals(row(), cgroup=None).swap_kb is None


def test_held_memory_is_the_processes_own_pages_without_a_controller() -> None:
    rows = [
        row(process(1, rss_anon_kb=100, rss_shmem_kb=20, mm_id=5)),
        row(process(2, rss_anon_kb=100, rss_shmem_kb=20, mm_id=5)),
        row(process(3, rss_anon_kb=7, rss_shmem_kb=0, mm_id=6)),
    ]
    found = totals(*rows, cgroup=cgroup("a", held_kb=None))
    assert (found.held_kb, found.held_basis) == (127, HeldBasis.RSS)


def test_an_address_space_that_is_shared_counts_once_and_an_unknown_one_each_time() -> None:
    rows = [
        row(process(1, rss_kb=100, mm_id=5)),
        row(process(2, rss_kb=100, mm_id=5)),
        row(process(3, rss_kb=30, mm_id=0)),
        row(process(4, rss_kb=30, mm_id=0)),
    ]
    assert totals(*rows, cgroup=cgroup("a")).rss_kb == 160


def test_a_stray_s_own_pages_are_held_beside_the_cgroup_s() -> None:
    stray = row(candidate(2, rss_anon_kb=64, rss_shmem_kb=4, mm_id=9), basis=Basis.STRAYED)
    assert totals(row(), stray, cgroup=cgroup("a", held_kb=1000)).held_kb == 1068


def test_a_process_on_which_the_witnesses_disagree_is_in_no_sum() -> None:
    odd = row(process(2, rss_kb=999, rss_anon_kb=999, cpu_ns=SECOND_NS), verified=Verified.CONFLICT)
    with_it, without = totals(row(), odd, cgroup=None), totals(row(), cgroup=None)
    assert with_it == without


def test_a_container_s_cpu_is_its_cgroup_s_over_the_cgroup_s_own_interval() -> None:
    earlier = before(cgroups=(cgroup("a", cpu_ns=SECOND_NS, read_ns=10 * SECOND_NS),), at_s=9)
    now = cgroup("a", cpu_ns=16 * SECOND_NS, read_ns=40 * SECOND_NS)
    assert totals(row(), cgroup=now, earlier=earlier, at_s=41).cpu_percent == 50.0


def test_a_stray_s_cpu_is_added_to_its_container_s() -> None:
    stray = process(2, cpu_ns=4 * SECOND_NS)
    earlier = before(
        process(2, cpu_ns=0),
        cgroups=(cgroup("a", cpu_ns=0, read_ns=0),),
        at_s=0,
    )
    now = cgroup("a", cpu_ns=SECOND_NS, read_ns=10 * SECOND_NS)
    found = totals(row(stray, basis=Basis.STRAYED), cgroup=now, earlier=earlier)
    assert found.cpu_percent == 50.0


def test_a_container_without_a_cgroup_costs_what_its_processes_cost() -> None:
    earlier = before(process(1, cpu_ns=0), process(2, cpu_ns=0), at_s=0)
    rows = [row(process(1, cpu_ns=SECOND_NS)), row(process(2, cpu_ns=2 * SECOND_NS))]
    assert totals(*rows, cgroup=None, earlier=earlier).cpu_percent == pytest.approx(30.0)


def test_a_container_seen_for_the_first_time_shows_its_life_s_average() -> None:
    one = cgroup("a", cpu_ns=4 * SECOND_NS, read_ns=10 * SECOND_NS)
    assert totals(row(process(1, start_ns=2 * SECOND_NS)), cgroup=one).cpu_percent == 50.0


def test_oom_kills_are_those_since_the_last_tick() -> None:
    earlier = before(cgroups=(cgroup("a", oom_kills=3),), at_s=1)
    assert totals(row(), cgroup=cgroup("a", oom_kills=5), earlier=earlier).oom_kills == 2


def test_oom_kills_from_before_a_container_was_seen_are_not_told_as_new() -> None:
    old = row(process(1, start_ns=0))
    assert totals(old, cgroup=cgroup("a", oom_kills=5)).oom_kills is Unknown.NOT_YET
    assert totals(old, cgroup=cgroup("a", oom_kills=0)).oom_kills == 0
    earlier = before(at_s=5)
    assert (
        totals(old, cgroup=cgroup("a", oom_kills=5), earlier=earlier).oom_kills is Unknown.NOT_YET
    )
    born = row(process(1, start_ns=6 * SECOND_NS))
    assert totals(born, cgroup=cgroup("a", oom_kills=5), earlier=earlier).oom_kills == 5


def test_a_cgroup_whose_counter_is_unknown_has_no_oom_kills_to_tell() -> None:
    assert totals(row(), cgroup=cgroup("a", oom_kills=None)).oom_kills is Unknown.CANNOT
    assert totals(row(), cgroup=None).oom_kills is Unknown.CANNOT


def test_a_container_that_was_started_again_shows_what_its_new_life_has_used() -> None:
    """Its counter began at 0 again: against the old one's 90 s it would show nothing."""
    old = cgroup("a", life_id=5, cpu_ns=90 * SECOND_NS, oom_kills=1, read_ns=10 * SECOND_NS)
    new = cgroup("a", life_id=6, cpu_ns=8 * SECOND_NS, oom_kills=1, read_ns=20 * SECOND_NS)
    earlier = before(cgroups=(old,), at_s=10)
    found = totals(row(process(1, start_ns=12 * SECOND_NS)), cgroup=new, earlier=earlier, at_s=20)
    assert (found.cpu_percent, found.oom_kills) == (80.0, 1)


def test_a_container_that_was_started_since_shows_percent_of_the_interval() -> None:
    """It was listed at the last tick, and had no cgroup."""
    earlier = usage.reading(snapshot(at_ns=10 * SECOND_NS), view(), [container("a")])
    new = cgroup("a", life_id=6, cpu_ns=1 * SECOND_NS, oom_kills=2, read_ns=20 * SECOND_NS)
    first = row(process(1, start_ns=19 * SECOND_NS))
    found = totals(first, cgroup=new, earlier=earlier, at_s=20)
    assert (found.cpu_percent, found.oom_kills) == (10.0, 2)


def test_a_cgroup_that_was_not_seen_for_a_tick_is_not_taken_for_a_new_one() -> None:
    earlier = usage.reading(snapshot(at_ns=10 * SECOND_NS), view(), [container("a")])
    old = cgroup("a", life_id=5, cpu_ns=10 * SECOND_NS, oom_kills=3, read_ns=20 * SECOND_NS)
    found = totals(row(process(1, start_ns=0)), cgroup=old, earlier=earlier, at_s=20)
    assert (found.cpu_percent, found.oom_kills) == (50.0, Unknown.NOT_YET)


def test_what_a_life_that_has_ended_used_is_added_where_bpf_saw_it() -> None:
    old = cgroup("a", life_id=5, cpu_ns=90 * SECOND_NS, read_ns=10 * SECOND_NS)
    new = cgroup("a", life_id=6, cpu_ns=8 * SECOND_NS, read_ns=20 * SECOND_NS)
    earlier = before(cgroups=(old,), at_s=10)
    share = replace(SHARE, past_ns=SECOND_NS)
    first = row(process(1, start_ns=12 * SECOND_NS))
    found = totals(first, cgroup=new, earlier=earlier, at_s=20, share=share)
    assert found.cpu_percent == 90.0


def test_a_container_that_has_ended_shows_what_bpf_saw_of_its_last_interval() -> None:
    old = cgroup("a", life_id=5, cpu_ns=90 * SECOND_NS, read_ns=10 * SECOND_NS)
    earlier = before(cgroups=(old,), at_s=10)
    share = replace(SHARE, past_ns=4 * SECOND_NS)
    found = totals(cgroup=None, earlier=earlier, at_s=20, share=share)
    assert (found.cpu_percent, found.exits, found.oom_kills) == (40.0, 3, 1)


def ooms(*steps: tuple[int | None, int]) -> list[int | Unknown]:
    """What is stored at each tick, of (what the kernel counted since, the engine's sum)."""
    earlier, stored, counted = Reading(), list[int | Unknown](), 0
    for kernel, engine in steps:
        counted += kernel or 0
        now = None if kernel is None else cgroup("a", life_id=5, oom_kills=counted)
        found = totals(row(), cgroup=now, earlier=earlier, engine_ooms=engine)
        stored.append(found.oom_kills)
        earlier = Reading(
            counters={ID: Counters(5, 0, 0, counted)},
            engine_ooms={ID: engine},
            ooms_ahead=usage.ooms_ahead([found], {ID: engine}, earlier),
        )
    return stored


def test_oom_kills_of_lives_between_two_ticks_are_those_that_the_engine_told() -> None:
    assert ooms((None, 0), (None, 8), (0, 11), (None, 11)) == [Unknown.CANNOT, 8, 3, Unknown.CANNOT]


def test_an_oom_kill_that_the_engine_tells_a_tick_late_is_not_counted_twice() -> None:
    assert ooms((0, 0), (1, 0), (0, 1), (0, 1), (2, 2), (0, 3)) == [0, 1, 0, 0, 2, 0]


def test_an_oom_kill_told_late_does_not_hide_others_of_the_same_tick() -> None:
    assert ooms((0, 0), (1, 0), (None, 4)) == [0, 1, 3]


def test_one_that_the_engine_has_forgotten_takes_nothing_back() -> None:
    assert ooms((None, 4), (0, 0), (1, 0)) == [4, 0, 1]


SHARE = ContainerShare(
    usage_ns=10 * SECOND_NS,
    living_ns=5 * SECOND_NS,
    ended_ns=2 * SECOND_NS,
    short_lived_ns=2 * SECOND_NS,
    unexplained_ns=1 * SECOND_NS,
    events=CgroupEvents(forks=4, exits=3, oom_kills=1),
)


def test_what_bpf_explains_is_percent_of_the_cgroup_s_interval() -> None:
    earlier = before(cgroups=(cgroup("a", cpu_ns=0, read_ns=0),), at_s=0)
    now = cgroup("a", cpu_ns=10 * SECOND_NS, read_ns=20 * SECOND_NS)
    found = totals(row(), cgroup=now, earlier=earlier, at_s=20, share=SHARE)
    assert (found.cpu_percent, found.cpu_short_lived_percent, found.cpu_unexplained_percent) == (
        50.0,
        10.0,
        5.0,
    )
    assert (found.starts, found.exits, found.oom_kills) == (4, 3, 1)


@pytest.mark.parametrize("read_s", [0, 10])
def test_without_an_interval_bpf_s_events_are_told_and_no_percentages(read_s: int) -> None:
    now = cgroup("a", cpu_ns=SECOND_NS, read_ns=read_s * SECOND_NS)
    earlier = before(cgroups=(now,)) if read_s else NOTHING
    found = totals(row(), cgroup=now, earlier=earlier, share=SHARE)
    assert (found.starts, found.cpu_short_lived_percent) == (4, Unknown.NOT_YET)


def test_without_bpf_nothing_can_be_explained() -> None:
    found = totals(row(), cgroup=cgroup("a"))
    figures = (found.cpu_short_lived_percent, found.cpu_unexplained_percent, found.starts)
    assert figures == (Unknown.CANNOT, Unknown.CANNOT, Unknown.CANNOT)


def test_probes_that_are_being_started_explain_nothing_yet() -> None:
    found = totals(row(), cgroup=cgroup("a"), share=Unknown.NOT_YET)
    figures = (found.cpu_short_lived_percent, found.exits, found.starts)
    assert figures == (Unknown.NOT_YET, Unknown.NOT_YET, Unknown.NOT_YET)


def test_lives_that_were_over_before_the_first_tick_with_the_container_count_since_the_last() -> (
    None
):
    """It was made, and lived, between two ticks: the interval is that between them."""
    earlier = before(at_s=20)
    found = totals(row(), cgroup=None, earlier=earlier, at_s=30, share=replace(SHARE, past_ns=4))
    assert (found.starts, found.exits, found.oom_kills) == (4, 3, 1)
    assert found.cpu_short_lived_percent == 20.0
    alive = cgroup("a", cpu_ns=SECOND_NS, read_ns=30 * SECOND_NS)
    past = replace(SHARE, past_ns=5 * SECOND_NS)
    found = totals(row(), cgroup=alive, earlier=earlier, at_s=30, share=past)
    assert (found.starts, found.oom_kills) == (4, 1)
    assert found.cpu_short_lived_percent == 20.0
    alone = totals(row(), cgroup=alive, earlier=earlier, at_s=30)
    assert found.cpu_percent == alone.cpu_percent + 50.0


def test_one_without_a_cgroup_or_an_earlier_tick_is_not_explained_yet() -> None:
    found = totals(row(), cgroup=None, share=SHARE)
    assert (found.starts, found.cpu_short_lived_percent) == (Unknown.NOT_YET, Unknown.NOT_YET)


def test_a_reading_without_cgroups_remembers_the_processes() -> None:
    reading = usage.reading(snapshot(process(3, start_ns=4, cpu_ns=5), at_ns=6), None)
    assert reading.snapshot_ns == 6
    assert dict(reading.process_cpu_ns) == {(3, 4): 5}
    assert reading.counters == {}
